"""Tests of common/yardsticks/pytorch.py and in_turn.py, as far as they need no torch:
python3 common/tests/pytorch_yardstick_test.py"""

import contextlib
import copy
import importlib.util
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pytorch = load(ROOT / "common" / "yardsticks" / "pytorch.py")

CEILINGS = {"copy_gbps": 4000.0, "read_gbps": 4500.0, "shared_gbps": 33000.0, "ffma_tflops": 60.0,
            "tensor_tflops": 700.0}


def problem(**more):
    return {"config": "hdim64_seq4k", "dtype": "fp16", "causal": True, "operation": "attention",
            "batch": 4, "heads": 32, "kv_heads": 32, "seq": 4096, "kv_seq": 4096, "head_dim": 64,
            "scale": 0.125, **more}


def results():
    """Two problems, pv before attention, and one row of each."""
    problems = [problem(operation="pv"), problem()]
    error = pytorch.error_report(1e-3, 1e-3, 1e-3, 5e-3)
    rows = [{**pytorch.row_start("pytorch_math", index, problems[index]), "stage": "03_pv",
             "variant": variant, "idea": "", "role": "stage",
             **pytorch.measurement("events", [1.0, 2.0, 3.0], 1980, None), "extra_bytes": 0,
             "error": error}
            for index, variant in enumerate(("register_tiles", "pipeline"))]
    return {"schema": "attention-ladder results 1", "program": "03_pv", "date": "2026-11-21",
            "commit": "0123abc", "backend": "cuda",
            "device": {"name": "NVIDIA H200", "sm": 90, "sms": 132, "shared_per_block": 232448,
                       "l2_bytes": 62914560, "driver": "580.159.03", "cuda": "13.0"},
            "ceilings": CEILINGS, "problems": problems, "rows": rows}


def timed(index=1, ms=10.0):
    return pytorch.timed_row("pytorch_math", index, problem(), CEILINGS,
                             pytorch.measurement("events", [ms] * 30, 1980, 1965), None, 1 << 30,
                             pytorch.error_report(1e-3, 1e-3, 1e-3, 5e-3))


class Work(unittest.TestCase):
    def test_flops_are_the_conventions(self):
        full = 4 * 4 * 32 * 4096 * 4096 * 64
        self.assertEqual(pytorch.minimum_work(problem(causal=False))[0], full)
        self.assertEqual(pytorch.minimum_work(problem())[0], full / 2)
        decode = pytorch.minimum_work(problem(seq=1))[0]
        self.assertEqual(decode, 4 * 4 * 32 * (4096 - 0.5) * 64)
        self.assertEqual(pytorch.minimum_work(problem(seq=8192))[0], full / 2)

    def test_bytes_are_of_q_k_v_and_o(self):
        q, kv = 4 * 32 * 4096 * 64 * 2, 4 * 8 * 1000 * 64 * 2
        self.assertEqual(pytorch.minimum_work(problem(kv_heads=8, kv_seq=1000))[1], 2 * q + 2 * kv)

    def test_the_limit_that_binds(self):
        self.assertEqual(pytorch.binding_limit(problem(), CEILINGS)["name"], "tensor TFLOP/s")
        self.assertEqual(pytorch.binding_limit(problem(dtype="fp32"), CEILINGS)["name"],
                         "FFMA TFLOP/s")
        self.assertEqual(pytorch.binding_limit(problem(seq=1), CEILINGS)["name"], "read GB/s")
        self.assertIsNone(pytorch.binding_limit(problem(), {**CEILINGS, "tensor_tflops": None}))


class Statistics(unittest.TestCase):
    def test_median_and_percentiles(self):
        made = pytorch.measurement("graph", [float(x) for x in range(101)][::-1], None, 1980)
        self.assertEqual(made["ms"], {"median": 50.0, "p10": 10.0, "p90": 90.0})
        self.assertEqual(made["samples"], 101)
        self.assertEqual(pytorch.quantile([1.0, 2.0], 0.5), 1.5)

    def test_six_digits_and_no_nan(self):
        self.assertEqual(pytorch.digits(1.23456789), 1.23457)
        self.assertIsNone(pytorch.digits(float("nan")))


