"""Tests of docs/weave.py and docs/results/validate.py: python3 common/tests/weave_test.py"""

import contextlib
import copy
import importlib.util
import io
import json
import pathlib
import shutil
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


weave = load(ROOT / "docs" / "weave.py")
validate = load(ROOT / "docs" / "results" / "validate.py")


def row(variant, ms, stage="01_naive_qk", role="stage", problem=0, **more):
    made = {"stage": stage, "variant": variant, "idea": "an idea", "role": role, "problem": problem,
            "config": "hdim64_seq4k", "dtype": "fp32", "causal": False, "timing": "events",
            "ms": {"median": ms, "p10": 0.98 * ms, "p90": 1.04 * ms}, "samples": 30,
            "sm_clock_mhz": {"before": 1980, "after": 1965}, "tflops": 275 / ms, "gbps": 8724 / ms,
            "limit": {"name": "FFMA TFLOP/s", "value": 62.9, "ms": 4.37, "fraction": 4.37 / ms},
            "predicted_ms": 0.9 * ms, "predicted_by": "shared GB/s", "extra_bytes": 0,
            "error": {"max_abs": 1e-6, "row_rel_l2": 3.4e-7, "scaled": 2.5e-7, "budget": 1e-6,
                      "lse_max_abs": 0, "ok": True}}
    made.update(more)
    return made


def problem(**more):
    return {"config": "hdim64_seq4k", "dtype": "fp32", "causal": False, "operation": "scores",
            "batch": 4, "heads": 32, "kv_heads": 32, "seq": 4096, "kv_seq": 4096, "head_dim": 64,
            "scale": 0.125, **more}


def results(rows, problems=None):
    return {"schema": "attention-ladder results 1", "program": "01_naive_qk", "date": "2026-11-21",
            "commit": "0123abc", "backend": "cuda",
            "device": {"name": "NVIDIA H200", "sm": 90, "sms": 132, "shared_per_block": 232448,
                       "l2_bytes": 62914560, "driver": "580.159.03", "cuda": "13.0"},
            "ceilings": {"copy_gbps": 4280, "read_gbps": 4390, "shared_gbps": 33400,
                         "ffma_tflops": 62.9, "tensor_tflops": 760},
            "problems": problems or [problem()], "rows": rows}


LADDER_01 = results([
    row("naive", 612.5),
    row("tiles", 7.125, ratio_to_prior=13.79, prior="01_naive_qk/naive"),
    row("cublas_fp32", 7.67, role="yardstick"),
    {key: value for key, value in row("huge", 1).items()
     if key in ("stage", "variant", "idea", "role", "problem", "config", "dtype", "causal")}
    | {"refused": "it needs 300 KiB"},
])
CODE = """\
#pragma once
namespace al {
  // [snippet inner]
  int inner() {

    // [hole one]
    return 1;
    // [/hole]
  }
  // [/snippet]
// [snippet outer]
int outer();
// [/snippet]
}
"""


