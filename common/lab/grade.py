#!/usr/bin/env python3
"""Grades a folder of submissions, unattended: make grade DIR=submissions

    python3 common/lab/grade.py DIR [--lab 04.1,04.2] [--seed N] [--jobs N] [--out FOLDER]

DIR is a folder, or the zip file that Canvas, Moodle or Gradescope made of all submissions:

    submissions/alice/04.1/fused.cuh     a folder for each student, in it one for each lab
    submissions/bob/fused.cuh            or the file itself, where --lab names one lab
    submissions/carol.zip                or a zip file of either; zip files inside are opened too
    submissions/doejane_71_9042_fused.cuh                          as Canvas names files, or
    submissions/LATE_anon_K8x2q_9042_fused.cuh                     where students are anonymous and late
    submissions/Jane Doe_71_assignsubmission_file/fused.cuh        as Moodle names folders, or
    submissions/Jane Doe_71_assignsubmission_file_fused.cuh        files

A folder that is itself one submission (04.1/fused.cuh, or fused.cuh with --lab, or anything with
--single) is graded alone, and the exit code is the verdict: 0 all labs passed, 1 not. With many
students it is 0 when each has a verdict. 2: bad usage, or something went wrong that is not a student's
fault.

Writes into OUT (build/grades):

    grades.csv, grades.json              a row for each student and lab; `late` where the download says so
    students/NAME/results.json           what Gradescope reads
    students/NAME/feedback.md            what the student may read
    verdicts/                            every verdict reached, so that a run that was interrupted goes
                                         on where it stopped; --again forgets them

A submission is never run here: judge.py compiles and runs it in a process of its own (contained.py),
with limits and without network, and compares what it wrote in another. From a submission only the
files that the lab asks for are taken. Submissions of the same text are judged once.
"""

import argparse
import concurrent.futures
import csv
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import stat
import sys
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHAPTERS = {path.parent.name for path in ROOT.glob("[0-9][0-9]_*/lab")}

FILE_BYTES = 1 << 20  # a larger source file is nobody's homework
ARCHIVE_FILES, ARCHIVE_BYTES = 2000, 64 << 20  # of one student
ALL_FILES, ALL_BYTES = 100_000, 4 << 30  # of the download of all
POINTS = 10  # of a lab


class Usage(Exception):
    """A request that cannot be followed; the text says what is allowed."""


@dataclasses.dataclass(frozen=True)
class Lab:
    id: str
    title: str
    files: tuple  # that a submission must hold
    originals: dict  # their texts in this repository
    variant: bool = False


# --------------------------------------------------------------------------------------------------
# Submissions


class Unreadable(Exception):
    """A submission that cannot be read; the text goes to the student."""


def unpack(archive, into, files=ARCHIVE_FILES, size=ARCHIVE_BYTES):
    """Plain files of a zip file, below `into` and nowhere else; no more than so many files and bytes,
    whatever the archive says of itself."""
    try:
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                parts = pathlib.PurePosixPath(entry.filename.replace("\\", "/")).parts
                if entry.is_dir() or "__MACOSX" in parts or stat.S_ISLNK(entry.external_attr >> 16):
                    continue
                if not parts or parts[0] == "/" or ".." in parts or ":" in parts[0]:
                    raise Unreadable(f"{archive.name} holds {entry.filename!r}, which is outside of it")
                files -= 1
                if files < 0:
                    raise Unreadable(f"{archive.name} holds too many files")
                target = into.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(entry) as source, open(target, "xb") as copy:
                    while data := source.read(1 << 16):
                        size -= len(data)
                        if size < 0:
                            raise Unreadable(f"{archive.name} is too large when unpacked")
                        copy.write(data)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError, EOFError) as failure:
        raise Unreadable(f"{archive.name} cannot be unpacked: {failure}") from failure
    except Exception as failure:  # zlib and lzma have errors of their own
        if isinstance(failure, Unreadable):
            raise
        raise Unreadable(f"{archive.name} cannot be unpacked: {failure}") from failure