class Errors(unittest.TestCase):
    def test_over_budget_is_wrong_and_says_so(self):
        self.assertTrue(pytorch.error_report(1, 1, 0.004, 0.005)["ok"])
        wrong = pytorch.error_report(1, 1, 0.006, 0.005)
        self.assertFalse(wrong["ok"])
        self.assertIn("0.006", wrong["why"])

    def test_nan_is_wrong(self):
        wrong = pytorch.error_report(0, 0, float("nan"), 0.005)
        self.assertFalse(wrong["ok"])
        self.assertIsNone(wrong["scaled"])

    def test_sampled_rows_have_the_edges(self):
        rows = pytorch.sampled_rows(problem(seq=130, heads=3, kv_heads=3, batch=2))
        for row in ((0, 0, 0), (0, 0, 63), (0, 0, 64), (0, 0, 127), (0, 0, 128), (1, 2, 129)):
            self.assertIn(row, rows)
        self.assertTrue(all(b < 2 and h < 3 and q < 130 for b, h, q in rows))
        self.assertEqual(len({b for b, _, _ in pytorch.sampled_rows(problem(seq=1))}), 4)


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name) / "results.json"
        self.path.write_text(json.dumps(results()), encoding="utf-8")

    def run_main(self, *arguments):
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = pytorch.main(["--into", str(self.path), *arguments])
        return code, said.getvalue()

    def test_rows_fit_the_schema(self):
        made = results()
        graph = pytorch.measurement("graph", [0.1] * 30, None, None)
        short = pytorch.timed_row("pytorch_flash", 1, problem(), CEILINGS, graph,
                                  pytorch.measurement("events", [0.11] * 30, 1980, 1980), 0,
                                  pytorch.error_report(1, 1, 1, 0.005))
        refused = pytorch.refused_row("pytorch_cudnn", 1, problem(), "No available kernel.\nSorry")
        pytorch.add_rows(made, [timed(), short, refused])
        self.assertEqual(pytorch.schema_faults(made), [])
        pytorch.write_results(made, self.path)
        self.assertEqual(json.loads(self.path.read_text(encoding="utf-8")), made)

    def test_numbers_of_a_row(self):
        row = timed(ms=10.0)
        flops = 2 * 4 * 32 * 4096 * 4096 * 64
        self.assertAlmostEqual(row["tflops"], flops / 10 / 1e9, places=3)
        self.assertAlmostEqual(row["limit"]["fraction"], row["tflops"] / 700, places=5)

    def test_a_row_stands_behind_its_problem_and_replaces_its_elder(self):
        made = results()
        pytorch.add_rows(made, [timed(ms=10.0)])
        pytorch.add_rows(made, [timed(ms=20.0)])
        self.assertEqual([row["variant"] for row in made["rows"]],
                         ["register_tiles", "pipeline", "pytorch_math"])
        self.assertEqual(made["rows"][-1]["ms"]["median"], 20.0)
        made["rows"].append(copy.deepcopy(made["rows"][0]))  # another problem's rows follow
        made["rows"][-1]["variant"] = "coalesced"
        pytorch.add_rows(made, [timed(ms=30.0)])
        self.assertEqual([row["variant"] for row in made["rows"]],
                         ["register_tiles", "pipeline", "pytorch_math", "coalesced"])

    def test_a_broken_row_leaves_the_file_alone(self):
        before, made = self.path.read_bytes(), results()
        pytorch.add_rows(made, [{**timed(), "ms": {"median": -1, "p10": 1, "p90": 1}}])
        with self.assertRaises(pytorch.Failure):
            pytorch.write_results(made, self.path)
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(list(self.path.parent.iterdir()), [self.path])

    def test_which_problems(self):
        made = results()
        self.assertEqual(pytorch.chosen_problems(made, None, None, None), [1])
        self.assertEqual(pytorch.chosen_problems(made, ["hdim64_seq4k"], ["fp16"], True), [1])
        with self.assertRaisesRegex(pytorch.Failure, "hdim64_seq4k fp16 causal"):
            pytorch.chosen_problems(made, None, None, False)

    def test_bad_usage_is_a_sentence_and_2(self):
        self.assertEqual(self.run_main("--dtype", "bf16")[0], 2)
        self.path.write_text('{"schema": 1}', encoding="utf-8")
        code, said = self.run_main()
        self.assertEqual((code, said.count("\n")), (2, 1))
        self.path.write_text("no JSON", encoding="utf-8")
        self.assertEqual(self.run_main()[0], 2)
        self.path.unlink()
        self.assertEqual(self.run_main()[0], 2)

    def test_without_torch_it_is_77_and_the_file_stays(self):
        before = self.path.read_bytes()
        hidden = sys.modules.get("torch")
        sys.modules["torch"] = None  # an import of it fails
        try:
            code, said = self.run_main()
        finally:
            if hidden is None:
                del sys.modules["torch"]
            else:
                sys.modules["torch"] = hidden
        self.assertEqual(code, 77)
        self.assertIn("skipped", said)
        self.assertEqual(self.path.read_bytes(), before)


class InTurn(unittest.TestCase):
    """in_turn.py, as a user starts it."""

    def run_it(self, *arguments):
        script = "import sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; " \
                 "import runpy; sys.path.insert(0, sys.argv[0].rsplit('/', 1)[0]); " \
                 "runpy.run_path(sys.argv[0], run_name='__main__')"
        path = ROOT / "common" / "yardsticks" / "in_turn.py"
        done = subprocess.run([sys.executable, "-c", script, str(path), *arguments],
                              capture_output=True, text=True)
        return done.returncode, done.stderr

    def test_a_shape_that_is_not_known(self):
        code, said = self.run_it("--config", "tiny")
        self.assertEqual(code, 2)
        self.assertIn("hdim64_seq4k, hdim128_seq8k, hdim256_seq16k", said)

    def test_without_torch_it_is_77(self):
        code, said = self.run_it()
        self.assertEqual(code, 77)
        self.assertEqual(said.count("\n"), 1)


if __name__ == "__main__":
    unittest.main()
