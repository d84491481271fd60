"""Judges a folder with a student's file: compiles it with the house's own flags, runs it, and asks
the prebuilt judge, which holds no code of the student's, whether the result is right.

    judge("01.1", folder) -> {"lab", "passed", "score" 0..1, "seconds",
                              "checks": [{"name", "passed", "message"}]}

Everybody calls this function: the student's loop (lab.py), the grader and the tests.
"""

import json
import pathlib
import re
import shlex
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import contained  # noqa: E402
import plain  # noqa: E402
import starter  # noqa: E402
import variants  # noqa: E402
from starter import ROOT, LabError  # noqa: E402

LARGEST_FILE = 1 << 20  # bytes of a student's file
COMPILE = contained.Limits(seconds=60, memory=4 << 30)
RUN = contained.Limits(seconds=30, memory=4 << 30, file_size=64 << 20)
PRACTICE = 1  # the seed of a variant where none is given


def build_folder(gpu=False):
    return ROOT / "build" / ("cuda" if gpu else "emulator")


# --------------------------------------------------------------------------------------------------
# Building


def compile_commands(lab, source, overlay, program, build):
    """argv to compile the lab's program, and argv to link it."""
    run = ROOT / lab.chapter / "lab" / lab.facts.get("run", "run.cu")
    database = build / "compile_commands.json"
    if not database.exists():
        raise LabError(f"{build} is not configured yet: 'make lab LAB={lab.id}' does it")
    for entry in json.loads(database.read_text()):
        if pathlib.Path(entry["file"]) == run:
            break
    else:
        raise LabError(f"{run.relative_to(ROOT)} is not in {database}: configure again")
    words = shlex.split(entry["command"])
    while "ccache" in pathlib.Path(words[0]).name:
        words.pop(0)
    out = words.index("-o")
    del words[out:out + 2]
    words = [w for w in words if w not in ("-Werror", "all-warnings", "-c", entry["file"])]
    first_include = next(i for i, w in enumerate(words) if w.startswith("-I"))
    words.insert(first_include, f"-I{overlay}")
    # Not as -D: nvcc takes the commas of template arguments for its own.
    name = overlay / "launch.hpp"
    name.write_text(f"#define AL_LAB_LAUNCH {lab.facts['launch']}\n")
    link = json.loads((build / "lab.json").read_text())
    compiling = [*words, "-include", str(name), "-c", str(source), "-o", f"{program}.o"]
    linking = [link["linker"], f"{program}.o", "-o", str(program), *link["libraries"]]
    return compiling, linking


def needed(argv):
    """What a compiler or linker reads: the include folders and files that its words name, of the
    house only the sources."""
    words = [str(word) for word in argv]
    named = [words[i + 1] for i, word in enumerate(words) if word in ("-isystem", "-I")]
    named += [word for word in words if word.startswith("/")]
    named += [f"{word}.gch" for word in words if word.endswith("/cmake_pch.hxx")]
    named += [str(ROOT / "common"), *(str(path) for path in ROOT.glob("[0-9][0-9]_*"))]
    return [path for path in named if pathlib.Path(path).exists()]


def system_tools():
    return [path for path in ("/usr", "/lib", "/lib64") if pathlib.Path(path).exists()]


def submitted(lab, folder):
    """The text of the student's file, read so that nothing else of the machine can come in."""
    path = pathlib.Path(folder) / lab.file
    if path.is_symlink() or not path.is_file():
        there = sorted(p.name for p in pathlib.Path(folder).glob("*"))[:10]
        raise LabError(f"There is no file {lab.file} in the folder; there is: "
                       f"{', '.join(there) or 'nothing'}.")
    size = path.stat().st_size
    if size == 0:
        raise LabError(f"{lab.file} is empty.")
    if size > LARGEST_FILE:
        raise LabError(f"{lab.file} has {size} bytes; no kernel of this course needs more than "
                       f"{LARGEST_FILE}.")
    return path.read_bytes()


def first_errors(text, overlay, lab):
    """What the compiler said, with the student's own path in it, and not all of it."""
    text = text.replace(f"{overlay}/{lab.chapter}/{lab.file}", lab.file).replace(f"{overlay}/", "")
    text = text.replace(str(ROOT) + "/", "")
    lines = text.splitlines()
    begin = next((i for i, line in enumerate(lines) if "error" in line), 0)
    return "\n".join(lines[begin:begin + 8])


# --------------------------------------------------------------------------------------------------
# The words of a verdict