class Student:
    def __init__(self, name):
        self.name = name
        self.folders = []  # where the files are
        self.trouble = ""  # why they cannot be read
        self.late = None  # whether it came after the deadline, where the download says so


CANVAS = re.compile(r"^(?:(?P<anonymous_late>LATE_)?(?P<anonymous>anon_[^_]+)|(?P<student>.+?)_(?P<late>LATE_)?(?P<id>\d+))"
                    r"_\d+_(?P<file>.+)$")
MOODLE = re.compile(r"^(?P<student>.+?(?:_\d+)?)_assignsubmission_(?P<plugin>[a-z]+)(?:_(?P<file>.*))?$")
COPY = re.compile(r"-\d+(?=\.[^.]+$)")  # Canvas calls the second upload of qk.cuh qk-1.cuh


def plain(path):
    return not path.is_symlink() and (path.is_dir() or path.is_file())


def entries(folder):
    return sorted(path for path in folder.iterdir()
                  if plain(path) and not path.name.startswith(".") and path.name != "__MACOSX")


def is_submission(folder, labs):
    """Whether this folder is one student's."""
    names = {path.name for path in entries(folder)}
    return bool(names & labs.keys()) or len(labs) == 1 and any(
        file in names for lab in labs.values() for file in lab.files)


def find_students(folder, labs, scratch):
    """The students below a folder, by name. `scratch` is for what has to be unpacked."""
    found = entries(folder)
    while len(found) == 1 and found[0].is_dir() and not is_submission(folder, labs) \
            and not is_submission(found[0], labs) and any(path.is_dir() for path in entries(found[0])):
        folder = found[0]  # an export that is wrapped in a folder of its own
        found = entries(folder)
    students = {}
    for path in found:
        moodle = MOODLE.match(path.name)
        canvas = CANVAS.match(path.name) if path.is_file() and not moodle else None
        if moodle and (moodle["plugin"] != "file" or path.is_file() and not moodle["file"]):
            continue  # a text that was typed in
        if canvas:
            name = canvas["anonymous"] or f"{canvas['student']}_{canvas['id']}"
        elif moodle:
            name = moodle["student"]
        elif path.is_dir():
            name = path.name
        elif path.suffix.lower() == ".zip":
            name = path.stem
        else:
            continue  # submission_metadata.yml and the like
        student = students.setdefault(name, Student(name))
        if canvas:
            student.late = bool(student.late or canvas["late"] or canvas["anonymous_late"])
        if path.is_dir():
            student.folders.append(path)
        else:
            own = scratch / f"{len(students)}_{len(student.folders)}"
            own.mkdir(parents=True)
            student.folders.append(own)
            handed_in = COPY.sub("", canvas["file"]) if canvas else moodle["file"] if moodle else path.name
            try:
                shutil.copyfile(path, own / pathlib.PurePath(handed_in).name)
            except OSError as failure:
                student.trouble = str(failure)
    for student in students.values():
        open_archives(student, scratch)
    return students


def open_archives(student, scratch):
    """Zip files in a submission, and those in them."""
    for depth in range(2):
        for folder in list(student.folders):
            for archive in sorted(folder.rglob("*.[zZ][iI][pP]")):
                if depth == 1 and scratch not in archive.parents or not plain(archive):
                    continue
                into = pathlib.Path(tempfile.mkdtemp(dir=scratch))
                try:
                    unpack(archive, into / archive.stem)
                    student.folders.append(into)
                    if scratch in archive.parents:
                        archive.unlink()  # or the next round would open it again
                except Unreadable as failure:
                    shutil.rmtree(into, ignore_errors=True)  # what came out of it before
                    student.trouble = student.trouble or str(failure)


