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

import ctypes
import dataclasses
import errno
import json
import os
import platform
import resource
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20


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


# What every program may read: the system's libraries, its compilers, and what the C library and
# the sanitizers ask the kernel about the machine. Of /proc, Landlock itself keeps other processes'
# memory and environment from it.
SYSTEM = ["/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/nix/store", "/etc/ld.so.cache",
          "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/alternatives",
          "/etc/localtime", "/proc", "/sys/devices/system/cpu", "/sys/devices/system/node",
          "/dev/zero", "/dev/random", "/dev/urandom"]
DEVICES = ["/dev/null", "/dev/full"]  # read and written


def run(argv, cwd, limits=Limits(), readable=(), writable=(), stdin=None, env=None, without=()):
    """Runs argv in the folder cwd and waits for its end; never raises for what the program does.

    argv[0] is a path or found in PATH. `readable` and `writable` are files and folders, with all
    below them; cwd and the program itself are readable. Links and pipes that the program leaves in
    `writable` are removed, so that whoever reads its files meets plain ones only. stdin: bytes.
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
            "readable": [os.path.realpath(path) for path in readable], "writable": writable,
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
        outcome.why = f"it printed more than {_size(limits.output)} and was stopped"
    return outcome


def _supervised(spec, limits, stdin):
    """Starts the supervisor and reads what the program prints. Returns the supervisor's report,
    (stdout, stderr) and whether there was too much of them."""
    pipes = [os.pipe() for _ in range(3)]  # stdout, stderr, report
    with tempfile.TemporaryFile() as source:
        source.write(stdin or b"")
        source.seek(0)
        spec["fds"] = [source.fileno(), *(write for _, write in pipes)]
        supervisor = subprocess.Popen([sys.executable, "-I", "-S", os.path.abspath(__file__)],
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
    removed = []
    for folder, folders, files in os.walk(path):
        for name in folders + files:
            entry = os.path.join(folder, name)
            mode = os.lstat(entry).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                os.unlink(entry)
                removed.append(os.path.relpath(entry, path))
    return removed


def _size(count):
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 10000 or unit == "GiB":
            return f"{count:.4g} {unit}"
        count /= 1024


# --------------------------------------------------------------------------------------------------
# The kernel's walls. None of these calls is in Python's library.

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38


def _call(result, what):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _prctl(option, *arguments):
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return _call(_libc.prctl(option, *padded), f"prctl {option}")


def _syscall(number, *arguments):
    wide = [a if isinstance(a, (ctypes._Pointer, ctypes.Array)) else ctypes.c_long(a) if isinstance(a, int)
            else a for a in arguments]
    return _call(_libc.syscall(ctypes.c_long(number), *wide), f"system call {number}")


CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000


def _enter_namespaces(with_network):
    """Processes forked from here on live in a process namespace. A normal user needs a user
    namespace for that, in which he stays who he is."""
    flags = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | (CLONE_NEWNET if with_network else 0)
    uid, gid = os.getuid(), os.getgid()
    if uid != 0:
        flags |= CLONE_NEWUSER
    _call(_libc.unshare(flags), "unshare")
    if uid != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"),
                           ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def _mount_own_proc():
    """In a process namespace: a /proc that shows it alone, seen by nobody else."""
    MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x4000, 1 << 18, 2, 4, 8
    _call(_libc.unshare(CLONE_NEWNS), "unshare")
    _call(_libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "mount")
    _call(_libc.mount(b"proc", b"/proc", b"proc",
                      ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC), None), "mount")


# Landlock: linux/landlock.h. The system calls have the same numbers on every architecture.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_FS = {name: 1 << bit for bit, name in enumerate(
    ["execute", "write_file", "read_file", "read_dir", "remove_dir", "remove_file", "make_char",
     "make_dir", "make_reg", "make_sock", "make_fifo", "make_block", "make_sym", "refer", "truncate",
     "ioctl_dev"])}
_FILE_RIGHTS = sum(_FS[name] for name in ("execute", "write_file", "read_file", "truncate", "ioctl_dev"))
_READ = _FS["execute"] | _FS["read_file"] | _FS["read_dir"]
# Without links, pipes, sockets and devices, which are made for whoever reads the folder next.
_WRITE = _READ | sum(_FS[name] for name in ("write_file", "remove_dir", "remove_file", "make_dir",
                                            "make_reg", "refer", "truncate", "ioctl_dev"))


class _RulesetAttr(ctypes.Structure):
    _fields_ = [("handled_access_fs", ctypes.c_uint64), ("handled_access_net", ctypes.c_uint64),
                ("scoped", ctypes.c_uint64)]


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def landlock_abi():
    """The version of Landlock that this kernel speaks; 0: none, or not switched on."""
    try:
        return _syscall(_LANDLOCK_CREATE, None, 0, 1)
    except OSError:
        return 0


def _landlock_rules(abi, readable, writable):
    known = _FS["make_sym"] * 2 - 1
    for since, name in ((2, "refer"), (3, "truncate"), (5, "ioctl_dev")):
        if abi >= since:
            known |= _FS[name]
    attr = _RulesetAttr(known, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    rules = _syscall(_LANDLOCK_CREATE, ctypes.pointer(attr), size, 0)
    for paths, rights in ((readable, _READ), (writable, _WRITE)):
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # not on this machine
            allowed = rights & known
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                allowed &= _FILE_RIGHTS
            _syscall(_LANDLOCK_ADD, rules, 1, ctypes.pointer(_PathBeneathAttr(allowed, fd)), 0)
            os.close(fd)
    return rules


# seccomp: what no compiler and no kernel in the emulator asks for. Sockets reach the network, and
# daemons of this machine that do more than we allow (Docker's); io_uring goes past this filter;
# memory files and System V memory belong to no process that the watch could count.
_REFUSED = {  # x86-64, aarch64
    "socket": (41, 198), "io_uring_setup": (425, 425), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "open_by_handle_at": (304, 265), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180)}
_SIGNALS = {"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
            "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
            "pidfd_send_signal": (424, 424)}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class _Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8),
                ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Filter))]


def _seccomp(no_signals):
    column, architecture = _ARCHITECTURES[platform.machine()]
    LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
    KILL, ALLOW, REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EPERM
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0)]
    if column == 0:  # the x32 twins of all calls
        code += [(AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, REFUSE)]
    for numbers in [*_REFUSED.values(), *(_SIGNALS.values() if no_signals else [])]:
        code += [(EQUAL, 0, 1, numbers[column]), (RETURN, 0, 0, REFUSE)]
    code.append((RETURN, 0, 0, ALLOW))
    array = (_Filter * len(code))(*code)
    program = _Program(len(code), array)
    _prctl(PR_SET_SECCOMP, 2, ctypes.addressof(program))


def _drop_capabilities():
    """Root without what makes it root: also after an exec."""
    for capability in range(64):
        try:
            _prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # the first that this kernel does not know
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    nothing = (ctypes.c_uint32 * 6)()
    _call(_libc.capset(header, nothing), "capset")


def _become(uid):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _tries(action):
    """Whether the action works, tried in a process that then goes away; or what it raised."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except OSError as failure:
            os.write(write, str(failure.strerror or failure).encode())
        except BaseException as failure:  # noqa: this process must end here
            os.write(write, repr(failure).encode())
        os._exit(1)
    os.close(write)
    _, status = os.waitpid(child, 0)
    text = os.read(read, 1000).decode()
    os.close(read)
    return "" if status == 0 else text or "it failed"


