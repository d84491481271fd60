"""Tests of docs/plots.py on made-up results: python3 common/tests/plots_test.py. What the pictures
say is checked where this Python has matplotlib; elsewhere those tests are skipped."""

import contextlib
import importlib.util
import io
import json
import pathlib
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))
plots = importlib.import_module("plots")
HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None

ERROR = {"max_abs": 1e-3, "row_rel_l2": 1e-3, "scaled": 1e-3, "budget": 5e-3, "lse_max_abs": 0,
         "ok": True}
LENGTHS = [128, 256, 512]


def problem(n, operation="attention", **more):
    return {"config": f"seq{n}", "dtype": "fp16", "causal": True, "operation": operation, "batch": 1,
            "heads": 16, "kv_heads": 16, "seq": n, "kv_seq": n, "head_dim": 64, "scale": 0.125, **more}


def row(stage, variant, index, ms, role="stage", **more):
    return {"stage": stage, "variant": variant, "idea": "", "role": role, "problem": index,
            "ms": {"median": ms, "p10": ms, "p90": ms}, "error": ERROR, **more}


def results(problems, rows, program="ladder"):
    return {"program": program, "device": {"name": "NVIDIA H200"}, "problems": problems, "rows": rows}


def sweep():
    """01 computes scores only; 03 takes 8 times as long as 05, and cudnn half of that."""
    problems, rows = [], []
    for n in LENGTHS:
        ms = n * n / 1e6
        problems += [problem(n, "scores"), problem(n)]
        scores, attention = len(problems) - 2, len(problems) - 1
        rows += [row("01_naive_qk", "register_tiles", scores, 3 * ms),
                 row("yardstick", "cublas_tensor", scores, ms, "yardstick"),
                 row("03_pv", "pipeline", attention, 8 * ms),
                 row("05_epilogue_norm_v2", "skip", attention, ms),
                 row("05_epilogue_norm_v2", "slower", attention, 2 * ms),
                 row("yardstick", "cudnn", attention, ms / 2, "yardstick")]
    rows[2] = {**rows[2], "ms": None, "refused": "no memory"}  # 03 at the shortest length
    return results(problems, rows)


def tiles():
    rows = [row("03_pv", f"keys16_{name}", 0, ms)
            for name, ms in (("32x64x64", 2.0), ("32x64x128", 1.5), ("64x64x128", 1.0),
                             ("64x128x256", 3.0))]
    rows.append({"stage": "03_pv", "variant": "128x128x256", "problem": 0, "refused": "registers"})
    return results([problem(4096, "pv", config="hdim64_seq4k")], rows, "03_pv")


def chapter(name, operation, config="hdim64_seq4k", causal=True, seq=4096, **rates):
    """A chapter's own results: so many TFLOP/s by each variant."""
    rows = [row(name, variant, 0, 275 / rate, tflops=rate, gbps=10 * rate,
                limit={"name": "read GB/s" if seq == 1 else "tensor TFLOP/s"})
            for variant, rate in rates.items() if variant != "cudnn"]
    if "cudnn" in rates:
        rows.append(row("yardstick", "cudnn", 0, 275 / rates["cudnn"], "yardstick",
                        tflops=rates["cudnn"]))
    made = results([problem(4096, operation, config=config, causal=causal, seq=seq)], rows, name)
    return {**made, "ceilings": {"ffma_tflops": 65.2, "tensor_tflops": 760}}


def write_chapters(root):
    """Three chapters in a repository: one that makes scores, one that decodes, one that does it all."""
    ideas = {"01_naive_qk": "reuse", "07_flash_decoding": "split the keys", "09_cute": "layouts"}
    made = {"01_naive_qk": chapter("01_naive_qk", "scores", naive=0.5, tiles=37),
            "07_flash_decoding": chapter("07_flash_decoding", "attention", "decode_64k", False, 1,
                                         split=4),
            "09_cute": chapter("09_cute", "attention", sm80=298, sm90=482, cudnn=396)}
    (root / "docs" / "results" / "h200").mkdir(parents=True, exist_ok=True)
    for name, idea in ideas.items():
        (root / name).mkdir()
        (root / name / "README.md").write_text(f"# {name}\n\n**The one new idea: {idea}.**\n",
                                               encoding="utf-8")
        (root / "docs" / "results" / "h200" / f"{name}.json").write_text(json.dumps(made[name]),
                                                                         encoding="utf-8")