def handed_in(student, lab, only_lab):
    """The files that a lab asks for: name → content. Raises Unreadable if they are not all there."""
    files, seen, loose = {}, [], ""
    for base in student.folders:
        for folder, folders, names in os.walk(base):
            folders.sort()
            inside = lab.id in pathlib.PurePath(folder).relative_to(base.parent).parts
            # Another lab's folder is not this lab's, even where their files have the same names.
            other = any(re.fullmatch(r"\d\d\.\d+", part) and part != lab.id
                        for part in pathlib.PurePath(folder).relative_to(base.parent).parts)
            # Nor is a chapter's own file anybody's work, and it may be the answer: who hands in a copy of
            # this repository, as on GitHub Classroom, has it in there.
            ours = not CHAPTERS.isdisjoint(pathlib.PurePath(folder).relative_to(base).parts)
            for name in sorted(names):
                path = pathlib.Path(folder, name)
                if other or not plain(path):
                    continue
                if not (inside or only_lab and not ours):
                    loose = loose or next((name for wanted in lab.files
                                           if pathlib.PurePath(wanted).name == name), "")
                    continue
                seen.append(name)
                for wanted in lab.files:
                    if pathlib.PurePath(wanted).name == name and (wanted not in files or inside):
                        if path.stat().st_size > FILE_BYTES:
                            raise Unreadable(f"{name} is larger than {FILE_BYTES >> 20} MiB")
                        files[wanted] = path.read_bytes()
    missing = [name for name in lab.files if name not in files]
    if not missing:
        for name, content in files.items():
            if not content.strip():
                raise Unreadable(f"{name} is empty")
        return files
    if student.trouble:
        raise Unreadable(student.trouble)
    if not seen:
        raise NothingHandedIn(f"nothing was handed in for lab {lab.id}"
                              + (f": {loose} is there, but in no folder named {lab.id}" if loose else ""))
    there = ", ".join(dict.fromkeys(seen[:8]))
    raise Unreadable(f"{missing[0]} is missing; handed in: {there}")


class NothingHandedIn(Unreadable):
    pass


# --------------------------------------------------------------------------------------------------
# What a person should look at. None of it changes a verdict.