# --------------------------------------------------------------------------------------------------
# The supervisor: this file run as a program.


class _Supervisor:
    def __init__(self, spec):
        self.spec = spec
        self.limits = Limits(**spec["limits"])
        self.walls = {}
        self.before = (0, 1 << 60)  # what was there already
        self.before = self.written()
        self.uid = None  # whom root becomes
        self.in_namespaces = False

    def plan(self):
        """Finds out which walls this machine offers, and puts up those that are the supervisor's."""
        walls = self.walls
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        without = self.spec["without"]
        self.abi = 0 if "landlock" in without else landlock_abi()
        walls["files"] = "stands" if self.abi else "this kernel has no Landlock, or it is switched off"
        can_filter = ("seccomp" not in without and platform.machine() in _ARCHITECTURES
                      and not _tries(self.only_filter))

        failure = "left away" if "namespaces" in without else _tries(lambda: _enter_namespaces(True))
        with_network = not failure
        if failure and "namespaces" not in without:
            failure = _tries(lambda: _enter_namespaces(False))
        self.in_namespaces = not failure
        walls["processes"] = "stands" if self.in_namespaces else (
            f"no process namespace ({failure}): descendants are looked for and killed one by one")
        walls["network"] = "stands" if with_network or can_filter else (
            f"neither a network namespace ({failure}) nor a seccomp filter")

        walls["user"] = "stands"
        if os.getuid() == 0:
            for uid in (1_500_000_000 + os.getpid() % 100_000_000, 50_000 + os.getpid() % 10_000):
                failure = "left away" if "user" in without else _tries(lambda: self.try_user(uid))
                if not failure:
                    self.uid = uid
                    break
            if self.uid is None:
                walls["user"] = f"it is root, without capabilities: another user fails ({failure})"

        # What keeps signals in: a namespace, a user of its own, Landlock 6, or a filter of them all.
        self.filter = can_filter
        self.no_signals = not (self.in_namespaces or self.uid is not None or self.abi >= 6)
        walls["signals"] = "stands" if can_filter or not self.no_signals else "nothing keeps them in"

        # The kernel counts processes by user: its own user, or one of its own namespace (since
        # Linux 5.14), has none but these.
        release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
        alone = self.uid is not None or (
            os.getuid() != 0 and self.in_namespaces and release >= (5, 14))
        self.processes = self.limits.processes + (0 if alone else _threads_of(os.getuid()))
        walls["limits"] = "stands" if self.uid is not None or os.getuid() != 0 else (
            "the kernel does not limit root's processes: they are only watched")

        if self.in_namespaces:  # last, for from here on there is but one child: the keeper
            _enter_namespaces(with_network)

    def only_filter(self):
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
        _seccomp(False)

    def try_user(self, uid):
        spec = self.spec
        _become(uid)
        for path in [spec["cwd"], spec["argv"][0], *spec["readable"]]:
            if os.path.exists(path) is False or not os.access(path, os.R_OK):
                raise PermissionError(errno.EACCES, f"{path} is for root only")
        for path in [*spec["writable"], spec["temporary"]]:  # which will be given to that user
            if not os.access(os.path.dirname(path), os.X_OK):
                raise PermissionError(errno.EACCES, f"{path} is for root only")

    def own(self, uid):
        """Gives all that may be written to a user."""
        for path in [*self.spec["writable"], self.spec["temporary"]]:
            entries = [path]
            for folder, folders, files in os.walk(path):
                entries += [os.path.join(folder, name) for name in folders + files]
            for entry in entries:
                try:
                    os.chown(entry, uid, uid, follow_symlinks=False)
                except OSError:
                    pass

    def start(self):
        """Forks the keeper, who starts the program, waits for it, and says how it ended."""
        read, write = os.pipe()
        self.keeper = os.fork()
        if self.keeper == 0:
            try:
                os.close(read)
                os.close(0)  # the grader's end of that pipe must be the only one
                self.keep(write)
            except BaseException as failure:  # noqa: this process must end here
                os.write(write, json.dumps({"failed": str(failure)}).encode() + b"\n")
            os._exit(1)
        os.close(write)
        return read

    def keep(self, status_pipe):
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if self.in_namespaces:
            try:
                _mount_own_proc()
            except OSError:
                pass  # a container that hides parts of /proc: Landlock guards the other's processes
        program = os.fork()
        if program == 0:
            try:
                self.become_program()
            except BaseException as failure:  # noqa: this process must end here
                os.write(status_pipe, json.dumps({"failed": str(failure)}).encode() + b"\n")
            os._exit(127)
        for fd in self.spec["fds"]:
            os.close(fd)
        while True:  # as the first process of a namespace it is also the parent of all orphans
            ended, status = os.waitpid(-1, 0)
            if ended == program:
                break
        os.write(status_pipe, json.dumps({"code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")
        while True:
            signal.pause()  # until it is killed: the supervisor wants to see who is left

    def become_program(self):
        spec, limits = self.spec, self.limits
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
            signal.signal(number, signal.SIG_DFL)
        for fd, source in enumerate(spec["fds"][:3]):
            os.dup2(source, fd)
        os.umask(0o022)
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("1000")  # if the machine runs out of memory, this is who goes
        except OSError:
            pass
        rules = None
        if self.abi:
            rules = _landlock_rules(self.abi, [*SYSTEM, spec["cwd"], spec["argv"][0], *spec["readable"]],
                                    [*DEVICES, *spec["writable"], spec["temporary"]])
        seconds = int(limits.seconds * limits.cpus) + 1
        for what, soft, hard in (
                (resource.RLIMIT_CPU, seconds, seconds + 1),
                (resource.RLIMIT_FSIZE, limits.file_size, limits.file_size),
                (resource.RLIMIT_NOFILE, limits.open_files, limits.open_files),
                (resource.RLIMIT_CORE, 0, 0), (resource.RLIMIT_MEMLOCK, MIB, MIB),
                (resource.RLIMIT_MSGQUEUE, 0, 0), (resource.RLIMIT_STACK, 8 * MIB, 256 * MIB),
                (resource.RLIMIT_AS, limits.address_space, limits.address_space),
                (resource.RLIMIT_NPROC, self.processes, self.processes)):
            if soft is not None:
                _lower(what, soft, hard)
        if self.uid is not None:
            _become(self.uid)
        elif os.getuid() == 0 or self.in_namespaces:
            _drop_capabilities()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user has cleared it
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
        os.chdir(spec["cwd"])
        if rules is not None:
            _syscall(_LANDLOCK_RESTRICT, rules, 0)
            os.close(rules)
        if self.filter:
            _seccomp(self.no_signals)
        os.execve(spec["argv"][0], spec["argv"], spec["env"])

    def watch(self, status_pipe):
        """Until the program has ended, or has gone past a limit, or the grader wants it stopped."""
        limits, began = self.limits, time.monotonic()
        report, pause, looks = {"code": None}, 0.005, 0
        while True:
            ready = select.select([status_pipe, 0], [], [], pause)[0]
            report["seconds"] = time.monotonic() - began
            if status_pipe in ready:
                line = os.read(status_pipe, 4096).split(b"\n")[0]
                status = json.loads(line) if line else {"failed": "its keeper was killed"}
                if "failed" in status:
                    report.update(killed_by="start", why=f"it could not be started: {status['failed']}")
                else:
                    report["code"] = status["code"]
                break
            if 0 in ready:
                report.update(killed_by="stopped", why="it was stopped from outside")
                break
            pause = min(0.05, pause * 1.5)
            looks += 1
            tree = self.tree()
            memory = sum(process.memory for process in tree.values())
            tasks = sum(process.tasks for process in tree.values())
            if report["seconds"] > limits.seconds:
                report.update(killed_by="time", why=f"it was stopped after {limits.seconds:g} seconds")
            elif memory > limits.memory:
                report.update(killed_by="memory",
                              why=f"it used {_size(memory)} of memory; allowed are {_size(limits.memory)}")
            elif tasks > limits.processes + 1:  # the keeper
                report.update(killed_by="processes", why=f"it had {tasks} processes and threads; "
                                                         f"allowed are {limits.processes}")
            elif looks % 4 == 0 and (why := self.too_much_written()):
                report.update(killed_by="disk", why=why)
            else:
                continue
            break
        # The keeper is one; another is a zombie at most.
        self.signal_all(signal.SIGSTOP)
        report["left_behind"] = sum(process.state not in "ZX" for pid, process in self.tree().items()
                                    if pid != self.keeper and report["code"] is not None)
        self.kill_all()
        if report["code"] is not None and "killed_by" not in report and (why := self.too_much_written()):
            report.update(killed_by="disk", why=why)
        return report

    def tree(self):
        """All our descendants: pid → _Process."""
        found, look = {}, [os.getpid()]
        while look:
            pid = look.pop()
            for child in _children(pid):
                if child not in found and (process := _process(child)):
                    found[child] = process
                    look.append(child)
        return found

    def written(self):
        """Bytes and entries in all that may be written; no more than it takes to be too many."""
        size = count = 0
        for path in [*self.spec["writable"], self.spec["temporary"]]:
            for folder, folders, files in os.walk(path):
                count += len(folders) + len(files)
                for name in files:
                    try:
                        size += os.lstat(os.path.join(folder, name)).st_blocks * 512
                    except OSError:
                        pass
                if count > self.before[1] + self.limits.files:
                    break
        return size, count

    def too_much_written(self):
        size, count = (now - before for now, before in zip(self.written(), self.before))
        if count > self.limits.files:
            return f"it made more than {self.limits.files} files and folders"
        if size > self.limits.disk:
            return f"it wrote {_size(size)}; allowed are {_size(self.limits.disk)}"
        return ""

    def signal_all(self, number):
        for pid in self.tree():
            if pid != self.keeper:
                try:
                    os.kill(pid, number)
                except OSError:
                    pass

    def kill_all(self):
        """Nobody stays. In a process namespace the keeper's death is everybody's; elsewhere a
        program may fork while it is being looked for, so it is stopped first, and looked for until
        nobody is left to wait for."""
        if not self.in_namespaces and self.uid is not None:  # at one blow: all of that user
            child = os.fork()
            if child == 0:
                try:
                    _become(self.uid)
                    os.kill(-1, signal.SIGKILL)
                finally:
                    os._exit(0)
        os.kill(self.keeper, signal.SIGKILL)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if not self.in_namespaces:
                self.signal_all(signal.SIGSTOP)
                self.signal_all(signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(0.005)

    def main(self):
        self.plan()
        if self.uid is not None:
            self.own(self.uid)
        status_pipe = self.start()
        for fd in self.spec["fds"][:3]:
            os.close(fd)
        report = self.watch(status_pipe)
        if self.uid is not None:
            self.own(os.getuid())
        report["walls"] = self.walls
        code = report["code"]
        if code is not None and code < 0 and "killed_by" not in report:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
            report["why"] = f"it was ended by {name}"
            if -code == signal.SIGXCPU:
                report.update(killed_by="time", why="it used up its CPU time")
            elif -code == signal.SIGXFSZ:
                report.update(killed_by="file size", why="it wrote a file larger than "
                                                         f"{_size(self.limits.file_size)}")
        return report


@dataclasses.dataclass
class _Process:
    state: str
    memory: int
    tasks: int


def _process(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return _Process(fields[0].decode(), int(fields[21]) * resource.getpagesize(), int(fields[17]))


def _children(pid):
    """From the kernel's own list, where it keeps one; otherwise by asking all for their parents."""
    children = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                children += [int(word) for word in file.read().split()]
        return children
    except FileNotFoundError:
        if not os.path.exists(f"/proc/{pid}") or os.path.exists("/proc/self/task/self/children"):
            return children
    except OSError:
        return children
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                if name.isdigit() and int(file.read().rpartition(b")")[2].split()[1]) == pid:
                    children.append(int(name))
        except OSError:
            pass
    return children


def _threads_of(uid):
    count = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            pass
    return count


def _lower(what, soft, hard):
    """A limit can be lowered by anybody, raised by nobody."""
    ceiling = resource.getrlimit(what)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(what, (soft, hard))


def _supervise():
    spec = json.loads(sys.stdin.buffer.raw.readline())
    for fd in spec["fds"]:
        os.set_inheritable(fd, False)
    report_fd = spec["fds"][3]
    try:
        report = _Supervisor(spec).main()
    except Exception as failure:  # the grader shall hear of it
        report = {"code": None, "killed_by": "start", "why": f"its supervisor failed: {failure!r}"}
    os.write(report_fd, json.dumps(report).encode())
    return 0


if __name__ == "__main__":
    sys.exit(_supervise())
