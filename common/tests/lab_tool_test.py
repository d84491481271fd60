"""Tests of the labs' tools: python3 common/tests/lab_tool_test.py

Starters, the student's loop (lab.py), and verdicts on files that are no attempts at all. Needs the
emulator's build: al_lab, lab_judge.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "common" / "lab"))
import contained  # noqa: E402
import judge  # noqa: E402
import starter  # noqa: E402
import variants  # noqa: E402

KERNEL = """\
#pragma once
// [snippet sum]
inline void sum() {
  int a = 0;
  // [hole one]
  a += 1;
  // [/hole]
  a += 2;
}
// [/snippet]
"""
LAB = """\
<!--
title = "One"
kind = "fill"
file = "sum.cuh"
launch = "al::sum"
minutes = 5
{more}
[[problem]]
seq = 8
-->

## Question
What?
## Predict first
How many?
## Do
It.
## Check
Sums.
## Hints
### Hint 1
Add.

### Hint 2
Add one.
"""
CHANGE = "[[change]]\nregion = \"one\"\ntext = '''\n// YOUR LINE\n'''\n"


class Starters(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        (self.root / "01_sums" / "lab").mkdir(parents=True)
        (self.root / "01_sums" / "sum.cuh").write_text(KERNEL)
        self.addCleanup(setattr, starter, "ROOT", starter.ROOT)
        starter.ROOT = self.root

    def lab(self, text):
        path = self.root / "01_sums" / "lab" / "2_one.md"
        path.write_text(text)
        return starter.read_lab(path)

    def complaint(self, text):
        with self.assertRaises(starter.LabError) as caught:
            starter.starter(self.lab(text))
        return str(caught.exception)

    def test_a_hole(self):
        lab = self.lab(LAB.format(more=CHANGE))
        self.assertEqual(lab.id, "01.2")
        self.assertEqual(lab.hints, ["Add.\n\n", "Add one.\n"])
        self.assertEqual(starter.starter(lab), "#pragma once\ninline void sum() {\n  int a = 0;\n"
                                               "  // YOUR LINE\n  a += 2;\n}\n")
        self.assertEqual(starter.chapter_file(lab), "#pragma once\ninline void sum() {\n  int a = 0;\n"
                                                    "  a += 1;\n  a += 2;\n}\n")
        self.assertIn("## Question\nWhat?", starter.question(lab))
        self.assertNotIn("Add one", starter.question(lab))

    def test_text_for_text(self):
        change = "[[change]]\nfrom = '''  a += 2;'''\nto = '''  a += 3;'''\n"
        self.assertIn("  a += 1;\n  a += 3;\n", starter.starter(self.lab(LAB.format(more=change))))

    def test_what_does_not_fit_is_said(self):
        self.assertIn("has 0 regions '// [hole two]'",
                      self.complaint(LAB.format(more=CHANGE.replace('"one"', '"two"'))))
        twice = "[[change]]\nfrom = '''a +='''\nto = '''b'''\n"
        self.assertIn("has this 2 times, not once", self.complaint(LAB.format(more=twice)))
        self.assertIn("2_one.md changes nothing", self.complaint(LAB.format(more="")))
        self.assertIn("has no section '## Check'",
                      self.complaint(LAB.format(more=CHANGE).replace("## Check", "## Chek")))
        self.assertIn("does not say minutes",
                      self.complaint(LAB.format(more=CHANGE).replace("minutes", "minuets")))
        self.assertIn("kind 'fun' is none of",
                      self.complaint(LAB.format(more=CHANGE).replace('"fill"', '"fun"')))
        self.assertIn("are no TOML", self.complaint(LAB.format(more="x =")))
        self.assertIn("does not begin with facts", self.complaint("# One\n"))

    def test_never_overwritten(self):
        lab, folder = self.lab(LAB.format(more=CHANGE)), self.root / "student"
        self.assertTrue(starter.write_starter(lab, folder))
        (folder / "sum.cuh").write_text("mine")
        self.assertFalse(starter.write_starter(lab, folder))
        self.assertEqual((folder / "sum.cuh").read_text(), "mine")


class AllLabs(unittest.TestCase):
    def test_links_lead_somewhere_from_a_students_folder(self):
        for lab in starter.all_labs():
            for link in re.findall(r"\]\(((?!https?:)[^)#]+)", starter.question(lab)):
                path = ROOT / "student" / lab.id / link
                if "/" in link:  # [](r, c) is C++
                    self.assertTrue(pathlib.Path(os.path.normpath(path)).exists(), f"{lab.id}: {link}")

    def test_every_hole_of_a_kernel_belongs_to_a_lab(self):
        used = {(lab.chapter, lab.file, change["region"]) for lab in starter.all_labs()
                for change in lab.facts.get("change", []) if "region" in change}
        there = {(path.parent.name, path.name, name) for path in ROOT.glob("[0-9][0-9]_*/*.cuh")
                 for name in re.findall(r"// \[hole (\w+)\]", path.read_text())}
        self.assertEqual(used, there)

    def test_their_ids_are_their_own(self):
        ids = [lab.id for lab in starter.all_labs()]
        self.assertEqual(len(ids), len(set(ids)))

    def test_a_seed_asks_the_same_each_time_and_seeds_differ(self):
        lab = starter.find_lab("05.4")
        first = variants.Variant(lab, 5)
        self.assertEqual(first.header, variants.Variant(lab, 5).header)
        self.assertEqual(first.rules, variants.Variant(lab, 5).rules)
        self.assertGreater(len({variants.Variant(lab, seed).header for seed in range(40)}), 20)

    def test_every_chapter_has_a_variant_and_every_variant_a_choice(self):
        graded = [lab for lab in starter.all_labs() if lab.kind == "variant"]
        self.assertEqual({lab.chapter for lab in graded}, {lab.chapter for lab in starter.all_labs()})
        for lab in graded:
            asked = {tuple(variants.Variant(lab, seed).features) for seed in range(300)}
            self.assertGreaterEqual(len(asked), 4, lab.id)

    def test_what_seeds_ask_for(self):
        said = subprocess.run([sys.executable, variants.__file__, "5", "6"], capture_output=True, text=True)
        rows = dict(line.split("  ", 1) for line in said.stdout.splitlines())
        asked = ["+".join(variants.Variant(starter.find_lab("01.4"), seed).features) for seed in (5, 6)]
        self.assertEqual(rows["01.4"].split(), asked)
        self.assertEqual(set(rows), {lab.id for lab in starter.all_labs() if lab.kind == "variant"})


class Verdicts(unittest.TestCase):
    """On lab 01.1, with these files in place of an attempt."""

    def verdict(self, text, **more):
        with tempfile.TemporaryDirectory() as folder:
            if text is not None:
                (pathlib.Path(folder) / "qk.cuh").write_text(text)
            return judge.judge("01.1", folder, **more)

    def failed(self, text, **more):
        verdict = self.verdict(text, **more)
        self.assertFalse(verdict["passed"])
        return verdict["checks"][0]["name"], verdict["checks"][0]["message"]

    def edited(self, old, new):
        source = starter.chapter_file(starter.find_lab("01.1"))
        self.assertIn(old, source)
        return source.replace(old, new)

    LINE = ("  S[(size_t(bh) * shape.Nq + i) * shape.Nkv + j] = shape.scale * dot(q, k, shape.D);\n}\n\n"
            "// Rung 3.")
    END = "}\n\n// Rung 3."

    def test_no_file_or_none_to_speak_of(self):
        self.assertEqual(self.failed(None), ("file", "There is no file qk.cuh in the folder; there is: nothing."))
        self.assertEqual(self.failed(""), ("file", "qk.cuh is empty."))

    def test_not_compiling(self):
        name, message = self.failed(self.edited(self.LINE, "  S[0] = nonsense;\n" + self.END))
        self.assertEqual(name, "compiles")
        self.assertRegex(message, r"qk\.cuh:\d+:\d+: error: .nonsense. was not declared")
        self.assertNotIn(str(ROOT), message)

    def test_the_usual_wrong_lines(self):
        for line, words in {
                "S[(size_t(bh) * shape.Nq + i) * shape.Nkv + j] = dot(q, k, shape.D);":
                    "equals the answer without the scale",
                "S[(size_t(bh) * shape.Nq + i) * shape.Nkv + j] = dot(q, k, shape.D) / sqrtf(shape.D);": "right",
                "S[(size_t(bh) * shape.Nq + i) * shape.Nkv + j] = shape.scale * dot(q, k, shape.D - 1);":
                    "without the last of the 16 products",
                "S[(size_t(bh) * shape.Nq + i) * shape.Nkv + i] = shape.scale * dot(q, k, shape.D);":
                    "248 of them were never written",
                "S[size_t(bh + 9) << 40] = shape.scale * dot(q, k, shape.D);":
                    "outside every buffer",
                "S[i * shape.Nkv + j] = shape.scale * dot(q, k, shape.D);": "right"}.items():
            message = self.failed(self.edited(self.LINE, f"  {line}\n{self.END}"))[1]
            self.assertIn(words, message)

    def test_a_loop_without_end(self):
        text = self.edited(self.LINE, "  for (volatile int x = 0; x < 1;) S[0] = 0;\n" + self.END)
        message = self.failed(text, limits=contained.Limits(seconds=2))[1]
        self.assertIn("did not end within 2 s", message)

    def test_a_crash_and_no_kernel_at_all(self):
        launcher = "inline void launch_coalesced(const Problem& p, const Arguments& a, Stream stream) {"
        message = self.failed(self.edited(launcher, launcher + " *(volatile int*)8 = 1;"))[1]
        self.assertIn("SIGSEGV", message)
        message = self.failed(self.edited(launcher, launcher + " if (p.seq > 0) return;"))[1]
        self.assertIn("was never written", message)


class Loop(unittest.TestCase):
    """lab.py as a student meets it, in a folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.student = pathlib.Path(folder.name) / "student"
        self.command = [sys.executable, str(ROOT / "common" / "lab" / "lab.py")]
        self.environment = {**os.environ, "AL_STUDENT": str(self.student)}

    def run_lab(self, *arguments):
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True,
                              env=self.environment, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def solve(self):
        (self.student / "01.1" / "qk.cuh").write_text(
            starter.chapter_file(starter.find_lab("01.1")))

    def test_from_the_list_to_passed(self):
        self.assertRegex(self.run_lab()[1], r"01\.1  One score .* not begun")
        code, said = self.run_lab("01.1")
        self.assertEqual(code, 0)
        self.assertIn("Edit ", said)
        self.assertIn("Write down, before you run", said)
        self.assertRegex(self.run_lab()[1], r"01\.1 .* begun")
        code, said = self.run_lab("01.1")
        self.assertEqual(code, 1)
        self.assertIn("was never written", said)
        self.assertIn("first things first", said)
        self.assertIn("Hint 1 of 3", self.run_lab("01.1", "--hint")[1])
        self.assertIn("Hint 2 of 3", self.run_lab("01.1", "--hint")[1])
        self.assertRegex(self.run_lab()[1], r"01\.1 .* tried, 0 %")
        self.solve()
        code, said = self.run_lab("01.1")
        self.assertEqual(code, 0)
        self.assertIn("Passed. Lab 01.1 is done.", said)
        self.assertIn("Begin or go on: make lab LAB=01.2", said)
        self.assertRegex(self.run_lab()[1], r"01\.1 .* passed")
        said = self.run_lab("01.1", "--reset")[1]
        self.assertIn("old", said)
        self.assertIn("YOUR LINE", (self.student / "01.1" / "qk.cuh").read_text())
        self.assertEqual(len(list((self.student / "old").glob("01.1_*/qk.cuh"))), 1)

    def test_an_unknown_lab(self):
        code, said = self.run_lab("99.9")
        self.assertEqual(code, 2)
        self.assertEqual(said, "There is no lab 99.9. 'make lab' lists those that there are.\n")
        self.assertIn("There is no lab 1.2. Did you mean 01.2?", self.run_lab("1.2")[1])
        for unknown in ("1", "01", "01.9"):
            self.assertIn("Those of chapter 01 are 01.1, 01.2, 01.3, 01.4.\n", self.run_lab(unknown)[1])

    def test_what_is_no_number(self):
        self.assertEqual(self.run_lab("01.4", "--seed", "abc"),
                         (2, "SEED is a whole number, as in SEED=7; 'abc' is none.\n"))
        self.assertIn("HINT is a whole number", self.run_lab("01.4", "--hint", "yes")[1])

    def test_hints(self):
        self.assertNotIn("Hint 2", self.run_lab("01.1", "--hint", "1")[1])
        said = self.run_lab("01.1", "--hint", "1")[1]
        self.assertLess(said.index("Hint 1 of 3"), said.index("Hint 2 of 3"))
        self.run_lab("01.1", "--reset")
        self.assertNotIn("Hint 3", self.run_lab("01.1", "--hint", "2")[1])
        self.assertIn("That was the last one", self.run_lab("01.1", "--hint", "9")[1])

    def test_what_comes_next(self):
        self.student.mkdir()
        self.assertIn(f"0 of {len(starter.all_labs())} passed. Begin or go on: make lab LAB=01.1", self.run_lab()[1])
        (self.student / "progress.json").write_text('{"01.1": {"passed": true}}')
        self.assertIn(f"1 of {len(starter.all_labs())} passed. Begin or go on: make lab LAB=01.2", self.run_lab()[1])

    def test_a_variant_keeps_its_seed(self):
        self.run_lab("01.4", "--seed", "7")
        first = (self.student / "01.4" / "variant.hpp").read_text()
        self.assertIn("seed 7", first)
        self.run_lab("01.4")
        self.assertIn("any number will do as SEED", (self.student / "01.4" / "README.md").read_text())
        self.assertEqual((self.student / "01.4" / "variant.hpp").read_text(), first)
        self.assertIn("begun with seed 7", self.run_lab("01.4", "--seed", "8")[1])
        self.assertNotIn("<!-- variant -->", (self.student / "01.4" / "README.md").read_text())

    def test_watching(self):
        self.run_lab("01.1")
        out = self.student / "out.txt"
        with out.open("w") as file:
            watch = subprocess.Popen([*self.command, "01.1", "--watch"], env=self.environment,
                                     stdout=file, stderr=subprocess.STDOUT)
        self.addCleanup(watch.kill)

        def wait_for(words, times):
            for _ in range(600):
                if out.read_text().count(words) >= times:
                    return
                time.sleep(0.1)
            self.fail(f"'{words}' did not come {times} times:\n{out.read_text()}")

        wait_for("Waiting for", 1)
        self.assertIn("Not yet", out.read_text())
        self.solve()
        wait_for("Waiting for", 2)
        self.assertIn("Passed.", out.read_text())
        watch.send_signal(signal.SIGINT)
        self.assertEqual(watch.wait(10), 0)
        self.assertNotIn("Traceback", out.read_text())


if __name__ == "__main__":
    unittest.main()
