"""The walls that Linux offers a process that wants to be contained: system calls that are not in
Python's library. Each raises OSError where this kernel, or this user, does not have it."""

import ctypes
import errno
import os
import platform
import stat

# What every program may read: the system's libraries, its compilers, and what the C library and
# the sanitizers ask the kernel about the machine. Of /proc, Landlock itself keeps other processes'
# memory and environment from it.
SYSTEM = ["/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/nix/store", "/etc/ld.so.cache",
          "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/alternatives",
          "/etc/localtime", "/proc", "/sys/devices/system/cpu", "/sys/devices/system/node",
          "/dev/zero", "/dev/random", "/dev/urandom"]
DEVICES = ["/dev/null", "/dev/full"]  # read and written



_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38


def call(result, what):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def prctl(option, *arguments):
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return call(_libc.prctl(option, *padded), f"prctl {option}")


def syscall(number, *arguments):
    wide = [a if isinstance(a, (ctypes._Pointer, ctypes.Array)) else ctypes.c_long(a) if isinstance(a, int)
            else a for a in arguments]
    return call(_libc.syscall(ctypes.c_long(number), *wide), f"system call {number}")


CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000


def enter_namespaces(with_network):
    """Processes forked from here on live in a process namespace. A normal user needs a user
    namespace for that, in which he stays who he is."""
    flags = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | (CLONE_NEWNET if with_network else 0)
    uid, gid = os.getuid(), os.getgid()
    if uid != 0:
        flags |= CLONE_NEWUSER
    call(_libc.unshare(flags), "unshare")
    if uid != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"),
                           ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def mount_own_proc():
    """In a process namespace: a /proc that shows it alone, seen by nobody else."""
    MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x4000, 1 << 18, 2, 4, 8
    call(_libc.unshare(CLONE_NEWNS), "unshare")
    call(_libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "mount")
    call(_libc.mount(b"proc", b"/proc", b"proc",
                      ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC), None), "mount")


# Landlock: linux/landlock.h. The system calls have the same numbers on every architecture.
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
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
        return syscall(LANDLOCK_CREATE, None, 0, 1)
    except OSError:
        return 0


def landlock_rules(abi, readable, writable):
    known = _FS["make_sym"] * 2 - 1
    for since, name in ((2, "refer"), (3, "truncate"), (5, "ioctl_dev")):
        if abi >= since:
            known |= _FS[name]
    attr = _RulesetAttr(known, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    rules = syscall(LANDLOCK_CREATE, ctypes.pointer(attr), size, 0)
    for paths, rights in ((readable, _READ), (writable, _WRITE)):
        for path in paths:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # not on this machine
            allowed = rights & known
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                allowed &= _FILE_RIGHTS
            syscall(LANDLOCK_ADD, rules, 1, ctypes.pointer(_PathBeneathAttr(allowed, fd)), 0)
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
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class _Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8),
                ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Filter))]


def seccomp(no_signals):
    column, architecture = ARCHITECTURES[platform.machine()]
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
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(program))


def drop_capabilities():
    """Root without what makes it root: also after an exec."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # the first that this kernel does not know
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    nothing = (ctypes.c_uint32 * 6)()
    call(_libc.capset(header, nothing), "capset")


def become(uid):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def tries(action):
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
