"""Runs a program that nobody has to trust, as far contained as an unprivileged process can do it.

    outcome = run(["g++", "kernel.cu"], cwd=folder, limits=Limits(seconds=20), writable=[folder])

What stands between the program and the machine, each wall where this kernel and this user have it
(`Outcome.walls` says for every one whether it stood, and if not, why):

    files      Landlock: it reads what `readable` and `writable` name and the system's own libraries
               and compilers; it writes only into `writable` and into a temporary folder of its own,
               which is removed afterwards.
    network    A network namespace with nothing in it; besides, a seccomp filter refuses sockets.
    processes  A process namespace: when its first process dies, the kernel kills all. Otherwise
               whatever the program starts stays a descendant of ours, however it detaches itself,
               and is looked for and killed.
    signals    It cannot signal or trace a process that is not its own.
    user       Root becomes a user that exists for this run only.
    limits     Resource limits of the kernel, and a watch of memory, number of processes and disk
               for what they cannot express.

Standard library only. A run costs some 60 ms: it has a supervisor, a second Python, which sets up
the walls, starts the program and kills it. A grader that is itself killed takes nothing along: the
supervisor sees its end of a pipe close, and clears up.
"""

import dataclasses
import json
import os
import select
import shutil
import stat
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20
SUPERVISOR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "supervisor.py")


@dataclasses.dataclass(frozen=True)
class Limits:
    seconds: float = 20  # by the clock; the CPU time of one process is held to `cpus` times this
    cpus: int = 4
    memory: int = 2048 * MIB  # resident, of all its processes together, looked at 20 times a second
    address_space: int | None = None  # of one process; ASan and CUDA reserve terabytes: none then
    processes: int = 64  # threads count
    open_files: int = 256
    file_size: int = 256 * MIB  # of any one file …
    disk: int = 512 * MIB  # … and of all it has written
    files: int = 4096
    output: int = 16 * MIB  # bytes printed, after which it is killed …
    kept: int = 64 * 1024  # … of which so many of stdout and as many of stderr are kept


@dataclasses.dataclass
class Outcome:
    code: int | None  # as subprocess has it: -11 for a segmentation fault; None: never started
    stdout: str
    stderr: str
    killed_by: str | None  # "time", "memory", "output", "processes", "disk", "file size", "start"
    seconds: float
    why: str = ""  # killed_by, or the signal that ended it, as a sentence
    left_behind: int = 0  # processes it left running, which were killed
    removed: list = dataclasses.field(default_factory=list)  # links and pipes it left in `writable`
    walls: dict = dataclasses.field(default_factory=dict)  # wall: "stands" or why it does not

    @property
    def ok(self):
        return self.code == 0 and self.killed_by is None


def run(argv, cwd, limits=Limits(), readable=(), writable=(), stdin=None, env=None, without=()):
    """Runs argv in the folder cwd and waits for its end; never raises for what the program does.

    argv[0] is a path or found in PATH. `readable` and `writable` are files and folders, with all
    below them; cwd and the program itself are readable. Links and pipes that the program leaves in
    `writable` are removed, so that whoever reads its files meets plain ones only, and can. stdin: bytes.
    The environment is PATH, HOME, TMPDIR, LANG and what `env` adds. `without` leaves walls away as
    if this kernel had them not, for tests: "landlock", "namespaces", "user", "seccomp".
    """
    argv = [str(word) for word in argv]
    program = shutil.which(argv[0]) if "/" not in argv[0] else os.path.join(cwd, argv[0])
    if not program or not os.path.exists(program):
        return Outcome(None, "", "", "start", 0, f"there is no program {argv[0]}")
    temporary = tempfile.mkdtemp(prefix="contained-")
    writable = [os.path.realpath(path) for path in writable]
    spec = {"argv": [program, *argv[1:]], "cwd": os.path.realpath(cwd),
            "limits": dataclasses.asdict(limits),
            "readable": [os.path.realpath(path) for path in readable if os.path.exists(path)],
            "writable": writable,
            "temporary": temporary, "without": list(without),
            "env": {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": temporary, "TMPDIR": temporary,
                    "LANG": "C.UTF-8", **{key: str(value) for key, value in (env or {}).items()}}}
    began = time.monotonic()
    try:
        report, streams, drowned = _supervised(spec, limits, stdin)
    finally:
        _remove(temporary)
    removed = [name for path in writable for name in _plain_files_only(path)]
    outcome = Outcome(report.get("code"), *streams, report.get("killed_by"),
                      report.get("seconds", time.monotonic() - began), report.get("why", ""),
                      report.get("left_behind", 0), removed, report.get("walls", {}))
    if drowned and outcome.killed_by in (None, "stopped"):
        outcome.killed_by = "output"
        outcome.why = f"it printed more than {size_text(limits.output)} and was stopped"
    return outcome


