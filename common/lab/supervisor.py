"""Contains one program: contained.py starts this as a process of its own, tells it on the standard
input what to run, and reads a report from a pipe. When the other end of the standard input closes,
whatever the reason, it kills what it started and ends.

    contained.py ─ supervisor: plans the walls, watches, kills
                     └ keeper: first process of the namespace, waits for the program
                         └ the program, once it has locked itself in
"""

import dataclasses
import errno
import json
import os
import platform
import resource
import select
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from contained import MIB, Limits, size_text  # noqa: E402
import walls  # noqa: E402


class Supervisor:
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
        walls.prctl(walls.PR_SET_CHILD_SUBREAPER, 1)
        without = self.spec["without"]
        self.abi = 0 if "landlock" in without else walls.landlock_abi()
        self.walls["files"] = "stands" if self.abi else "this kernel has no Landlock, or it is switched off"
        can_filter = ("seccomp" not in without and platform.machine() in walls.ARCHITECTURES
                      and not walls.tries(self.only_filter))

        failure = "left away" if "namespaces" in without else walls.tries(lambda: walls.enter_namespaces(True))
        with_network = not failure
        if failure and "namespaces" not in without:
            failure = walls.tries(lambda: walls.enter_namespaces(False))
        self.in_namespaces = not failure
        self.walls["processes"] = "stands" if self.in_namespaces else (
            f"no process namespace ({failure}): descendants are looked for and killed one by one")
        self.walls["network"] = "stands" if with_network or can_filter else (
            f"neither a network namespace ({failure}) nor a seccomp filter")

        self.walls["user"] = "stands"
        if os.getuid() == 0:
            for uid in (1_500_000_000 + os.getpid() % 100_000_000, 50_000 + os.getpid() % 10_000):
                failure = "left away" if "user" in without else walls.tries(lambda: self.try_user(uid))
                if not failure:
                    self.uid = uid
                    break
            if self.uid is None:
                self.walls["user"] = f"it is root, without capabilities: another user fails ({failure})"

        # What keeps signals in: a namespace, a user of its own, Landlock 6, or a filter of them all.
        self.filter = can_filter
        self.no_signals = not (self.in_namespaces or self.uid is not None or self.abi >= 6)
        self.walls["signals"] = "stands" if can_filter or not self.no_signals else "nothing keeps them in"

        # The kernel counts processes by user: its own user, or one of its own namespace (since
        # Linux 5.14), has none but these.
        release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
        alone = self.uid is not None or (
            os.getuid() != 0 and self.in_namespaces and release >= (5, 14))
        self.processes = self.limits.processes + (0 if alone else threads_of(os.getuid()))
        self.walls["limits"] = "stands" if self.uid is not None or os.getuid() != 0 else (
            "the kernel does not limit root's processes: they are only watched")

        if self.in_namespaces:  # last, for from here on there is but one child: the keeper
            walls.enter_namespaces(with_network)

    def only_filter(self):
        walls.prctl(walls.PR_SET_NO_NEW_PRIVS, 1)
        walls.seccomp(False)

    def try_user(self, uid):
        spec = self.spec
        walls.become(uid)
        for path in [spec["cwd"], spec["argv"][0], *spec["readable"]]:
            if not os.access(path, os.X_OK if os.path.isdir(path) else os.R_OK):
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
        walls.prctl(walls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if self.in_namespaces:
            try:
                walls.mount_own_proc()
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
        walls.prctl(walls.PR_SET_PDEATHSIG, signal.SIGKILL)
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
            rules = walls.landlock_rules(self.abi, [*walls.SYSTEM, spec["cwd"], spec["argv"][0], *spec["readable"]],
                                    [*walls.DEVICES, *spec["writable"], spec["temporary"]])
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
                lower(what, soft, hard)
        if self.uid is not None:
            walls.become(self.uid)
        elif os.getuid() == 0 or self.in_namespaces:
            walls.drop_capabilities()
        walls.prctl(walls.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user has cleared it
        walls.prctl(walls.PR_SET_NO_NEW_PRIVS, 1)
        os.chdir(spec["cwd"])
        if rules is not None:
            walls.syscall(walls.LANDLOCK_RESTRICT, rules, 0)
            os.close(rules)
        if self.filter:
            walls.seccomp(self.no_signals)
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
                              why=f"it used {size_text(memory)} of memory; allowed are {size_text(limits.memory)}")
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
        return report

    def tree(self):
        """All our descendants: pid → Process."""
        found, look = {}, [os.getpid()]
        while look:
            pid = look.pop()
            for child in children_of(pid):
                if child not in found and (process := look_at(child)):
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
            return f"it wrote {size_text(size)}; allowed are {size_text(self.limits.disk)}"
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
                    walls.become(self.uid)
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
        try:
            report = self.watch(status_pipe)
        finally:
            self.kill_all()
        if report["code"] is not None and (why := self.too_much_written()):
            report.update(killed_by="disk", why=why)
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
                                                         f"{size_text(self.limits.file_size)}")
        return report


@dataclasses.dataclass
class Process:
    state: str
    memory: int
    tasks: int


def look_at(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Process(fields[0].decode(), int(fields[21]) * resource.getpagesize(), int(fields[17]))


def children_of(pid):
    """From the kernel's own list, where it keeps one."""
    if not os.path.exists("/proc/thread-self/children"):
        return children_by_parent(pid)
    children = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                children += [int(word) for word in file.read().split()]
    except OSError:
        pass  # it has just ended
    return children


def children_by_parent(pid):
    """By asking all processes for their parents."""
    children = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit():
                with open(f"/proc/{name}/stat", "rb") as file:
                    if int(file.read().rpartition(b")")[2].split()[1]) == pid:
                        children.append(int(name))
        except OSError:
            pass
    return children


def threads_of(uid):
    count = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            pass
    return count


def lower(what, soft, hard):
    """A limit can be lowered by anybody, raised by nobody."""
    ceiling = resource.getrlimit(what)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(what, (soft, hard))


def supervise():
    spec = json.loads(sys.stdin.buffer.raw.readline())
    for fd in spec["fds"]:
        os.set_inheritable(fd, False)
    report_fd = spec["fds"][3]
    try:
        report = Supervisor(spec).main()
    except Exception as failure:  # the grader shall hear of it
        report = {"code": None, "killed_by": "start", "why": f"its supervisor failed: {failure!r}"}
    try:
        os.write(report_fd, json.dumps(report).encode())
    except BrokenPipeError:
        pass  # the grader is gone
    return 0


if __name__ == "__main__":
    sys.exit(supervise())
