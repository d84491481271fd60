"""Runs a program of our own, or one that a GPU's driver must serve: contained.py without its walls,
but with its time limit and its words."""

import contained
import subprocess
import time


def run(argv, cwd, limits=contained.Limits(), readable=(), writable=()):
    start = time.monotonic()
    try:
        done = subprocess.run([str(a) for a in argv], cwd=cwd, capture_output=True,
                              timeout=limits.seconds, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as late:
        return contained.Outcome(None, (late.stdout or b"").decode(errors="replace"),
                                 (late.stderr or b"").decode(errors="replace"), "time", limits.seconds,
                                 f"it did not end within {limits.seconds:g} s.")
    why = f"it was ended by signal {-done.returncode}." if done.returncode < 0 else ""
    return contained.Outcome(done.returncode, done.stdout.decode(errors="replace"),
                             done.stderr.decode(errors="replace"), None, time.monotonic() - start, why)