PLAIN_WORDS = {
    "race in shared memory": "Two threads touched the same word of shared memory, one of them to "
                             "write, and no barrier stands between them.",
    "read of unwritten shared memory": "A thread read a word of shared memory that nobody had written "
                                       "yet: who should have, and is there a barrier in between?",
    "use of shared memory while": "A copy was still on its way when a thread touched its place in "
                                  "shared memory: a wait is missing, or waits for too little.",
    "overrun of a shared array": "An index went past the end of an array in shared memory.",
    "divergent barrier": "Some threads of the block wait at one __syncthreads and some at another.",
    "exited thread at a barrier": "Some threads have returned, and the others wait for them at a "
                                  "barrier for ever.",
    "warp call names": "A shuffle or vote names a lane that has returned or does not exist.",
    "divergent warp call": "Lanes that must make a warp call together are at different lines.",
    "read of unwritten global memory": "A thread read an element of global memory that was never "
                                       "written.",
    "access outside global memory": "An address lies outside every buffer: an index is out of range.",
    "misaligned": "An address is no multiple of what the access needs (16 bytes for a float4).",
    "race between blocks": "Two blocks wrote the same element of global memory, or one read what "
                           "another wrote.",
    "deadlock": "Threads wait for something that can never come.",
}


def round_the_loop(report, lab, lines):
    """Of a race whose two lines have a barrier between them: which way it is about; or nothing."""
    found = [re.findall(re.escape(lab.file) + r":(\d+)", line) for line in report.splitlines()]
    ends = [int(numbers[-1]) for numbers in found if numbers]  # the kernel's line, not an inlined one
    if "race in shared memory" not in report or len(ends) != 2:
        return []
    first, last = sorted(ends)
    for n in range(first + 1, last):
        if "__syncthreads()" in lines[n - 1].split("//")[0]:
            return [f"The barrier at {lab.file}:{n} lies between the two in the source. If every thread of the "
                    f"block comes to it, they meet when line {first} is reached again, round a loop or by another "
                    f"call: look at the way from line {last} back to line {first}."]
    return []


def plain_words(report, lab, source):
    """The emulator's report with a sentence in front that needs no knowledge of the emulator, and
    behind it the lines of the student's file that it names."""
    title = report.splitlines()[0]
    words = next((words for begin, words in PLAIN_WORDS.items() if begin in title), "")
    report = report.replace(f"{lab.chapter}/{lab.file}:", f"{lab.file}:")
    lines = source.splitlines()
    named = sorted({int(n) for n in re.findall(re.escape(lab.file) + r":(\d+)", report)})
    way = round_the_loop(report, lab, lines)
    quoted = [f"  {n:>5} | {lines[n - 1]}" for n in named if 0 < n <= len(lines)]
    return "\n".join([*([words] if words else []), *way, "The emulator says:", report.rstrip(), *quoted])


def owner(lab, case):
    """Who computes the first wrong element, where the lab tells: an f-string of row, column, head."""
    text = lab.facts.get("owner")
    if not text or "first" not in case:
        return ""
    names = {k: case["first"][k] for k in ("row", "column", "head", "batch")}
    return re.sub(r"\{([^{}]*)\}", lambda m: str(eval(m[1], {"__builtins__": {}}, names)), text)


def case_check(lab, case, source):
    parts = [case.get("message", "")]
    if "report" in case:
        parts = [plain_words(case["report"], lab, source)]
    if case["passed"]:
        parts = ["right"]
    if not case["passed"] and "report" not in case:
        if case.get("first"):
            parts.append(owner(lab, case))
        parts += [case.get("where", ""), case.get("cause", "")]
    check = {"name": case["name"], "passed": case["passed"],
             "message": "\n".join(part for part in parts if part)}
    check.update({key: case[key] for key in ("first", "counts", "ms") if key in case})
    return check


def limit_checks(lab, cases, limits):
    """What the counters of the first problem may be at the most."""
    counts = cases[0].get("counts") or {}
    counts["shared_wavefronts_per_request"] = (counts.get("shared_wavefronts", 0)
                                               / max(1, counts.get("shared_requests", 0)))
    counts["global_sectors_per_request"] = (counts.get("global_sectors", 0)
                                            / max(1, counts.get("global_requests", 0)))
    for name, most in limits.items():
        if name not in counts:
            raise LabError(f"{lab.id}: {name} is not counted")
        got = counts[name]
        words = name.replace("_", " ")
        number = f"{got:,.2f}" if isinstance(got, float) else f"{got:,}"
        yield {"name": f"at most {most:,} {words}", "passed": got <= most,
               "message": f"{number} {words}, where {most:,} are enough"
               if got > most else f"{number} {words}"}


# --------------------------------------------------------------------------------------------------


def make_job(lab, seed=None, variant=None):
    """The job's file as common/lab/job.hpp reads it."""
    facts = lab.facts
    shared = {key: facts[key] for key in ("operation", "dtype") if key in facts}
    if variant:
        shared |= variant.case
    cases = [{**shared, **problem} for problem in facts["problem"]]
    for n, case in enumerate(cases):
        case.setdefault("seed", 7 + n if seed is None else 1000 * seed + n)
    job = {"cases": cases, "rules": variant.rules if variant else facts.get("rules", {})}
    if "tile" in facts:
        job["tile"] = facts["tile"]
    return job


