#!/usr/bin/env python3
"""make lab [LAB=01.1] [HINT=1] [GPU=1]: the labs, and what the machine says of a student's attempt.

    lab.py                    lists the labs and where the student stands
    lab.py 01.1               makes the student's folder, or judges what stands in it
    lab.py 01.1 --hint        the next hint; --hint 2: the second
    lab.py 01.1 --watch       judges again whenever a file of the folder is saved
    lab.py 01.1 --reset       puts the old attempt aside and begins anew

Students' work is in student/, which git ignores; where they stand, in student/progress.json.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import judge as judging  # noqa: E402
import starter  # noqa: E402
import variants  # noqa: E402
from starter import ROOT, LabError  # noqa: E402

STUDENT = pathlib.Path(os.environ.get("AL_STUDENT", ROOT / "student"))
COLOURS = {"green": 32, "red": 31, "dim": 2, "bold": 1}


def coloured(text, colour):
    return f"\033[{COLOURS[colour]}m{text}\033[0m" if sys.stdout.isatty() else text


def shown(path):
    """A path as a person would type it."""
    path = pathlib.Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


# --------------------------------------------------------------------------------------------------
# Where the student stands


def read_progress():
    try:
        return json.loads((STUDENT / "progress.json").read_text())
    except (OSError, ValueError):
        return {}


def note(lab_id, **facts):
    progress = read_progress()
    progress.setdefault(lab_id, {}).update(facts)
    STUDENT.mkdir(exist_ok=True)
    fresh = STUDENT / ".progress.json"
    fresh.write_text(json.dumps(progress, indent=2) + "\n")
    fresh.replace(STUDENT / "progress.json")


def state(lab, progress):
    facts = progress.get(lab.id, {})
    if facts.get("passed"):
        return "passed"
    if facts.get("tries"):
        return f"tried, {100 * facts.get('best', 0):.0f} %"
    return "begun" if (STUDENT / lab.id / lab.file).exists() else "not begun"


def list_labs():
    progress = read_progress()
    labs = starter.all_labs()
    chapter = None
    for lab in labs:
        if lab.chapter != chapter:
            chapter = lab.chapter
            print(f"\n{coloured(chapter, 'bold')}")
        now = state(lab, progress)
        colour = "green" if now == "passed" else "dim" if now == "not begun" else "bold"
        print(f"  {lab.id}  {lab.title:<48} {lab.kind:<8} {lab.minutes:>3} min  "
              f"{coloured(now, colour)}")
    passed = sum(state(lab, progress) == "passed" for lab in labs)
    print(f"\n{passed} of {len(labs)} passed. {what_next()}")


def what_next(after=None):
    """The first lab that is not passed; of those after lab `after`, where there is one."""
    progress = read_progress()
    still = [lab for lab in starter.all_labs() if state(lab, progress) != "passed"]
    if not still:
        return "There is none left."
    lab = next((lab for lab in still if after and lab.id > after.id), still[0])
    return f"Begin or go on: make lab LAB={lab.id}"


# --------------------------------------------------------------------------------------------------
# One lab


def begin(lab, seed):
    """True when the student has a file to be judged; False when it has just been made."""
    folder = STUDENT / lab.id
    variant = variants.Variant(lab, seed) if lab.kind == "variant" else None
    if not starter.write_starter(lab, folder, variant):
        return True
    print(f"{coloured(f'Lab {lab.id} · {lab.title}', 'bold')}  ({lab.kind}, about {lab.minutes} minutes)\n")
    print(f"Edit       {shown(folder / lab.file)}")
    print(f"Question   {shown(folder / 'README.md')}")
    print(f"Then       make lab LAB={lab.id}        or make lab-watch LAB={lab.id}")
    print(f"Stuck?     make lab LAB={lab.id} HINT=1\n")
    if variant:
        print(f"Seed       {variant.seed}.{starter.WITHOUT_INSTRUCTOR}\n")
    text = lab.section("Question") + "\n\n" + lab.section("Predict first")
    print(text.replace("<!-- variant -->", variant.question.strip()) if variant else text)
    return False


def whole_number(text, name, example):
    if not text.isdecimal():
        raise LabError(f"{name} is a whole number, as in {name}={example}; '{text}' is none.")
    return int(text)


def seed_of(lab, asked):
    """The seed of a variant: the one given now, or before, or one for practice."""
    if asked is not None:
        asked = whole_number(asked, "SEED", "7")
    if lab.kind != "variant":
        return asked
    known = read_progress().get(lab.id, {}).get("seed")
    if asked is None:
        return judging.PRACTICE if known is None else known
    if known is not None and known != asked and (STUDENT / lab.id / lab.file).exists():
        print(f"This lab was begun with seed {known}; from now on it is {asked}, and asks for something else.\n")
    note(lab.id, seed=asked)
    return asked


def give_hint(lab, asked):
    """Hint number `asked` and those before it; 1 is the next one."""
    given, hints = read_progress().get(lab.id, {}).get("hints", 0), lab.hints
    last = min(given + 1 if asked == 1 else asked, len(hints))
    for number, hint in enumerate(hints[:last], 1):
        print(f"{coloured(f'Hint {number} of {len(hints)}', 'bold')}\n\n{hint.strip()}\n")
    note(lab.id, hints=max(given, last))
    if last == len(hints):
        print("That was the last one. The chapter tells the rest: "
              f"{lab.chapter}/README.md, and {lab.chapter}/{lab.file} is a solution.")


def report(lab, verdict):
    """The checks up to the first that failed: first things first."""
    print()
    checks = verdict["checks"]
    for number, check in enumerate(checks):
        sign = coloured("✓", "green") if check["passed"] else coloured("✗", "red")
        lines = check["message"].splitlines() or [""]
        time_on_gpu = f"  {check['ms']:.4g} ms" if "ms" in check else ""
        print(f"{sign} {check['name']}: {lines[0]}{time_on_gpu}")
        for line in lines[1:]:
            print(f"    {line}")
        if not check["passed"]:
            others = sum(not c["passed"] for c in checks[number + 1:])
            if others:
                print(coloured(f"    ({others} more failed: first things first)", "dim"))
            break
    print()
    seconds = f"({verdict['seconds']:.1f} s)"
    if verdict["passed"]:
        print(coloured(f"Passed. Lab {lab.id} is done.", "green"), seconds)
        if lab.kind != "variant" and "answer" in lab.facts:
            print(f"\nBeside what you predicted: {lab.facts['answer'].rstrip('.')}.")
    else:
        half = "limits" in lab.facts and verdict["score"] < 0.5
        print(coloured(f"Not yet: {100 * verdict['score']:.0f} %.", "red"), seconds,
              *(["What is counted gives the other half, once all is right."] if half else []),
              f"A hint: make lab LAB={lab.id} HINT=1")


def attempt(lab, seed, gpu):
    print(coloured(f"Lab {lab.id} · {lab.title}", "bold")
          + f": compiling {shown(STUDENT / lab.id / lab.file)} and running it "
          + ("on the GPU" if gpu else "in the emulator"), flush=True)
    verdict = judging.judge(lab.id, STUDENT / lab.id, seed=seed, gpu=gpu)
    report(lab, verdict)
    facts = read_progress().get(lab.id, {})
    note(lab.id, tries=facts.get("tries", 0) + 1, score=verdict["score"],
         best=max(facts.get("best", 0), verdict["score"]),
         passed=facts.get("passed", False) or verdict["passed"],
         last=datetime.datetime.now().isoformat(timespec="seconds"))
    if verdict["passed"]:
        print(f"\n{what_next(lab)}")
    return verdict["passed"]


def saved(folder):
    """When anything in the folder was last changed. An editor may be between two names of a file."""
    times = []
    for path in folder.iterdir():
        try:
            times.append((path.name, path.stat().st_mtime_ns))
        except OSError:
            pass
    return sorted(times)


def watch(lab, seed, gpu):
    folder = STUDENT / lab.id
    while True:
        before = saved(folder)
        attempt(lab, seed, gpu)
        print(coloured(f"Waiting for {shown(folder)} to be saved; Ctrl-C ends it.", "dim"), flush=True)
        while saved(folder) == before:
            time.sleep(0.2)
        time.sleep(0.1)  # an editor writes in several steps
        print()


def reset(lab):
    folder = STUDENT / lab.id
    if not folder.exists():
        return
    old = STUDENT / "old" / f"{lab.id}_{datetime.datetime.now():%Y%m%d_%H%M%S}"
    old.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, old)
    print(f"What was in {shown(folder)} is in {shown(old)} now.\n")


def main():
    parser = argparse.ArgumentParser(prog="lab.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lab", nargs="?", metavar="LAB", help="as in 01.1; without: the list")
    parser.add_argument("--hint", nargs="?", const="1", metavar="N")
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("--reset", action="store_true")
    parser.add_argument("--gpu", action="store_true", help="run on the GPU, not in the emulator")
    parser.add_argument("--seed", help="of a variant: what the instructor gave")
    asked = parser.parse_args()
    try:
        if not asked.lab:
            list_labs()
            return 0
        lab = starter.find_lab(asked.lab)
        if asked.hint:
            give_hint(lab, whole_number(asked.hint, "HINT", "1"))
            return 0
        if asked.reset:
            reset(lab)
        seed = seed_of(lab, asked.seed)
        if not begin(lab, seed) and not asked.watch:
            return 0
        if asked.watch:
            watch(lab, seed, asked.gpu)
        return 0 if attempt(lab, seed, asked.gpu) else 1
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
        return 0


if __name__ == "__main__":
    sys.exit(main())
