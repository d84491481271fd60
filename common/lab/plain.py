"""Runs a program with a time limit: what contained.py does with all the other limits."""

import dataclasses
import subprocess
import time


@dataclasses.dataclass(frozen=True)
class Limits:
    seconds: float = 20
    memory_mb: int = 8192
    processes: int = 64
    output_mb: int = 1
    file_mb: int = 256


@dataclasses.dataclass(frozen=True)
class Outcome:
    code: int | None
    stdout: str
    stderr: str
    killed_by: str | None
    seconds: float


def run(argv, cwd, limits=Limits(), readable=(), writable=()):
    start = time.monotonic()
    try:
        done = subprocess.run([str(a) for a in argv], cwd=cwd, capture_output=True,
                              timeout=limits.seconds, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as late:
        return Outcome(None, (late.stdout or b"").decode(errors="replace"),
                       (late.stderr or b"").decode(errors="replace"), "time", limits.seconds)
    signal = f"signal {-done.returncode}" if done.returncode < 0 else None
    return Outcome(done.returncode, done.stdout.decode(errors="replace"),
                   done.stderr.decode(errors="replace"), signal, time.monotonic() - start)