def failed(lab, start, name, message):
    return {"lab": lab.id, "passed": False, "score": 0.0, "seconds": time.monotonic() - start,
            "checks": [{"name": name, "passed": False, "message": message}]}


def judge(lab_id, folder, seed=None, limits=None, gpu=False):
    """The verdict on lab `lab_id` for the student's `folder`. `seed`: of the inputs, and of a
    variant lab what is asked; None: always the same. `limits`: contained.Limits of the run.
    Raises LabError where the house is to blame (no such lab, nothing built), never for what a
    student wrote."""
    start = time.monotonic()
    lab = starter.find_lab(lab_id)
    build = build_folder(gpu)
    work = pathlib.Path(tempfile.mkdtemp(prefix="lab_"))
    try:
        work.chmod(0o711)  # contained runs are another user's
        return judge_in(lab, folder, seed, limits or RUN, build, work, start,
                        plain.run if gpu else contained.run, gpu)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def judge_in(lab, folder, seed, limits, build, work, start, run, gpu):
    try:
        text = submitted(lab, folder)
    except LabError as missing:
        return failed(lab, start, "file", str(missing))
    overlay, results, program = work / "include", work / "results", work / "bin" / "program"
    (overlay / lab.chapter).mkdir(parents=True)
    results.mkdir()
    program.parent.mkdir()
    (overlay / lab.chapter / lab.file).write_bytes(text)
    variant = None
    if lab.kind == "variant":
        variant = variants.Variant(lab, PRACTICE if seed is None else seed)
        (overlay / lab.chapter / "variant.hpp").write_text(variant.header)
    (work / "job.json").write_text(json.dumps(make_job(lab, seed, variant)))

    source = ROOT / lab.chapter / "lab" / lab.facts.get("run", "run.cu")
    for argv in compile_commands(lab, source, overlay, program, build):
        done = run(argv, cwd=work, limits=COMPILE, readable=[overlay, *needed(argv)],
                   writable=[program.parent])
        if done.code != 0:
            said = first_errors(done.stderr, overlay, lab)
            return failed(lab, start, "compiles", done.why or said)
    compiled = time.monotonic()

    done = run([program, work / "job.json", results], cwd=work, limits=limits,
               readable=[work, *system_tools()], writable=[results])
    words = ""
    if done.killed_by == "time":
        words = (f"It did not end within {limits.seconds:g} s: is there a loop that never ends? Look at "
                 "what changes its condition.")
    elif done.killed_by or (done.code or 0) < 0:
        words = f"The program was stopped: {done.why}"
    elif done.code != 0:
        words = f"The program ended with exit code {done.code}: {done.stderr.strip()[-500:]}"

    # No code of the student's runs any more; but what it left may be anything.
    judge_program = json.loads((build / "lab.json").read_text())["judge"]
    verdict = plain.run([judge_program, work / "job.json", results], cwd=work, limits=RUN)
    if verdict.code is not None and verdict.code < 0:  # our mistake, until somebody has looked
        raise LabError(f"{lab.id}: lab_judge has no verdict: {verdict.why}")
    try:
        if verdict.code != 0:
            raise ValueError(verdict.why or verdict.stderr.strip()[-500:])
        checks, cases = case_checks(lab, json.loads(verdict.stdout)["cases"], words, text)
        if words and all(check["passed"] for check in checks):
            checks.append({"name": "ends", "passed": False, "message": words})
        if getattr(done, "left_behind", 0):
            checks.append({"name": "ends", "passed": False,
                           "message": f"It left {done.left_behind} processes running."})
        score = sum(check["passed"] for check in checks) / len(checks)
        limits = dict(lab.facts.get("limits", {}))
        for feature in variant.features if variant else ():
            limits |= lab.facts["variant"].get("limits", {}).get(feature, {})
        if limits and score == 1 and not gpu:
            checks += limit_checks(lab, cases, limits)
            more = checks[-len(limits):]
            score = (1 + sum(check["passed"] for check in more) / len(more)) / 2
        elif limits and not gpu:
            score /= 2
    except (ValueError, KeyError, TypeError, AttributeError) as damaged:
        return failed(lab, start, "result", f"What the program left cannot be read: {damaged}")
    return {"lab": lab.id, "passed": all(check["passed"] for check in checks),
            "score": round(score, 4), "seconds": time.monotonic() - start,
            "compile_seconds": compiled - start, "checks": checks, "walls": done.walls}


def case_checks(lab, cases, words, text):
    """The verdict on each problem. `words`: why the program ended badly, if it did."""
    checks = []
    for case in cases:
        if case["passed"] and case.get("counts") and case["counts"]["blocks"] == 0:
            case.update(passed=False, message="No kernel was launched.")
        if case.get("missing") and words:
            checks.append({"name": case["name"], "passed": False, "message": words})
            words = "It did not come to this problem."
        else:
            checks.append(case_check(lab, case, text.decode(errors="replace")))
    return checks, cases


if __name__ == "__main__":
    print(json.dumps(judge(*sys.argv[1:]), indent=2))
