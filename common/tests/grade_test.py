"""Tests of common/lab/grade.py: python3 common/tests/grade_test.py

With a judge that is made up: how submissions are found and unpacked, what is written, going on after an
interruption. With the real one: forty submissions, eight of them hostile."""

import contextlib
import csv
import io
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "common" / "lab"))
import grade  # noqa: E402

QK = grade.Lab("01.1", "One score", ("qk.cuh",), {"qk.cuh": '#include "common/launch.cuh"\n'})
FUSED = grade.Lab("04.1", "Rescale", ("fused.cuh",), {"fused.cuh": ""})
SCORES = grade.Lab("01.4", "Other scores", ("qk.cuh",), {"qk.cuh": ""}, variant=True)
LABS = {"01.1": QK, "01.4": SCORES, "04.1": FUSED}


class Judge:
    """Passes what says "right"; remembers whom it was asked about."""

    def __init__(self, fail_at=None, error=None):
        self.asked, self.fail_at, self.error = [], fail_at, error

    def __call__(self, lab, folder, seed=None):
        files = {path.name: path.read_text() for path in folder.iterdir()}
        self.asked.append((lab, files, seed))
        if len(self.asked) == self.fail_at:
            raise self.error
        passed = "right" in "".join(files.values())
        return {"lab": lab, "passed": passed, "score": 1.0 if passed else 0.25, "seconds": 0.5,
                "checks": [{"name": "B1 H1", "passed": passed, "message": "" if passed else "row 3 is wrong"}],
                "walls": {"files": "stands"}}


class Folder(unittest.TestCase):
    def setUp(self):
        self.place = pathlib.Path(tempfile.mkdtemp(prefix="grade_test-"))
        self.addCleanup(shutil.rmtree, self.place)
        self.given, self.out = self.place / "given", self.place / "out"
        self.given.mkdir()

    def write(self, name, text="right"):
        path = self.given / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