class Rungs(unittest.TestCase):
    def test_every_kernel_of_every_chapter(self):
        with tempfile.TemporaryDirectory() as folder:
            write_chapters(pathlib.Path(folder))
            found, marks = plots.rungs(pathlib.Path(folder), "h200")
        self.assertEqual(found, [
            ("01  reuse", {"naive": 0.5, "tiles": 37}, "tiles", "Q Kᵀ only"),
            ("07  split the keys", {}, None, "one query: 40.0 GB/s of K and V"),
            ("09  layouts", {"sm80": 298, "sm90": 482}, "sm90", "")])
        self.assertEqual(marks, {"cuDNN": 396, "FP32 units": 65.2, "tensor cores": 760})


class Lines(unittest.TestCase):
    def test_one_line_a_stage_and_a_yardstick(self):
        (shape, lines), = plots.sweeps(sweep()).items()
        self.assertEqual(plots.shape_text(shape), "B1 H16 D64 fp16 causal")
        self.assertEqual(list(lines), ["01_naive_qk (Q Kᵀ only)", "03_pv", "05_epilogue_norm_v2",
                                       "cudnn"])
        self.assertEqual(lines["05_epilogue_norm_v2"], {n: n * n / 1e6 for n in LENGTHS})
        self.assertEqual(list(lines["03_pv"]), LENGTHS[1:])  # nothing where it was refused

    def test_speed_up_is_over_the_first_that_does_it_all(self):
        (_, lines), = plots.sweeps(sweep()).items()
        base, ratios = plots.speed_ups(lines)
        self.assertEqual(base, "03_pv")
        self.assertEqual(ratios, {"03_pv": {256: 1, 512: 1}, "05_epilogue_norm_v2": {256: 8, 512: 8},
                                  "cudnn": {256: 16, 512: 16}})

    def test_equal_tokens_are_one_picture(self):
        problems = [problem(n, batch=512 // n) for n in LENGTHS]
        made = results(problems, [row("09_cute", "flash", i, 1.0) for i in range(len(problems))])
        (shape, lines), = plots.sweeps(made).items()
        self.assertEqual(plots.shape_text(shape), "B512/N H16 D64 fp16 causal")
        self.assertEqual(lines["09_cute"], {n: 1.0 for n in LENGTHS})

    def test_masks_and_shapes_are_kept_apart(self):
        made = sweep()
        made["problems"].append(problem(128, causal=False))
        made["rows"].append(row("03_pv", "pipeline", len(made["problems"]) - 1, 1.0))
        self.assertEqual([plots.shape_text(shape) for shape in plots.sweeps(made)],
                         ["B1 H16 D64 fp16 causal", "B1 H16 D64 fp16 full"])

    def test_a_decode_is_drawn_over_its_keys(self):
        problems = [problem(1, kv_seq=n, causal=False) for n in (1024, 2048)]
        rows = [row("07_flash_decoding", "shared_kv", index, 1.0 + index) for index in (0, 1)]
        (shape, lines), = plots.sweeps(results(problems, rows)).items()
        self.assertEqual(plots.shape_text(shape), "B1 H16 Nq1 D64 fp16 full")
        self.assertEqual(lines, {"07_flash_decoding": {1024: 1.0, 2048: 2.0}})

    def test_wrong_results_are_not_drawn(self):
        made = sweep()
        for one in made["rows"]:
            if one["variant"] == "cudnn":
                one["error"] = {**ERROR, "ok": False}
        (_, lines), = plots.sweeps(made).items()
        self.assertNotIn("cudnn", lines)


@unittest.skipUnless(HAS_MATPLOTLIB, "this Python has no matplotlib; `make plots` installs it")
class Pictures(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = pathlib.Path(folder.name)
        made = cls.root / "docs" / "results" / "h200"
        made.mkdir(parents=True)
        (made / "ladder_seq_d64.json").write_text(json.dumps(sweep()), encoding="utf-8")
        (made / "03_pv_tiles.json").write_text(json.dumps(tiles()), encoding="utf-8")
        (made / "03_pv.json").write_text(json.dumps(sweep()), encoding="utf-8")  # no picture of it
        write_chapters(cls.root)
        cls.code = cls.draw()

    @classmethod
    def draw(cls):
        with contextlib.redirect_stdout(io.StringIO()):
            return plots.main(["--root", str(cls.root)])

    def picture(self, name):
        return xml.parse(self.root / "docs" / "plots" / name).getroot()

    def texts(self, name):
        return ["".join(node.itertext()).strip() for node in self.picture(name).iter()
                if node.tag.endswith("}text")]

    def points(self, name, line):
        """How many points the path of a line has."""
        group, = (node for node in self.picture(name).iter() if node.get("id") == f"line {line}")
        path = next(node for node in group.iter() if node.tag.endswith("}path"))
        return sum(path.get("d").count(letter) for letter in "ML")

    def test_which_pictures(self):
        self.assertEqual(self.code, 0)
        self.assertEqual(sorted(path.name for path in (self.root / "docs" / "plots").iterdir()),
                         ["h200_03_pv_tiles_hdim64_seq4k_fp16_causal.svg",
                          "h200_ladder.svg", "h200_latency_B1_H16_D64_fp16_causal.svg",
                          "h200_speedup_B1_H16_D64_fp16_causal.svg"])

    def test_latency_says_what_it_shows(self):
        name = "h200_latency_B1_H16_D64_fp16_causal.svg"
        texts = self.texts(name)
        for text in ("Attention forward, B1 H16 D64 fp16 causal, NVIDIA H200",
                     "sequence length N (queries = keys)", "time, median of the run (ms)",
                     "01_naive_qk (Q Kᵀ only)", "03_pv", "05_epilogue_norm_v2", "cudnn",
                     *map(str, LENGTHS)):
            self.assertIn(text, texts)
        self.assertEqual(self.points(name, "05_epilogue_norm_v2"), 3)
        self.assertEqual(self.points(name, "03_pv"), 2)

    def test_speed_up_names_what_it_is_over(self):
        name = "h200_speedup_B1_H16_D64_fp16_causal.svg"
        texts = self.texts(name)
        self.assertIn("Speed-up over 03_pv, B1 H16 D64 fp16 causal, NVIDIA H200", texts)
        self.assertIn("time of 03_pv / time (×)", texts)
        self.assertNotIn("01_naive_qk (Q Kᵀ only)", texts)
        self.assertEqual(self.points(name, "cudnn"), 2)

    def test_the_ladder_names_ideas_and_numbers(self):
        texts = self.texts("h200_ladder.svg")
        for text in ("01  reuse", "37.0  Q Kᵀ only", "one query: 40.0 GB/s of K and V", "09  layouts",
                     "482", "cuDNN 396", "tensor cores 760", "TFLOP/s, each dot a kernel"):
            self.assertIn(text, texts)

    def test_heat_map_names_tiles_times_and_threads(self):
        texts = self.texts("h200_03_pv_tiles_hdim64_seq4k_fp16_causal.svg")
        for text in ("03_pv: tiles on hdim64_seq4k fp16 causal, NVIDIA H200", "BLOCK_M", "BLOCK_N",
                     "1.50", "/128", "3.00", "refused", "fastest", "≥ 2 ×"):
            self.assertIn(text, texts)
        self.assertNotIn("2.00", texts)  # the same tile with other threads is faster

    def test_drawn_again_they_are_the_same(self):
        before = {path: path.read_bytes() for path in (self.root / "docs" / "plots").iterdir()}
        self.draw()
        self.assertEqual({path: path.read_bytes() for path in before}, before)


if __name__ == "__main__":
    unittest.main()
