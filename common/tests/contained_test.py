"""Tests of common/lab/contained.py: python3 common/tests/contained_test.py

Each is made with all walls that this machine has and again with some of them left away, as on a
machine that has them not: what holds everywhere must hold there too, and what does not must be said."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "common" / "lab"))
import contained  # noqa: E402
from contained import MIB, Limits  # noqa: E402

EVERYTHING = ["landlock", "namespaces", "user", "seccomp"]


def living(words):
    """Processes whose command line holds this."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                line = pathlib.Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ")
                state = pathlib.Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if words.encode() in line and state != "Z":
                found.append(int(name))
    return found


class Contained(unittest.TestCase):
    without = []

    @classmethod
    def setUpClass(cls):
        cls.place = pathlib.Path(tempfile.mkdtemp(prefix="contained_test-"))
        cls.place.chmod(0o755)
        cls.hostile = cls.place / "hostile"
        cls.temporary = cls.place / "tmp"
        cls.temporary.mkdir()
        tempfile.tempdir = str(cls.temporary)  # where contained.py makes its folders
        subprocess.run(["gcc", "-w", "-O1", ROOT / "common/tests/hostile.c", "-o", cls.hostile], check=True)

    @classmethod
    def tearDownClass(cls):
        tempfile.tempdir = None
        shutil.rmtree(cls.place)

    def setUp(self):
        self.work = pathlib.Path(tempfile.mkdtemp(dir=self.place))
        self.work.chmod(0o755)

    def tearDown(self):
        self.assertEqual(living(str(self.hostile)), [], "processes were left")
        self.assertEqual(list(self.temporary.iterdir()), [], "temporary folders were left")

    def run_hostile(self, *words, limits=Limits(seconds=5), **more):
        return contained.run([self.hostile, *words], self.work, limits, writable=[self.work],
                             without=self.without, **more)

    def walled(self, wall, outcome):
        """Whether a wall stood; and if not, that it was said why."""
        state = outcome.walls[wall]
        if state != "stands":
            self.assertGreater(len(state), 10)
        return state == "stands"

    def test_a_good_program(self):
        outcome = contained.run(["sh", "-c", "cat > copy; cat copy; echo bad >&2; exit 4"], self.work,
                                writable=[self.work], stdin=b"hello", without=self.without)
        self.assertEqual((outcome.code, outcome.stdout, outcome.stderr), (4, "hello", "bad\n"))
        self.assertIsNone(outcome.killed_by)
        self.assertEqual((self.work / "copy").read_text(), "hello")
        self.assertEqual((self.work / "copy").stat().st_uid, os.getuid())

    def test_a_compiler(self):
        (self.work / "a.cpp").write_text("#include <vector>\nint main() { return std::vector{7}[0]; }\n")
        outcome = contained.run(["g++", "a.cpp", "-o", "a"], self.work, writable=[self.work],
                                without=self.without)
        self.assertTrue(outcome.ok, outcome)
        self.assertEqual(contained.run(["./a"], self.work, without=self.without).code, 7)

    def test_endless_loop(self):
        began = time.monotonic()
        outcome = self.run_hostile("loop", limits=Limits(seconds=0.5))
        self.assertEqual((outcome.code, outcome.killed_by), (None, "time"))
        self.assertLess(time.monotonic() - began, 5)

    def test_burst_of_children(self):
        outcome = self.run_hostile("burst", limits=Limits(seconds=5, processes=20))
        if outcome.killed_by:  # where the kernel does not count root's
            self.assertEqual(outcome.killed_by, "processes")
        else:
            self.assertLess(int(outcome.stdout), 20)
            self.assertGreater(outcome.left_behind, 5)

    def test_detached_child(self):
        outcome = self.run_hostile("detach", "4711.5")
        self.assertEqual((outcome.code, outcome.left_behind), (0, 1))
        self.assertEqual(living("sleep 4711.5"), [])

    def test_crash(self):
        outcome = self.run_hostile("crash")
        self.assertEqual((outcome.code, outcome.killed_by), (-signal.SIGSEGV, None))
        self.assertIn("SIGSEGV", outcome.why)

    def test_flood_of_output(self):
        outcome = self.run_hostile("flood", limits=Limits(seconds=20, output=4 * MIB, kept=1000))
        self.assertEqual(outcome.killed_by, "output")
        self.assertLess(len(outcome.stdout) + len(outcome.stderr), 2200)
        self.assertIn("bytes more", outcome.stdout)

    def test_memory(self):
        outcome = self.run_hostile("memory", limits=Limits(seconds=20, memory=200 * MIB))
        self.assertEqual(outcome.killed_by, "memory")
        outcome = self.run_hostile("memory", limits=Limits(seconds=20, address_space=200 * MIB))
        self.assertEqual((outcome.code, outcome.stdout), (3, "malloc: Cannot allocate memory\n"))

    def test_full_disk(self):
        outcome = self.run_hostile("fill", limits=Limits(disk=64 * MIB))
        self.assertEqual(outcome.killed_by, "disk")
        outcome = self.run_hostile("large", limits=Limits(file_size=32 * MIB))
        self.assertEqual(outcome.killed_by, "file size")

    def test_reads_outside(self):
        secret = self.place / "secret"
        secret.write_text("grades")
        outcome = self.run_hostile("read", str(secret))
        if self.walled("files", outcome):
            self.assertEqual((outcome.code, outcome.stdout), (3, "open: Permission denied\n"))
        outcome = self.run_hostile("read", str(secret), readable=[secret])
        self.assertEqual(outcome.stdout, "grades\n")

    def test_writes_outside(self):
        outcome = self.run_hostile("write", str(self.place / "planted"))
        if self.walled("files", outcome) or os.getuid() == 0 and self.walled("user", outcome):
            self.assertEqual(outcome.code, 3)
            self.assertFalse((self.place / "planted").exists())
        outcome = self.run_hostile("write", "mine")
        self.assertEqual(outcome.code, 0)

    def test_litter(self):
        outcome = self.run_hostile("litter")
        self.assertEqual(sorted(os.listdir(self.work)), ["closed"], outcome)

    def test_network(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            outcome = self.run_hostile("connect", str(server.getsockname()[1]))
        if self.walled("network", outcome):
            self.assertEqual(outcome.code, 3, outcome)

    def test_signals(self):
        victim = subprocess.Popen(["sleep", "60"])
        try:
            outcome = self.run_hostile("kill", str(victim.pid))
            if self.walled("signals", outcome):
                self.assertEqual(outcome.code, 3, outcome)
                self.assertIsNone(victim.poll())
                self.run_hostile("massacre")
                self.assertIsNone(victim.poll())
        finally:
            victim.kill()
            victim.wait()

    def test_no_secrets_in_the_environment(self):
        os.environ["SECRET"] = "token"
        outcome = self.run_hostile("who")
        self.assertTrue(outcome.stdout.endswith(" nothing\n"))
        if os.getuid() == 0 and self.walled("user", outcome):
            self.assertNotEqual(outcome.stdout.split()[0], "0")
        self.assertTrue(self.run_hostile("who", env={"SECRET": 7}).stdout.endswith(" 7\n"))

    def test_no_such_program(self):
        outcome = contained.run(["no_such_program"], self.work, without=self.without)
        self.assertEqual((outcome.code, outcome.killed_by), (None, "start"))
        (self.work / "text").write_text("no program")
        outcome = contained.run(["./text"], self.work, without=self.without)
        self.assertEqual((outcome.code, outcome.killed_by), (None, "start"))
        self.assertIn("not be started", outcome.why)

    def test_a_grader_that_dies(self):
        code = (f"import sys; sys.path.insert(0, {str(ROOT / 'common/lab')!r})\nimport contained\n"
                f"contained.run([{str(self.hostile)!r}, 'loop'], {str(self.work)!r}, without={self.without})")
        grader = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(self.temporary)})
        end = time.monotonic() + 10
        while not living(f"{self.hostile} loop") and time.monotonic() < end:
            time.sleep(0.05)
        grader.kill()
        grader.wait()
        while living(f"{self.hostile} loop") and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(living(f"{self.hostile} loop"), [])
        for folder in self.temporary.iterdir():  # which nobody is left to remove
            shutil.rmtree(folder, ignore_errors=True)