def _supervised(spec, limits, stdin):
    """Starts the supervisor and reads what the program prints. Returns the supervisor's report,
    (stdout, stderr) and whether there was too much of them."""
    pipes = [os.pipe() for _ in range(3)]  # stdout, stderr, report
    with tempfile.TemporaryFile() as source:
        source.write(stdin or b"")
        source.seek(0)
        spec["fds"] = [source.fileno(), *(write for _, write in pipes)]
        supervisor = subprocess.Popen([sys.executable, "-I", "-S", SUPERVISOR],
                                      stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                      pass_fds=spec["fds"], start_new_session=True)
    for _, write in pipes:
        os.close(write)
    kept, seen, drowned = [bytearray() for _ in pipes], [0] * 3, False
    try:
        supervisor.stdin.write(json.dumps(spec).encode() + b"\n")
        supervisor.stdin.flush()
        open_ends = {read: index for index, (read, _) in enumerate(pipes)}
        give_up = time.monotonic() + limits.seconds + 30  # the supervisor keeps the time; or has died
        # The report is the last to come, and by then nobody else can hold the other two open.
        while pipes[2][0] in open_ends and time.monotonic() < give_up:
            for end in select.select(list(open_ends), [], [], 1)[0]:
                index, data = open_ends[end], os.read(end, MIB)
                if not data:
                    del open_ends[end]
                    continue
                seen[index] += len(data)
                room = limits.kept - len(kept[index]) if index < 2 else len(data)
                kept[index] += data[:max(0, room)]
                if not drowned and max(seen[:2]) > limits.output:
                    drowned = True
                    supervisor.stdin.close()  # which tells it to stop
        for end, index in open_ends.items():  # what is still in the pipes
            os.set_blocking(end, False)
            while len(kept[index]) < limits.kept:
                try:
                    data = os.read(end, limits.kept - len(kept[index]))
                except BlockingIOError:
                    break
                if not data:
                    break
                kept[index] += data
    finally:
        try:
            supervisor.stdin.close()  # this alone makes it clear up, if it has not yet
        except BrokenPipeError:
            pass
        try:
            supervisor.wait(20)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            supervisor.wait()
        for read, _ in pipes:
            os.close(read)
    streams = [text.decode(errors="replace") for text in kept[:2]]
    for index, text in enumerate(streams):
        if seen[index] > limits.kept:
            streams[index] = text + f"\n… ({seen[index] - limits.kept} bytes more)\n"
    try:
        report = json.loads(kept[2])
    except ValueError:
        report = {"code": None, "killed_by": "start", "why": "its supervisor died"}
    return report, streams, drowned


def _remove(folder):
    """rm -rf, also where the program has taken its own permissions away, and however deep it dug."""
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        if os.path.lexists(folder):
            subprocess.run([*command, "--", folder], stdin=subprocess.DEVNULL, check=False,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _plain_files_only(path):
    """Removes what is neither a folder nor a plain file of its own, and makes the rest readable."""
    removed = []
    for folder, folders, files in os.walk(path):
        for name in folders + files:
            entry = os.path.join(folder, name)
            state = os.lstat(entry)
            if stat.S_ISDIR(state.st_mode):
                os.chmod(entry, state.st_mode | 0o700)  # before os.walk comes to it
            elif stat.S_ISREG(state.st_mode) and state.st_nlink == 1:
                os.chmod(entry, state.st_mode | 0o600)
            else:
                os.unlink(entry)
                removed.append(os.path.relpath(entry, path))
    return removed


def size_text(count):
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 10000 or unit == "GiB":
            return f"{count:.4g} {unit}"
        count /= 1024