class Repository(unittest.TestCase):
    """A small repository in a temporary folder."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.write("01_naive_qk/qk.cuh", CODE)
        self.write("docs/results/h200/01_naive_qk.json", json.dumps(LADDER_01))

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run_weave(self, *arguments):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = weave.main([*arguments, "--root", str(self.root)])
        return code, said.getvalue()

    def woven(self, marker, page="README.md"):
        """What weaving puts under this marker; afterwards --check is content."""
        self.write(page, f"# Title\n\n<!-- weave: {marker} -->\n<!-- /weave -->\nafter\n")
        self.assertEqual(self.run_weave("--check")[0], 1)  # it was empty
        code, said = self.run_weave()
        self.assertEqual(code, 0, said)
        self.assertEqual(self.run_weave("--check"), (0, "1 woven piece(s), 0 wrong\n"))
        text = (self.root / page).read_text(encoding="utf-8")
        head, tail = f"# Title\n\n<!-- weave: {marker} -->\n\n", "\n\n<!-- /weave -->\nafter\n"
        self.assertTrue(text.startswith(head) and text.endswith(tail), text)
        return text[len(head):-len(tail)]

    def complaint(self, marker):
        """What both ways of running say about this marker; the page stays as it was."""
        page = f"<!-- weave: {marker} -->\nold\n<!-- /weave -->\n"
        self.write("README.md", page)
        for arguments in (["--check"], []):
            code, said = self.run_weave(*arguments)
            self.assertEqual(code, 1)
            self.assertIn("README.md:1: ", said)
            self.assertEqual((self.root / "README.md").read_text(encoding="utf-8"), page)
        return said


class Snippets(Repository):
    def test_cut_and_unindented_without_markers(self):
        self.assertEqual(self.woven("snippet file=01_naive_qk/qk.cuh name=inner"),
                         "```cuda\nint inner() {\n\n  return 1;\n}\n```")
        self.assertEqual(self.woven("snippet file=01_naive_qk/qk.cuh name=outer"),
                         "```cuda\nint outer();\n```")

    def test_a_change_of_the_source_is_found(self):
        self.woven("snippet file=01_naive_qk/qk.cuh name=inner")
        self.write("01_naive_qk/qk.cuh", CODE.replace("return 1", "return 2"))
        code, said = self.run_weave("--check")
        self.assertEqual(code, 1)
        self.assertIn("README.md:3: differs from its source: weave: snippet "
                      "file=01_naive_qk/qk.cuh name=inner", said)
        self.assertIn("python3 docs/weave.py", said)

    def test_an_edit_by_hand_is_found(self):
        self.woven("snippet file=01_naive_qk/qk.cuh name=outer")
        page = self.root / "README.md"
        page.write_text(page.read_text().replace("int outer", "int other"))
        self.assertEqual(self.run_weave("--check")[0], 1)

    def test_errors(self):
        self.assertIn("no snippet nosuch; there are: inner, outer",
                      self.complaint("snippet file=01_naive_qk/qk.cuh name=nosuch"))
        self.assertIn("nosuch.cuh cannot be read", self.complaint("snippet file=nosuch.cuh name=x"))
        self.assertIn("needs name", self.complaint("snippet file=01_naive_qk/qk.cuh"))
        for text, expected in (("// [snippet a]\n", "a has no [/snippet]"),
                               ("// [/snippet]\n", "ends nothing"),
                               ("// [snippet a]\n// [snippet b]\n", "inside a snippet"),
                               ("// [snippet a]\n// [/snippet]\n" * 2, "two snippets a")):
            self.write("bad.cuh", text)
            self.assertIn(expected, self.complaint("snippet file=bad.cuh name=a"))


class Diffs(Repository):
    DIFF = "diff from=01_naive_qk/qk.cuh to=02_softmax/softmax.cuh name=inner"

    def test_old_and_new_lines(self):
        self.write("02_softmax/softmax.cuh", CODE.replace("return 1", "return 2"))
        self.assertEqual(self.woven(self.DIFF),
                         "```diff\n@@\n int inner() {\n \n-  return 1;\n+  return 2;\n }\n```")

    def test_a_change_of_either_file_is_found(self):
        self.write("02_softmax/softmax.cuh", CODE.replace("return 1", "return 2"))
        self.woven(self.DIFF)
        self.write("01_naive_qk/qk.cuh", CODE.replace("return 1", "return 3"))
        self.assertEqual(self.run_weave("--check")[0], 1)

    def test_errors(self):
        self.write("02_softmax/softmax.cuh", CODE)
        self.assertIn("snippet inner is the same in 01_naive_qk/qk.cuh", self.complaint(self.DIFF))
        self.write("02_softmax/softmax.cuh", "")
        self.assertIn("softmax.cuh has no snippet inner", self.complaint(self.DIFF))
        self.assertIn("needs name", self.complaint("diff from=a to=b"))


class Tables(Repository):
    WHERE = "results=docs/results/h200/01_naive_qk.json config=hdim64_seq4k dtype=fp32 mask=full"

    def test_the_usual_columns(self):
        text = self.woven(f"table {self.WHERE}", page="01_naive_qk/README.md")
        lines = text.split("\n")
        self.assertEqual(lines[0], "| variant | ms | vs prior | TFLOP/s | % of ceiling "
                                   "| predicted ms | error / budget |")
        self.assertEqual(lines[1], "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        self.assertEqual(lines[2], "| `naive` | 612 | – | 0.449 | 1 % FFMA | 551 (shared) | 0.25 |")
        self.assertEqual(lines[3],
                         "| `tiles` | 7.12 | 13.8× `naive` | 38.6 | 61 % FFMA | 6.41 (shared) | 0.25 |")
        self.assertTrue(lines[4].startswith("| `cublas_fp32` (yardstick) | 7.67 | – | 35.9 |"))
        self.assertNotIn("| `huge`", text)  # said below the table, not in it
        self.assertIn("`huge` refused: it needs 300 KiB", text)
        self.assertIn("NVIDIA H200, driver 580.159.03, CUDA 13.0; 2026-11-21, commit 0123abc; "
                      "[docs/results/h200/01_naive_qk.json](../docs/results/h200/01_naive_qk.json)",
                      text)

    def test_columns_by_name(self):
        text = self.woven(f"table {self.WHERE} columns=variant,idea,range,extra,vs:cublas_fp32")
        self.assertIn("| variant | idea | p10–p90 ms | extra MB | vs `cublas_fp32` |", text)
        self.assertIn("| `tiles` | an idea | 6.98–7.41 | 0 | 1.08× |", text)

    def test_variants_by_name(self):
        text = self.woven(f"table {self.WHERE} columns=variant,vs:cublas_fp32 variants=tiles")
        self.assertIn("| variant | vs `cublas_fp32` |\n| --- | ---: |\n| `tiles` | 1.08× |\n\n*", text)
        self.assertIn("has no variant tile; there are: ",
                      self.complaint(f"table {self.WHERE} variants=tile"))

    def test_several_problems_get_a_column(self):
        both = results([row("naive", 5), row("naive", 3, problem=1, causal=True)],
                       [problem(), problem(causal=True)])
        self.write("docs/results/h200/01_naive_qk.json", json.dumps(both))
        text = self.woven(f"table {self.WHERE},causal columns=variant,ms")
        self.assertIn("| mask | variant | ms |", text)
        self.assertIn("| full | `naive` | 5.00 |\n| causal | `naive` | 3.00 |", text)

    def test_operations(self):
        several = results([row("tiles", 7, role="prior"),
                           row("pipeline", 9, "02_softmax", problem=1, ratio_to_prior=7 / 9,
                               prior="01_naive_qk/tiles"),
                           row("online", 2, "02_softmax", problem=2),
                           row("libraries", 3, "yardstick", "yardstick", problem=1)],
                          [problem(), problem(operation="probabilities"), problem(operation="softmax")])
        del several["rows"][2]["tflops"]  # a softmax has none
        self.write("docs/results/h200/02_softmax.json", json.dumps(several))
        where = self.WHERE.replace("01_naive_qk", "02_softmax") + " columns=variant,ms,prior,tflops"
        tiles, pipeline = "| `tiles` (the rung before) | 7.00 | – | 39.3 |", (
            "| `pipeline` | 9.00 | 0.778× `01_naive_qk/tiles` | 30.6 |")
        online, libraries = "| `online` | 2.00 | – | – |", "| `libraries` (yardstick) | 3.00 | – | 91.7 |"
        self.assertIn("\n".join([tiles, online, pipeline, libraries]), self.woven(f"table {where}"))
        self.assertEqual(self.woven(f"table {where} operation=softmax").split("\n")[2:4], [online, ""])
        text = self.woven(f"table {where} operation=probabilities,softmax")
        self.assertIn("| operation | variant | ms |", text)
        self.assertIn("\n".join(["| probabilities " + pipeline, "| probabilities " + libraries,
                                 "| softmax " + online]), text)
        self.assertIn("has no hdim64_seq4k fp32 full pv; there are: hdim64_seq4k fp32 full scores, "
                      "hdim64_seq4k fp32 full probabilities, hdim64_seq4k fp32 full softmax",
                      self.complaint(f"table {where} operation=pv"))

    def test_counts_of_the_emulator(self):
        counted = copy.deepcopy(LADDER_01)
        counted["backend"] = "emulator"
        counted["rows"] = [row("naive", 1)]
        counted["rows"][0] |= {"ms": None, "counts": {
            "global_load_bytes": 6_000_000, "global_store_bytes": 1_000_000, "global_requests": 100,
            "global_sectors": 1650, "shared_requests": 0, "shared_wavefronts": 0,
            "barriers": 12345, "shuffles": 0}}
        self.write("docs/results/h200/01_naive_qk.json", json.dumps(counted))
        text = self.woven(f"table {self.WHERE}")
        self.assertIn("| `naive` | 7.00 | 16.5 | – | 12,345 | 0.25 |", text)

    def test_a_wrong_result_says_so(self):
        wrong = copy.deepcopy(LADDER_01)
        wrong["rows"][0]["error"]["ok"] = False
        self.write("docs/results/h200/01_naive_qk.json", json.dumps(wrong))
        self.assertIn("| `naive` **wrong** |", self.woven(f"table {self.WHERE}"))

    def test_errors(self):
        self.assertIn("nosuch.json cannot be read",
                      self.complaint("table results=docs/nosuch.json config=a dtype=b mask=full"))
        self.assertIn("has no tiny fp32 full; there are: hdim64_seq4k fp32 full scores",
                      self.complaint(f"table {self.WHERE}".replace("hdim64_seq4k", "tiny")))
        self.assertIn("column speed is not known",
                      self.complaint(f"table {self.WHERE} columns=variant,speed"))
        self.assertIn("no variant nosuch", self.complaint(f"table {self.WHERE} columns=vs:nosuch"))
        self.assertIn("rows=5 is not an argument", self.complaint(f"table {self.WHERE} rows=5"))
        self.assertIn("chart is not known", self.complaint("chart x=1"))
        self.write("docs/bad.json", "{")
        self.assertIn("is not a results file",
                      self.complaint("table results=docs/bad.json config=a dtype=b mask=full"))


class Chapters(Repository):
    """A repository of three chapters, and what all of them together say."""

    def setUp(self):
        super().setUp()
        self.write("01_naive_qk/README.md", "# 01 · Scores\n\nWhy?\n\n**The one new idea: reuse.** So …\n")
        self.write("04_fused_v1/README.md", "# 04 · One kernel\n\n**Two ideas, in turn.** So …\n")
        self.write("07_decoding/README.md", "# 07 · Decoding\n\n**The one new idea: split.** So …\n")
        fused = results([row("old", 20, stage="01_naive_qk", role="prior"),
                         row("fused", 4, stage="04_fused_v1"), row("slow", 9, stage="04_fused_v1"),
                         row("fast_and_wrong", 1, stage="04_fused_v1",
                             error={"scaled": 1, "budget": 0.5, "ok": False, "why": "wrong"})],
                        [problem(operation="attention")])
        decoding = results([row("split", 0.5, "07_decoding", gbps=4146.0,
                                limit={"name": "read GB/s", "value": 4600, "ms": 0.45, "fraction": 0.9})],
                           [problem(operation="attention", config="decode_64k", seq=1)])
        self.write("docs/results/h200/01_naive_qk_tiles.json", json.dumps(LADDER_01))  # a sweep
        self.write("docs/results/h200/04_fused_v1.json", json.dumps(fused))
        self.write("docs/results/h200/07_decoding.json", json.dumps(decoding))

    def add_gpu(self, folder, name, ms):
        """Another GPU, on which only chapter 01 was measured."""
        there = results([row("tiles", ms)])
        there["device"] |= {"name": name, "sm": 75, "sms": 40}
        there["ceilings"] = {"copy_gbps": 250.5, "tensor_tflops": None}
        self.write(f"docs/results/{folder}/01_naive_qk.json", json.dumps(there))


class Ladder(Chapters):
    WHICH = "config=hdim64_seq4k,decode_64k dtype=fp16,fp32 mask=full"

    def test_one_row_for_each_chapter(self):
        lines = self.woven(f"ladder gpu=h200 {self.WHICH}").split("\n")
        self.assertEqual(lines[2:6], [
            "| [01 · Scores](01_naive_qk/README.md) | reuse | Q Kᵀ | `tiles` | 7.12 | 38.6 TFLOP/s | 61 % FFMA |",
            "| [04 · One kernel](04_fused_v1/README.md) | two ideas, in turn | attention | `fused` "
            "| 4.00 | 68.8 TFLOP/s | 109 % FFMA |",
            "| [07 · Decoding](07_decoding/README.md) | split | one query | `split` | 0.500 "
            "| 4146 GB/s | 90 % read |", ""])
        self.assertIn("; hdim64_seq4k, else decode_64k; fp16, else fp32; full; ", lines[6])

    def test_a_chapter_may_name_the_kernel_that_it_ships(self):
        with unittest.mock.patch.object(weave, "SHIPPED", {"04_fused_v1": "slow"}):
            text = self.woven(f"ladder gpu=h200 {self.WHICH}")
        self.assertIn("| `slow` | 9.00 |", text)
        self.assertIn("fastest kernel, of 04 the one that runs by default;", text)

    def test_of_several_operations_the_whole(self):
        several = results([row("online", 1, "04_fused_v1"), row("pipeline", 9, "04_fused_v1", problem=1)],
                          [problem(operation="softmax"), problem(operation="probabilities")])
        self.write("docs/results/h200/04_fused_v1.json", json.dumps(several))
        text = self.woven(f"ladder gpu=h200 {self.WHICH}")
        self.assertIn("| two ideas, in turn | softmax(Q Kᵀ) | `pipeline` | 9.00 |", text)

    def test_errors(self):
        self.assertIn("no file in docs/results/t4",
                      self.complaint("ladder gpu=t4 config=tiny dtype=fp16 mask=full"))
        self.write("01_naive_qk/README.md", "# 01 · Scores\n\nWhy?\n")
        self.assertIn("01_naive_qk/README.md has no '# title' or no '**The one new idea",
                      self.complaint(f"ladder gpu=h200 {self.WHICH}"))


class Gpus(Chapters):
    WHICH = "config=hdim64_seq4k,decode_64k dtype=fp16,fp32 mask=full"

    def test_one_gpu(self):
        lines = self.woven(f"gpus {self.WHICH}", page="docs/results/README.md").split("\n")
        self.assertEqual(lines[:2], ["|  | [NVIDIA H200](h200/) |", "| --- | ---: |"])
        self.assertIn("| copy, GB/s | 4280 |", lines)
        self.assertEqual(lines[-3:], ["| 01_naive_qk, hdim64_seq4k | 7.12 ms, 38.6 TFLOP/s<br>`tiles` |",
                                      "| 04_fused_v1, hdim64_seq4k | 4.00 ms, 68.8 TFLOP/s<br>`fused` |",
                                      "| 07_decoding, decode_64k | 0.500 ms, 4146 GB/s<br>`split` |"])

    def test_another_gpu_is_a_column(self):
        self.add_gpu("t4", "Tesla T4", 55)
        self.write("docs/results/h200/tuning/notes.json", "no results")  # a folder in a folder
        self.write("docs/results/empty/README.md", "")
        lines = self.woven(f"gpus {self.WHICH}", page="docs/results/README.md").split("\n")
        self.assertEqual(lines[0], "|  | [NVIDIA H200](h200/) | [Tesla T4](t4/) |")
        self.assertIn("| multiprocessors | 132 | 40 |", lines)
        self.assertIn("| tensor cores, fp16, TFLOP/s | 760 | – |", lines)
        self.assertIn("| 01_naive_qk, hdim64_seq4k | 7.12 ms, 38.6 TFLOP/s<br>`tiles` "
                      "| 55.0 ms, 5.00 TFLOP/s<br>`tiles` |", lines)
        self.assertIn("| 04_fused_v1, hdim64_seq4k | 4.00 ms, 68.8 TFLOP/s<br>`fused` | – |", lines)

    def test_new_results_make_the_page_stale(self):
        self.woven(f"gpus {self.WHICH}", page="docs/results/README.md")
        self.add_gpu("t4", "Tesla T4", 55)
        code, said = self.run_weave("--check")
        self.assertEqual(code, 1)
        self.assertIn("docs/results/README.md:3: differs from its source", said)

    def test_no_gpu(self):
        shutil.rmtree(self.root / "docs" / "results" / "h200")
        self.assertIn("no folder with a chapter's results", self.complaint(f"gpus {self.WHICH}"))


class Labs(Repository):
    def test_from_their_facts(self):
        self.write("01_naive_qk/lab/2_banks.md", '<!--\ntitle = "Banks"\nkind = "faster"\nminutes = 20\n-->\n')
        self.write("01_naive_qk/lab/1_score.md", '<!--\ntitle = "One"\nkind = "fill"\nminutes = 5\n-->\n')
        lines = self.woven("labs chapter=01_naive_qk").split("\n")
        self.assertEqual(lines[2:], ["| `01.1` | [One](01_naive_qk/lab/1_score.md) | fill in | 5 |",
                                     "| `01.2` | [Banks](01_naive_qk/lab/2_banks.md) | make it faster | 20 |"])

    def test_errors(self):
        self.assertIn("01_naive_qk/lab has no labs", self.complaint("labs chapter=01_naive_qk"))
        self.write("01_naive_qk/lab/1_score.md", "no facts")
        self.assertIn("1_score.md is not a lab", self.complaint("labs chapter=01_naive_qk"))
        self.assertIn("no column colour", self.complaint("labs columns=colour"))

    def test_those_of_all_chapters(self):
        self.assertIn("there are no labs", self.complaint("labs"))
        self.write("02_softmax/lab/2_banks.md", '<!--\ntitle = "Banks"\nkind = "faster"\nminutes = 105\n-->\n')
        self.write("01_naive_qk/lab/1_one.md", '<!--\ntitle = "One"\nkind = "fill"\nminutes = 15\n'
                   "teaches = 'a | b'\n-->\n")
        self.assertEqual(self.woven("labs columns=minutes,teaches").split("\n"), [
            "| lab |  | minutes | what it teaches |", "| --- | --- | ---: | --- |",
            "| `01.1` | [One](01_naive_qk/lab/1_one.md) | 15 | a \\| b |",
            "| `02.2` | [Banks](02_softmax/lab/2_banks.md) | 105 | – |", "", "*2 labs, 2 hours.*"])


class HeatMap(Repository):
    def test_the_fastest_of_each_tile(self):
        sweep = results([row("64x64x128", 9.5), row("64x64x256", 8), row("64x128x256", 7.25),
                         row("128x64x256", 31.5),
                         row("128x128x256", 1, error={"ok": False, "why": "wrong"})])
        self.write("docs/results/h200/tiles.json", json.dumps(sweep))
        text = self.woven("heat_map results=docs/results/h200/tiles.json config=hdim64_seq4k "
                          "dtype=fp32 mask=full")
        self.assertIn("| BLOCK_M \\ BLOCK_N | 64 | 128 |\n| ---: | ---: | ---: |\n"
                      "| 64 | 8.00 / 256 | **7.25 / 256** |\n| 128 | 31.5 / 256 | – |\n", text)

    def test_tiles_of_one_kernel(self):
        self.write("docs/results/h200/tiles.json",
                   json.dumps(results([row("a_64x64x128", 9.5), row("b_64x64x256", 8)])))
        where = "heat_map results=docs/results/h200/tiles.json config=hdim64_seq4k dtype=fp32 mask=full"
        self.assertIn("| 64 | **8.00 / 256** |\n", self.woven(where))
        self.assertIn("| 64 | **9.50 / 128** |\n", self.woven(where + " kernel=a_"))


class Pages(Repository):
    def test_fences_and_other_folders_are_left_alone(self):
        self.write("README.md", "```\n<!-- weave: nosuch -->\n```\n")
        self.write("build/x/README.md", "<!-- weave: nosuch -->\n")
        self.write(".venv/README.md", "<!-- weave: nosuch -->\n")
        self.assertEqual(self.run_weave("--check"), (0, "0 woven piece(s), 0 wrong\n"))

    def test_a_marker_of_two_lines(self):
        self.woven("snippet file=01_naive_qk/qk.cuh\n     name=outer")

    def test_a_marker_without_end(self):
        self.write("README.md", "<!-- weave: snippet file=01_naive_qk/qk.cuh name=outer -->\ntext\n")
        code, said = self.run_weave("--check")
        self.assertEqual(code, 1)
        self.assertIn("README.md:1: this marker has no <!-- /weave -->", said)


class Validate(unittest.TestCase):
    """The schema checker of the bare machine agrees with what it should say."""

    def faults(self, value):
        schema = json.loads((ROOT / "docs" / "results" / "schema.json").read_text())
        return list(validate.faults(value, schema, schema))

    def test_good(self):
        self.assertEqual(self.faults(LADDER_01), [])

    def test_bad(self):
        def broken(change):
            value = copy.deepcopy(LADDER_01)
            change(value)
            return " ".join(self.faults(value))

        self.assertIn("lacks backend", broken(lambda r: r.pop("backend")))
        self.assertIn("backend", broken(lambda r: r.update(backend="metal")))
        self.assertIn("extra", broken(lambda r: r.update(extra=1)))
        self.assertIn("rows[0]", broken(lambda r: r["rows"][0].update(ms=0)))
        self.assertIn("rows[0]", broken(lambda r: r["rows"][0].update(ms=None)))  # and no reason
        self.assertIn("samples", broken(lambda r: r["rows"][0].update(samples=True)))
        self.assertIn("samples", broken(lambda r: r["rows"][0].update(samples=29.5)))
        self.assertIn("ceilings", broken(lambda r: r["ceilings"].update(copy_gbps=None)))
        self.assertIn("why", broken(lambda r: r["rows"][0]["error"].update(ok=False)))

    def test_an_unknown_rule_is_not_passed_over(self):
        with self.assertRaises(ValueError):
            list(validate.faults(1, {"multipleOf": 2}, {}))

    def test_committed_results(self):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = validate.main([])
        self.assertEqual(code, 0, said.getvalue())


if __name__ == "__main__":
    unittest.main()