class WithoutNamespaces(Contained):
    without = ["namespaces"]


class WithoutNamespacesAndUser(Contained):
    without = ["namespaces", "user"]


class WithoutLandlock(Contained):
    without = ["landlock", "namespaces"]


class WithLimitsOnly(Contained):
    without = EVERYTHING


class WithoutAListOfChildren(unittest.TestCase):
    def test_children_by_parent(self):
        import supervisor
        child = subprocess.Popen(["sleep", "60"])
        try:
            self.assertEqual(supervisor.children_of(os.getpid()), [child.pid])
            self.assertEqual(supervisor.children_by_parent(os.getpid()), [child.pid])
        finally:
            child.kill()
            child.wait()


class AsAnotherUser(unittest.TestCase):
    """Root runs all of this again as nobody."""

    def test_all_of_it(self):
        if os.getuid() != 0:
            self.skipTest("this is not root")
        nobody = {"user": 65534, "group": 65534, "extra_groups": [], "cwd": "/", "capture_output": True,
                  "text": True}
        for python in (sys.executable, "/usr/bin/python3"):
            try:
                if subprocess.run([python, "-c", "import tomllib"], **nobody).returncode == 0 and (
                        subprocess.run(["test", "-r", __file__], **nobody).returncode == 0):
                    break
            except OSError:
                pass
        else:
            self.skipTest("nobody may not run Python, or not read this file")
        done = subprocess.run([python, os.path.abspath(__file__), "Contained", "WithLimitsOnly"], **nobody)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
