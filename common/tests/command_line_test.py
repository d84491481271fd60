#!/usr/bin/env python3
"""A stage's program as a shell sees it.

Bad input is one sentence on stderr, nothing on stdout, exit code 2, and nothing written.
ctest runs this with the program's path.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = sys.argv.pop(1)


def npy(path, shape, descr="<f4", element_bytes=4, missing_bytes=0, fortran=False):
    """Writes zeros, `missing_bytes` too few of them."""
    header = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    count = element_bytes
    for size in shape:
        count *= size
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
                     + bytes(count - missing_bytes))


class CommandLine(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_program(self, *arguments):
        return subprocess.run([PROGRAM, *arguments], cwd=self.folder, capture_output=True, text=True)

    def refused(self, sentence, *arguments):
        before = sorted(self.folder.iterdir())
        run = self.run_program(*arguments)
        self.assertEqual(run.returncode, 2, run)
        self.assertEqual(run.stdout, "")
        self.assertRegex(run.stderr, r"^[^\n]+\n$")
        self.assertIn(sentence, run.stderr)
        self.assertEqual(sorted(self.folder.iterdir()), before)

    def test_right(self):
        self.assertEqual(self.run_program("--seq", "16", "--check").returncode, 0)

    def test_options(self):
        for sentence, line in [
            ("--seq takes a whole number", "--seq 0"),
            ("--head-dim 63", "--head-dim 63"),
            ("--heads 6 cannot share --kv-heads 4", "--heads 6 --kv-heads 4"),
            ("int3", "--dtype int3"),
            ("--no-such-option", "--no-such-option"),
            ("There are: uncoalesced,", "--variant nothing"),
            ("There are: all, tiny,", "--config nothing"),
            ("finite", "--scale nan"),
            ("--iters takes a whole number", "--iters -1"),
            ("--trace takes the number of a block and of a thread", "--trace 0"),
            ("--trace takes the number of a block and of a thread", "--trace 0,x"),
            ("give --trace BLOCK,THREAD too", "--trace-json t.json"),
            ("memory", "--batch 64 --heads 64 --seq 262144 --dtype fp32"),
            ("more than an index holds", "--batch 2000000000 --heads 2000000000"),
        ]:
            with self.subTest(line):
                self.refused(sentence, *line.split(), "--json", "out.json", "--csv", "out.csv")

    def test_files_that_cannot_be_written(self):
        self.refused("there is no folder", "--json", "nowhere/out.json")
        self.refused("there is no folder", "--csv", "nowhere/out.csv")

    def test_trace(self):
        run = self.run_program("--seq", "16", "--check", "--trace", "0,5")
        if run.returncode == 2:  # a GPU, or ASan in the place of the hooks
            self.assertIn("which only the emulator does", run.stderr)
            return
        trace = json.loads((self.folder / "trace.json").read_text())
        self.assertEqual(trace["schema"], "attention-ladder trace 1")
        for kernel in trace["kernels"]:
            self.assertEqual((kernel["block"], kernel["lane"]), ([0, 0, 0], 5))
            self.assertTrue(kernel["phases"][-1]["steps"])
        self.assertEqual(json.loads(self.run_program("--seq", "16", "--trace", "0,5", "--trace-json", "-").stdout),
                         trace)
        (self.folder / "trace.json").unlink()
        self.refused("no kernel that ran has this block", "--seq", "16", "--trace", "1000000,0")

    def test_tensors(self):
        q, k = self.folder / "q.npy", self.folder / "k.npy"
        load = ("--load", ".", "--check", "--json", "out.json")
        npy(k, (1, 2, 4, 16))
        self.refused("q.npy", *load)  # there is none
        for tensor in [
            dict(shape=(2, 4, 16)),
            dict(shape=(1, 2, 4, 16), descr="<f8", element_bytes=8),
            dict(shape=(1, 2, 4, 16), descr=">f4"),
            dict(shape=(1, 2, 4, 16), fortran=True),
            dict(shape=(1, 2, 4, 16), missing_bytes=4),
            dict(shape=(1, 2, 4, 16), missing_bytes=-4),
        ]:
            with self.subTest(tensor):
                npy(q, **tensor)
                self.refused("q.npy", *load)
        npy(q, (1, 2, 4, 32))
        self.refused("k.npy", *load)
        npy(q, (1, 2, 4, 16))
        self.refused("--seq", "--seq", "5", *load)
        self.assertEqual(self.run_program(*load).returncode, 0)


if __name__ == "__main__":
    device = subprocess.run([PROGRAM, "--seq", "16", "--check"], capture_output=True, text=True)
    if device.returncode == 77:
        print("SKIP:", device.stderr, end="")
        sys.exit(77)
    unittest.main()
