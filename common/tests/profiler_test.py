"""Tests of docs/profiler.py on what ncu wrote on an H200, and with an ncu made of shell:
python3 common/tests/profiler_test.py"""

import contextlib
import importlib.util
import io
import pathlib
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORDED = ROOT / "common" / "tests" / "ncu_03_pv.csv"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


profiler = load(ROOT / "docs" / "profiler.py")


def run_main(*arguments):
    """(exit code, standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = profiler.main([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


class Recorded(unittest.TestCase):
    def setUp(self):
        self.kernels = profiler.parse(RECORDED.read_text(encoding="utf-8"))

    def test_kernels_in_their_order(self):
        self.assertEqual([profiler.short_name(kernel["name"]) for kernel in self.kernels],
                         ["qk_register_tiles<__half, 64, 128, 32, 8, 8>",
                          "softmax_one_pass<float, __half, 1, 2048, 64, 0>",
                          "pv_coalesced<__half, 8, 32>", "pv_shared_tiles<__half, 32>",
                          "pv_register_tiles<__half, 32, 64, 16, 4, 4>"])

    def test_a_line_says_what_ncu_counted(self):
        self.assertEqual(profiler.cells(self.kernels[0]),
                         ["qk_register_tiles<__half, 64, 128, 32, 8, 8>", "0.2511", "55.3", "0.1",
                          "2.1", "276", "1099", "0.6", "24", "128",
                          "not_selected 40, dispatch_stall 14, wait 9"])
        self.assertEqual(profiler.cells(self.kernels[1])[6], "4050")  # DRAM at its ceiling
        self.assertEqual(profiler.cells(self.kernels[2])[-1],
                         "long_scoreboard 90, wait 4, not_selected 2")

    def test_columns_line_up(self):
        lines = profiler.table(self.kernels).splitlines()
        self.assertEqual(len(lines), 6)
        at = lines[0].index("waits for")
        for line, kernel in zip(lines[1:], self.kernels):
            self.assertEqual(line[at - 2:at], "  ")
            self.assertTrue(line[at:].startswith(profiler.waits(kernel)))

    def test_what_a_gpu_does_not_count_is_a_dash(self):
        text = RECORDED.read_text(encoding="utf-8").replace(profiler.TENSOR, "another")
        text = text.replace(profiler.WAVEFRONTS, "yet_another")
        cells = profiler.cells(profiler.parse(text)[0])
        self.assertEqual((cells[3], cells[7]), ("–", "–"))

    def test_ncu_may_talk_before_the_table(self):
        text = "==PROF== Connected\n" + RECORDED.read_text(encoding="utf-8")
        self.assertEqual(len(profiler.parse(text)), 5)

    def test_other_units_are_not_taken_for_ns(self):
        text = RECORDED.read_text(encoding="utf-8").replace('"ns"', '"us"')
        with self.assertRaisesRegex(profiler.Failure, "print-units base"):
            profiler.parse(text)

    def test_csv_option(self):
        code, out, _ = run_main("--csv", RECORDED)
        self.assertEqual((code, out.count("\n")), (0, 6))


class Names(unittest.TestCase):
    def test_short_names(self):
        for name, short in (
                ("void al::pv::pv_coalesced<float, 8, 32>(const T1 *, T1 *)",
                 "pv_coalesced<float, 8, 32>"),
                ("void al::<unnamed>::read_pass(uint4 *, unsigned long)", "read_pass"),
                ("void cutlass::device_kernel<Kernel<(int)3, al::Tile>>(T1::Params)",
                 "device_kernel<Kernel<(int)3, al::Tile>>"),
                ("plain", "plain")):
            self.assertEqual(profiler.short_name(name), short)


class Running(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.report = self.folder / "new" / "stage.ncu-rep"

    def run_with(self, script):
        """main() with an ncu that does `script`; profiling is its last case."""
        ncu = self.folder / "ncu"
        ncu.write_text(f"""#!/bin/sh
case $1 in
--query-metrics) for metric in {' '.join(m.split('.')[0] for m in profiler.METRICS)}; do
  [ $metric = {profiler.stall_metric('gmma').split('.')[0]} ] || echo "$metric  Counter"; done;;
--import) cat '{RECORDED}';;
*) echo "$@" > {self.folder}/asked; {script};;
esac
""", encoding="utf-8")
        ncu.chmod(0o755)
        return run_main("--ncu", ncu, "--report", self.report, "--", "program", "--check")

    def test_report_is_kept_and_its_table_printed(self):
        code, out, err = self.run_with(f"echo > {self.report}")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("pv_shared_tiles<__half, 32>", out)
        self.assertIn(str(self.report), out)
        asked = (self.folder / "asked").read_text(encoding="utf-8")
        self.assertTrue(asked.endswith("program --check\n"))
        self.assertIn("launch__registers_per_thread", asked)
        self.assertNotIn("gmma", asked)  # this GPU does not have it

    def test_counters_not_permitted(self):
        code, out, err = self.run_with("echo '==ERROR== ERR_NVGPUCTRPERM - The user…'; exit 1")
        self.assertEqual((code, out), (77, ""))
        self.assertIn("NVreg_RestrictProfilingToAdminUsers=0", err)
        self.assertIn("SYS_ADMIN", err)

    def test_no_ncu(self):
        code, _, err = run_main("--ncu", self.folder / "none", "--report", self.report, "--", "x")
        self.assertEqual(code, 77)
        self.assertIn("There is no ncu on this machine", err)

    def test_what_the_program_says_is_passed_on(self):
        code, _, err = self.run_with("echo '03_pv: --head-dim 63 is not supported'; exit 9")
        self.assertEqual(code, 1)
        self.assertIn("--head-dim 63 is not supported", err)

    def test_an_old_report_is_not_taken_for_a_new_one(self):
        self.report.parent.mkdir()
        self.report.write_text("old", encoding="utf-8")
        code, _, err = self.run_with("echo '==WARNING== No kernels were profiled.'")
        self.assertEqual(code, 1)
        self.assertIn("ran no kernel", err)

    def test_wrong_usage(self):
        for arguments in ((), ("--report", self.report), ("--csv", RECORDED, "--report", "x", "y")):
            with self.assertRaises(SystemExit) as exit_code:
                run_main(*arguments)
            self.assertEqual(exit_code.exception.code, 2)
        self.assertEqual(run_main("--csv", self.folder / "none")[0], 2)


if __name__ == "__main__":
    unittest.main()