SUSPECTS = {
    "opens files": r"\b(fopen|freopen|ofstream|ifstream|fstream|filesystem|mmap|openat?|creat)\b",
    "starts programs": r"\b(system|popen|exec[lv]p?e?|v?fork|posix_spawn|dlopen)\b",
    "assembly or system calls": r"\b(asm|__asm__|syscall)\b",
    "code before main": r"__attribute__|\[\[\s*gnu::|\binit_array\b|\bmain\s*\(",
    "changes other code": r"#\s*(define\s+(if|for|float|double|return|int|const|launch)\b|undef|pragma\s+GCC)",
}
MARKS = re.compile(r"^[ \t]*// \[/?(?:snippet|hole)\b[^\n]*\n", re.M)  # which starters lack
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"][^>"]*[>"])', re.M)


def worth_a_look(files, originals):
    """What a file has that our own does not."""
    notes = []
    for name, content in files.items():
        text, ours = content.decode(errors="replace"), originals.get(name, "")
        if ours and MARKS.sub("", text) == MARKS.sub("", ours):
            notes.append("the chapter's own file")
        notes += [what for what, pattern in SUSPECTS.items()
                  if re.search(pattern, text) and not re.search(pattern, ours)]
        new = [i for i in dict.fromkeys(INCLUDE.findall(text)) if i not in INCLUDE.findall(ours)]
        if new:
            notes.append("includes " + " ".join(new[:5]))
    return list(dict.fromkeys(notes))


# --------------------------------------------------------------------------------------------------
# Verdicts


def state_of_the_house(root):
    """A hash of all that a verdict depends on besides the submission."""
    digest = hashlib.sha256()
    for pattern in ("common/**/*", "[0-9][0-9]_*/**/*", "CMakeLists.txt"):
        for path in sorted(root.glob(pattern)):
            if path.is_file() and path.suffix not in (".md", ".json", ".pyc") or path.parent.name == "lab":
                if path.is_file() and "__pycache__" not in path.parts:
                    digest.update(path.relative_to(root).as_posix().encode() + b"\0")
                    digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def key_of(house, lab, seed, files):
    digest = hashlib.sha256(f"{house} {lab} {seed}".encode())
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    return digest.hexdigest()[:32]


def write_text(path, text):
    """All of it or nothing, also when somebody pulls the plug."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def refused(message):
    return {"passed": False, "score": 0.0, "seconds": 0.0,
            "checks": [{"name": "handed in", "passed": False, "message": message}]}


def reason(verdict):
    """One line: the first check that failed, without the emulator's report."""
    failed = [check for check in verdict["checks"] if not check["passed"]]
    if not failed:
        return "passed" if verdict["passed"] else "not passed"
    message = failed[0]["message"].partition("\nThe emulator says:")[0]
    return " ".join(f"{failed[0]['name']}: {message}".split())[:500]


class Grader:
    def __init__(self, labs, judge, out, seed=None, jobs=1, house=None, say=print):
        self.labs, self.judge, self.out, self.seed, self.jobs = labs, judge, out, seed, jobs
        self.house = house or state_of_the_house(ROOT)
        self.say = say

    def grade(self, students, only=None):
        """Rows in the order of names and labs. `only`: the labs asked for; else all anyone handed in."""
        rows, pending = [], {}  # pending: key → (lab, files, rows that wait for it)
        for name in sorted(students):
            for lab in self.labs.values():
                row = {"student": name, "lab": lab.id, "late": students[name].late, "look": [], "same_as": None}
                try:
                    files = handed_in(students[name], lab, only_lab=only is not None and len(only) == 1)
                except NothingHandedIn as failure:
                    row.update(refused(str(failure)), absent=True)
                    rows.append(row)
                    continue
                except Unreadable as failure:
                    row.update(refused(str(failure)))
                    rows.append(row)
                    continue
                row["look"] = worth_a_look(files, lab.originals)
                key = key_of(self.house, lab.id, self.seed, files)
                row["text"] = key
                waiting = pending.setdefault(key, (lab, files, []))[2]
                if waiting:
                    row["same_as"] = waiting[0]["student"]
                waiting.append(row)
                rows.append(row)
        if only is None:  # labs that nobody handed in are nobody's homework
            given = {row["lab"] for row in rows if not row.get("absent")}
            rows = [row for row in rows if row["lab"] in given]
        self.judge_all(pending)
        for row in rows:
            row["reason"] = row.get("reason") or reason(row)
        return rows

    def judge_all(self, pending):
        done, width = 0, len(str(len(pending)))

        def finish(key, verdict):
            nonlocal done
            done += 1
            lab, _, rows = pending[key]
            for row in rows:
                row.update({field: verdict[field] for field in ("passed", "score", "seconds", "checks")})
                row["walls"] = verdict.get("walls", {})
                if "grader_failed" in verdict:
                    row["grader_failed"] = verdict["grader_failed"]
            names = rows[0]["student"] + (f" and {len(rows) - 1} more" if len(rows) > 1 else "")
            what = "passed" if verdict["passed"] else reason(verdict)
            self.say(f"[{done:{width}}/{len(pending)}] {names}, lab {lab.id}: {what[:100]} "
                     f"({verdict['seconds']:.1f} s)")

        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            futures = {}
            try:
                for key, (lab, files, _) in pending.items():
                    known = self.out / "verdicts" / f"{key}.json"
                    try:
                        finish(key, json.loads(known.read_text(encoding="utf-8")))
                    except (OSError, ValueError, KeyError):
                        futures[pool.submit(self.judge_one, key, lab, files)] = key
                for future in concurrent.futures.as_completed(futures):
                    finish(futures[future], future.result())
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)  # what is running ends; the rest never starts
                raise

    def judge_one(self, key, lab, files):
        began = time.monotonic()
        folder = pathlib.Path(tempfile.mkdtemp(prefix="grade-"))
        folder.chmod(0o755)
        try:
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
            verdict = self.judge(lab.id, folder, seed=self.seed)
            verdict["score"] = min(1.0, max(0.0, float(verdict["score"])))
        except Exception as failure:  # ours, not the student's: not kept, and said
            verdict = refused(f"the grader itself failed: {failure!r}")
            verdict.update(seconds=time.monotonic() - began, grader_failed=repr(failure))
            return verdict
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        write_text(self.out / "verdicts" / f"{key}.json", json.dumps(verdict, indent=1))
        return verdict

    # ----------------------------------------------------------------------------------------------

    def report(self, rows):
        """Writes all files; returns the totals by student."""
        fields = ["student", "lab", "passed", "score", "late", "reason", "seconds", "same_as", "look"]
        yes_no = {True: "yes", False: "no", None: ""}
        lines = [{**{field: row.get(field) for field in fields}, "passed": yes_no[row["passed"]],
                  "late": yes_no[row["late"]], "seconds": f"{row['seconds']:.1f}", "look": "; ".join(row["look"])} for row in rows]
        self.out.mkdir(parents=True, exist_ok=True)
        with open(self.out / "grades.csv.part", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows({key: harmless(value) for key, value in line.items()} for line in lines)
        (self.out / "grades.csv.part").replace(self.out / "grades.csv")
        write_text(self.out / "grades.json", json.dumps(
            {"seed": self.seed, "house": self.house, "walls": walls(rows),
             "rows": [{key: value for key, value in row.items() if key != "text"} for row in rows]},
            indent=1, ensure_ascii=False))
        totals = {}
        for row in rows:
            totals.setdefault(row["student"], []).append(row)
        for index, (name, own) in enumerate(totals.items()):
            folder = self.out / "students" / safe_name(name, index)
            write_text(folder / "results.json", json.dumps(gradescope(own), indent=1, ensure_ascii=False))
            write_text(folder / "feedback.md", feedback(name, own, self.labs))
        return totals


def known_labs():
    """The labs by id, with what grading asks of them: the files to hand in, and our own of that name."""
    import starter  # in the same folder
    labs = {}
    for lab in starter.all_labs():
        ours, variant = ROOT / lab.chapter / lab.file, lab.kind == "variant"
        text = ours.read_text(encoding="utf-8") if ours.exists() else ""
        text += '#include "variant.hpp"\n' if variant else ""  # as in the starter
        labs[lab.id] = Lab(lab.id, lab.title, (lab.file,), {lab.file: text}, variant)
    return labs


def safe_name(name, index):
    clean = re.sub(r"[^\w .@+-]", "_", name)
    return clean if clean == name and clean not in (".", "..") else f"{clean.strip('.')}_{index}"


def harmless(value):
    """A spreadsheet takes a cell that begins so for a formula."""
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value


def walls(rows):
    """Which walls did not stand, and why: the same for all runs on one machine."""
    missing = {}
    for row in rows:
        for wall, state in row.get("walls", {}).items():
            if state != "stands":
                missing.setdefault(wall, state)
    return missing


def gradescope(rows):
    tests = [{"name": f"Lab {row['lab']}", "score": round(row["score"] * POINTS, 2), "max_score": POINTS,
              "status": "passed" if row["passed"] else "failed", "output": messages(row),
              "visibility": "visible"} for row in rows]
    return {"score": round(sum(test["score"] for test in tests), 2),
            "execution_time": round(sum(row["seconds"] for row in rows)),
            "visibility": "visible", "stdout_visibility": "hidden", "tests": tests}


def messages(row):
    return "\n".join(f"{'passed' if check['passed'] else 'FAILED'}  {check['name']}"
                     + (f": {check['message']}" if check["message"] else "") for check in row["checks"])


def feedback(name, rows, labs):
    text = [f"# {name}", ""]
    for row in rows:
        verdict = "passed" if row["passed"] else "not yet"
        text += [f"## Lab {row['lab']}, {labs[row['lab']].title}: {verdict} ({row['score']:.0%})", "", "```",
                 messages(row).replace("```", "'''"), "```", ""]
    return "\n".join(text)


def main(arguments, labs=None, judge=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="See the head of this file.")
    parser.add_argument("folder", help="of submissions, or a zip file of them")
    parser.add_argument("--lab", default="", help="as in 04.1 or 04.1,04.2; without: all that were handed in")
    parser.add_argument("--seed", type=int, help="of the variants")
    parser.add_argument("--single", action="store_true", help="the folder is one submission")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2),
                        help="submissions at a time (half as many as there are cores)")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "grades")
    parser.add_argument("--again", action="store_true", help="forget the verdicts of earlier runs")
    options = parser.parse_args(arguments)
    try:
        return run(options, labs, judge)
    except (Usage, Unreadable) as failure:
        print(failure, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. The verdicts reached so far are kept; the same command goes on.", file=sys.stderr)
        return 130


def run(options, labs, judge):
    if labs is None:
        sys.path.insert(0, str(pathlib.Path(__file__).parent))
        import judge as judging  # in the same folder
        labs, judge = known_labs(), judging.judge
    only = [lab for lab in re.split(r"[\s,]+", options.lab) if lab] or None
    for lab in only or []:
        if lab not in labs:
            raise Usage(f"There is no lab {lab}; there are: {', '.join(labs)}.")
    if only:
        labs = {lab: labs[lab] for lab in labs if lab in only}
    if not options.folder:
        raise Usage("Which submissions? Say make grade DIR=folder; docs/instructor.md shows how they may lie in it.")
    folder = pathlib.Path(options.folder).expanduser()
    if not folder.exists():
        raise Usage(f"There is no {folder}.")
    if options.again:
        shutil.rmtree(options.out / "verdicts", ignore_errors=True)

    with tempfile.TemporaryDirectory(prefix="grade-") as scratch:
        scratch = pathlib.Path(scratch).resolve()
        if folder.is_file():
            unpack(folder, scratch / "all", ALL_FILES, ALL_BYTES)
            folder = scratch / "all"
        folder = folder.resolve()
        (scratch / "unpacked").mkdir()
        alone = options.single or is_submission(folder, labs)
        if alone:
            student = Student(pathlib.Path(options.folder).resolve().name)
            student.folders.append(folder)
            open_archives(student, scratch / "unpacked")
            students = {student.name: student}
        else:
            students = find_students(folder, labs, scratch / "unpacked")
        if not students:
            raise Usage(f"{options.folder} holds no submissions: a folder or a zip file for each student.")
        grader = Grader(labs, judge, options.out, options.seed, max(1, options.jobs))
        rows = grader.grade(students, only)
    if not rows:
        raise Usage(f"Nobody in {options.folder} handed in a folder named like a lab ({', '.join(labs)}); where "
                    "the files lie there directly, say which lab they are for: LAB=04.1.")
    totals = grader.report(rows)
    print()
    for name, own in totals.items():
        marks = ", ".join(f"{row['lab']} {'passed' if row['passed'] else format(row['score'], '.0%')}"
                          for row in own)
        print(f"{name}{' (late)' if own[0]['late'] else ''}: {marks}")
    passed = sum(row["passed"] for row in rows)
    print(f"\n{passed} of {len(rows)} passed; {options.out}/grades.csv has the reasons.")
    variants = sorted({row["lab"] for row in rows if labs[row["lab"]].variant})
    if variants and options.seed is None:
        print(f"No SEED was given: {', '.join(variants)} asked what `make lab` asks without one. Students who were "
              "told a seed need the same here.")
    for wall, why in walls(rows).items():
        print(f"Contained without the wall \"{wall}\" (docs/instructor.md): {why}.")
    failed = [row for row in rows if "grader_failed" in row]
    for row in failed:
        print(f"No verdict on {row['student']}, lab {row['lab']}: {row['grader_failed']}", file=sys.stderr)
    if failed:
        return 2
    return 0 if not alone or passed == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