class Made(Folder):
    """With a judge that is made up."""

    def zip(self, name, files):
        path = self.given / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for entry, content in files.items():
                archive.writestr(entry, content)
        return path

    def grade(self, *options, judge=None, folder=None):
        """The exit code, and grades.json's rows by student and lab."""
        self.judge, self.said = judge or Judge(), io.StringIO()
        with contextlib.redirect_stdout(self.said), contextlib.redirect_stderr(self.said):
            code = grade.main([str(folder or self.given), "--out", str(self.out), "--jobs", "1", *options],
                              dict(LABS), self.judge)
        rows = {}
        if (self.out / "grades.json").exists():
            for row in json.loads((self.out / "grades.json").read_text())["rows"]:
                rows[row["student"], row["lab"]] = row
        return code, rows

    def test_a_folder_for_each_student(self):
        self.write("bob/04.1/fused.cuh", "wrong")
        self.write("alice/04.1/fused.cuh")
        self.write("alice/01.1/qk.cuh")
        self.write("carol/student/04.1/fused.cuh")
        self.write("carol/student/01.1/qk.cuh", "different")
        self.write("notes.txt")
        code, rows = self.grade()
        self.assertEqual(code, 0)
        self.assertEqual(list(rows), [("alice", "01.1"), ("alice", "04.1"), ("bob", "01.1"), ("bob", "04.1"),
                                      ("carol", "01.1"), ("carol", "04.1")])
        self.assertEqual([row["passed"] for row in rows.values()], [True, True, False, False, False, True])
        self.assertEqual(rows["bob", "01.1"]["reason"], "handed in: nothing was handed in for lab 01.1")
        self.assertEqual(rows["bob", "04.1"]["reason"], "B1 H1: row 3 is wrong")
        self.assertEqual(rows["carol", "04.1"]["same_as"], "alice")
        self.assertEqual(len(self.judge.asked), 4)  # carol's 04.1 is alice's

    def test_files_directly(self):
        self.write("alice/fused.cuh")
        self.write("bob/deep/down/fused.cuh", "wrong")
        code, rows = self.grade("--lab", "04.1", "--seed", "7")
        self.assertEqual([row["passed"] for row in rows.values()], [True, False])
        self.assertEqual({seed for _, _, seed in self.judge.asked}, {7})
        code, _ = self.grade()  # for which lab?
        self.assertEqual(code, 2)
        self.assertIn("LAB=04.1", self.said.getvalue())

    def test_what_learning_platforms_make(self):
        self.write("doejane_71_9042_fused-2.cuh")
        self.write("doejohn_LATE_72_9043_fused.cuh", "wrong")
        self.write("Jim Doe_73_assignsubmission_file_/fused.cuh")
        self.write("Jim Doe_73_assignsubmission_onlinetext/onlinetext.html")
        self.write("Ann_Mary_76_assignsubmission_file_fused.cuh")
        self.write("Default group_assignsubmission_file/fused.cuh")
        self.zip("poe_74_9044_homework.zip", {"homework/fused.cuh": "right", "__MACOSX/._fused.cuh": "x"})
        self.write("de_la_cruz_75_9045_fused.cuh")
        self.write("anon_K8x2q_9046_fused.cuh")
        self.write("LATE_anon_07171_9047_fused.cuh", "wrong")
        _, rows = self.grade("--lab", "04.1")
        self.assertEqual({name: (row["passed"], row["late"]) for (name, _), row in rows.items()},
                         {"doejane_71": (True, False), "doejohn_72": (False, True), "Jim Doe_73": (True, None),
                          "poe_74": (True, False), "de_la_cruz_75": (True, False), "anon_K8x2q": (True, False),
                          "anon_07171": (False, True), "Ann_Mary_76": (True, None), "Default group": (True, None)})
        with open(self.out / "grades.csv", newline="") as file:
            late = {row["student"]: row["late"] for row in csv.DictReader(file)}
        self.assertEqual((late["doejohn_72"], late["poe_74"], late["Jim Doe_73"]), ("yes", "no", ""))
        self.assertIn("doejohn_72 (late): 04.1 25%", self.said.getvalue())

    def test_one_zip_of_all(self):
        inner = self.zip("x.zip", {"04.1/fused.cuh": "right"}).read_bytes()
        outer = self.zip("all.zip", {"export/alice/04.1/fused.cuh": "wrong", "export/bob/mine.zip": inner,
                                     "export/submission_metadata.yml": ""})
        _, rows = self.grade(folder=outer)
        self.assertEqual({name: row["passed"] for (name, _), row in rows.items()}, {"alice": False, "bob": True})

    def test_archives_that_reach_outside(self):
        planted = self.place / "planted"
        self.zip("up.zip", {"../../planted": "x", "04.1/fused.cuh": "right"})
        self.zip("absolute.zip", {str(planted): "x"})
        self.zip("windows.zip", {"..\\..\\planted": "x"})
        link = zipfile.ZipInfo("04.1/fused.cuh")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(self.given / "link.zip", "w") as archive:
            archive.writestr(link, "/etc/passwd")
        (self.given / "torn.zip").write_bytes(b"PK\3\4 and no more")
        self.zip("bomb.zip", {"04.1/fused.cuh": b"0" * (80 << 20)})
        self.zip("many.zip", {str(n): "" for n in range(3000)})
        self.zip("good.zip", {"04.1/fused.cuh": "right"})
        _, rows = self.grade("--lab", "04.1")
        self.assertEqual({name: row["reason"].partition(": ")[2] for (name, _), row in rows.items()},
                         {"up": "up.zip holds '../../planted', which is outside of it",
                          "absolute": f"absolute.zip holds '{planted}', which is outside of it",
                          "windows": "windows.zip holds '..\\\\..\\\\planted', which is outside of it",
                          "link": "nothing was handed in for lab 04.1",
                          "torn": "torn.zip cannot be unpacked: File is not a zip file",
                          "bomb": "bomb.zip is too large when unpacked", "many": "many.zip holds too many files",
                          "good": ""})
        self.assertFalse(planted.exists())

    def test_files_that_are_no_homework(self):
        self.write("empty/04.1/fused.cuh", "  \n")
        self.write("wrong/04.1/essay.pdf")
        self.write("large/04.1/fused.cuh", "x" * (2 << 20))
        (self.given / "link/04.1").mkdir(parents=True)
        (self.given / "link/04.1/fused.cuh").symlink_to("/etc/passwd")
        os.mkfifo(self.write("pipe/04.1/other").with_name("fused.cuh"))
        _, rows = self.grade("--lab", "04.1")
        self.assertEqual({name: row["reason"].partition(": ")[2] for (name, _), row in rows.items()},
                         {"empty": "fused.cuh is empty",
                          "wrong": "fused.cuh is missing; handed in: essay.pdf",
                          "large": "fused.cuh is larger than 1 MiB",
                          "link": "nothing was handed in for lab 04.1",
                          "pipe": "fused.cuh is missing; handed in: other"})
        self.assertEqual(self.judge.asked, [])

    def test_only_the_files_the_lab_asks_for_are_taken(self):
        self.write("alice/01.1/qk.cuh")
        self.write("alice/01.1/common/launch.cuh", "ours instead of yours")
        self.grade()
        self.assertEqual(self.judge.asked, [("01.1", {"qk.cuh": "right"}, None)])

    def test_worth_a_look(self):
        self.write("alice/01.1/qk.cuh", '#include "common/launch.cuh"\n#include <unistd.h>\nright; fork(); asm("");')
        self.write("bob/01.1/qk.cuh", '#include "common/launch.cuh"\nright for (;;) {}')
        _, rows = self.grade()
        self.assertEqual(rows["alice", "01.1"]["look"],
                         ["starts programs", "assembly or system calls", "includes <unistd.h>"])
        self.assertTrue(rows["alice", "01.1"]["passed"])  # a person decides
        self.assertEqual(rows["bob", "01.1"]["look"], [])
        self.write("carol/01.1/qk.cuh", f"// [snippet x]\n{QK.originals['qk.cuh']}")
        self.assertEqual(self.grade()[1]["carol", "01.1"]["look"], ["the chapter's own file"])

    def test_one_submission_is_an_exit_code(self):
        self.write("04.1/fused.cuh")
        self.assertEqual(self.grade()[0], 0)
        self.write("01.1/qk.cuh", "wrong")
        self.assertEqual(self.grade()[0], 1)
        self.assertEqual(self.grade("--lab", "04.1")[0], 0)
        self.assertEqual(self.grade("--lab", "04.1", folder=self.given / "04.1")[0], 0)
        # As a student's own repository: student/04.1.
        self.write("repository/student/04.1/fused.cuh", "wrong")
        code, rows = self.grade("--single", folder=self.given / "repository")
        self.assertEqual((code, list(rows)), (1, [("repository", "04.1")]))
        # The chapters' own files, which lie there too, are nobody's work.
        self.write("repository/04_fused_v1/fused.cuh")
        self.write("repository/05_epilogue_norm_v2/fused.cuh")
        code, rows = self.grade("--single", "--lab", "04.1", folder=self.given / "repository")
        self.assertEqual((code, rows["repository", "04.1"]["score"]), (1, 0.25))
        shutil.rmtree(self.given / "repository" / "student")
        code, rows = self.grade("--single", "--lab", "04.1", folder=self.given / "repository")
        self.assertEqual((code, rows["repository", "04.1"]["score"]), (1, 0))
        self.assertIn("in no folder named 04.1", rows["repository", "04.1"]["reason"])

    def test_a_variant_without_a_seed(self):
        self.write("alice/01.4/qk.cuh")
        self.grade()
        self.assertIn("No SEED was given: 01.4 asked", self.said.getvalue())
        self.grade("--seed", "0")
        self.assertNotIn("No SEED", self.said.getvalue())

    def test_a_reason_without_the_report(self):
        report = "Two threads met.\nThe emulator says:\nrace in shared memory"
        self.assertEqual(grade.reason({"passed": False, "checks": [
            {"name": "B1 H1", "passed": False, "message": report}]}), "B1 H1: Two threads met.")

    def test_a_file_in_no_labs_folder(self):
        self.write("alice/04.1/fused.cuh")
        self.write("bob/fused.cuh")
        _, rows = self.grade()
        self.assertIn("fused.cuh is there, but in no folder named 04.1", rows["bob", "04.1"]["reason"])

    def test_usage(self):
        self.write("alice/04.1/fused.cuh")
        for options in (["--lab", "04.9"], []):
            code, _ = self.grade(*options, folder=self.given if options else self.place / "nowhere")
            self.assertEqual(code, 2, self.said.getvalue())

    def test_goes_on_where_it_stopped(self):
        for n in range(5):
            self.write(f"s{n}/04.1/fused.cuh", f"right {n}")
        code, _ = self.grade(judge=Judge(3, KeyboardInterrupt()))
        self.assertEqual(code, 130)
        code, rows = self.grade()
        self.assertEqual((code, len(rows)), (0, 5))
        self.assertLess(len(self.judge.asked), 5)
        self.grade()
        self.assertEqual(len(self.judge.asked), 0)
        self.grade("--seed", "3")
        self.assertEqual(len(self.judge.asked), 5)
        self.grade("--again")
        self.assertEqual(len(self.judge.asked), 5)

    def test_a_grader_that_fails_is_no_verdict(self):
        self.write("alice/04.1/fused.cuh")
        self.write("bob/04.1/fused.cuh", "right too")
        code, rows = self.grade(judge=Judge(1, RuntimeError("no judge")))
        self.assertEqual(code, 2)
        self.assertIn("no judge", rows["alice", "04.1"]["grader_failed"])
        code, rows = self.grade()
        self.assertEqual((code, len(self.judge.asked)), (0, 1))

    def test_what_is_written(self):
        self.write("=cmd()/04.1/fused.cuh", "wrong")
        self.write("alice/04.1/fused.cuh")
        self.write("alice/01.1/qk.cuh", "wrong ``` text")
        self.grade()
        with open(self.out / "grades.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["student"] for row in rows], ["'=cmd()", "'=cmd()", "alice", "alice"])
        self.assertEqual((rows[3]["lab"], rows[3]["passed"], rows[3]["score"]), ("04.1", "yes", "1.0"))
        scope = json.loads((self.out / "students/alice/results.json").read_text())
        self.assertEqual((scope["score"], len(scope["tests"])), (12.5, 2))
        self.assertEqual(scope["tests"][0]["output"], "FAILED  B1 H1: row 3 is wrong")
        self.assertEqual(set(scope["tests"][0]),
                         {"name", "score", "max_score", "status", "output", "visibility"})
        self.assertIn("## Lab 04.1, Rescale: passed (100%)",
                      (self.out / "students/alice/feedback.md").read_text())


@unittest.skipUnless((ROOT / "build/emulator/lab.json").exists(), "build lab_judge first")
class Verb(Folder):
    """make grade, as docs/instructor.md says it."""

    def make(self, *words):
        done = subprocess.run(["make", "-s", "-C", ROOT, "grade", *words], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def test_a_verdict_is_no_error_of_the_tool(self):
        self.write("01.1/qk.cuh", "this is no C++")
        code, said = self.make(f"DIR={self.given}", "SINGLE=1", "LAB=01.1", "SEED=0", f"OUT={self.out}")
        self.assertNotEqual(code, 0)
        self.assertIn("0 of 1 passed", said)
        self.assertNotIn("CMake Error", said)
        self.assertEqual(json.loads((self.out / "grades.json").read_text())["seed"], 0)

    def test_no_folder(self):
        code, said = self.make()
        self.assertNotEqual(code, 0)
        self.assertIn("Which submissions?", said)
        self.assertNotIn("CMake Error", said)


# --------------------------------------------------------------------------------------------------
# Forty submissions through the real judge

HOSTILE = {
    "endless_loop": "for (volatile int x = 0;; ++x) {}\n",
    "children": "",  # what is in front of these: EARLY
    "segfault": "reinterpret_cast<void (*)()>(1)();\n",
    "gigabyte": "",
    "reader": None,
    "wrong_file": None,
    "empty": None,
    "not_compiling": "this line is no C++\n",
}
EARLY = {  # runs before main, in front of a solution that is right
    "children": "#include <unistd.h>\n"
                "static const int children = [] {\n"
                "  for (int n = 0; n < 100; ++n) {\n"
                "    if (fork() == 0) for (;;) pause();\n"
                "  }\n"
                "  return 0;\n}();\n",
    "gigabyte": "#include <unistd.h>\n"
                "static const int gigabyte = [] {\n"
                "  static char text[1 << 20] = {'x'};\n"
                "  for (int n = 0; n < 1024; ++n) if (write(1, text, sizeof text) < 0) break;\n"
                "  return 0;\n}();\n",
}


class Forty(unittest.TestCase):
    """Each verdict is right, one bad submission does not touch the next, and nothing is left."""

    @unittest.skipUnless((ROOT / "build/emulator/lab.json").exists(), "build lab_judge first")
    def test_forty(self):
        import starter
        lab = starter.find_lab("01.1")
        begin, right = starter.starter(lab), starter.chapter_file(lab)
        line = next(line for line in begin.splitlines(True) if "YOUR LINE" in line)
        place = pathlib.Path(tempfile.mkdtemp(prefix="forty-"))
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        place.chmod(0o711)
        temporary = place / "tmp"
        temporary.mkdir()
        temporary.chmod(0o711)
        given, expected = place / "given", {}

        def hand_in(name, text, file="qk.cuh"):
            (given / name / "01.1").mkdir(parents=True)
            (given / name / "01.1" / file).write_text(text)

        # 32 fair ones, of four texts: right; right with other comments; the starter; without scale.
        fair = [(right, "passed"), (f"// mine\n{right}", "passed"), (begin, "was never written"),
                (right.replace("shape.scale * dot", "dot"), "without the scale")]
        self.assertNotEqual(fair[3][0], right)
        for n in range(32):
            text, reason = fair[n % 4]
            hand_in(f"fair_{n:02}", text)
            expected[f"fair_{n:02}"] = reason

        said = {"endless_loop": "did not end", "children": "", "segfault": "SIGSEGV", "gigabyte": "printed more",
                "reader": "ermission denied", "wrong_file": "missing; handed in: essay.pdf",
                "empty": "is empty", "not_compiling": "compiles"}
        for name, inside in HOSTILE.items():
            if name in EARLY:
                hand_in(name, EARLY[name] + right)
            elif inside is not None:
                hand_in(name, begin.replace(line, inside))
        hand_in("reader", f'#include "{given}/fair_00/01.1/qk.cuh"\n')
        hand_in("wrong_file", "%PDF", "essay.pdf")
        hand_in("empty", "")
        expected.update(said)

        began = time.monotonic()
        command = [sys.executable, str(ROOT / "common/lab/grade.py"), str(given), "--out", str(place / "out"),
                   "--jobs", "2"]
        done = subprocess.run(command, env={**os.environ, "TMPDIR": str(temporary)}, capture_output=True,
                              text=True)
        seconds = time.monotonic() - began
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        report = json.loads((place / "out/grades.json").read_text())
        rows = {row["student"]: row for row in report["rows"]}
        print(f"40 submissions in {seconds:.1f} s; walls that do not stand here: {report['walls'] or 'none'}")
        self.assertEqual(sorted(rows), sorted(expected))
        for name, reason in expected.items():
            if name == "reader" and "files" in report["walls"]:
                continue  # nothing here keeps it from reading; the report has said so
            self.assertEqual(rows[name]["passed"], reason == "passed", rows[name])
            self.assertIn(reason, rows[name]["reason"], name)
        self.assertIn("starts programs", rows["children"]["look"])

        self.assertEqual(list(temporary.iterdir()), [])
        commands = []
        for process in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                commands.append(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        self.assertEqual([command for command in commands if str(temporary) in command], [])

        # Again: every verdict is there already.
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0)
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(json.loads((place / "out/grades.json").read_text()), report)


if __name__ == "__main__":
    unittest.main()
