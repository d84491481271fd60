"""One lab as CI tries it: python3 common/tests/lab_test.py 01.1

The starter compiles, fails, and says the phrase that the lab promises; the chapter's own file in its
place passes. A variant's starter fails with seeds that ask for each of its features, and a plain
serial kernel is right.
"""

import dataclasses
import pathlib
import sys
import tempfile
import unittest.mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "common" / "lab"))
import judge  # noqa: E402
import starter  # noqa: E402
import variants  # noqa: E402


def said(verdict):
    return "\n".join(f"{check['name']}: {check['message']}" for check in verdict["checks"])


def is_judged(verdict):
    """And both the program and the judge came to an end: a starter is wrong in what it computes."""
    return not any(check["name"] in ("file", "compiles", "result") for check in verdict["checks"])


def try_lab(lab, folder, wrong):
    starter.write_starter(lab, folder)
    verdict = judge.judge(lab.id, folder)
    print(f"--- the starter of {lab.id}: {verdict['seconds']:.1f} s\n{said(verdict)}")
    if verdict["passed"]:
        wrong.append("the starter passes")
    if not is_judged(verdict):
        wrong.append("the starter does not compile, or has no verdict")
    if lab.facts.get("says", "") not in said(verdict) or not lab.facts.get("says"):
        wrong.append(f"the starter's check does not say '{lab.facts.get('says')}'")
    (folder / lab.file).write_text(starter.chapter_file(lab), encoding="utf-8")
    verdict = judge.judge(lab.id, folder)
    print(f"--- the chapter's {lab.file}: {verdict['seconds']:.1f} s\n{said(verdict)}")
    if not verdict["passed"] or verdict["score"] != 1:
        wrong.append(f"the chapter's {lab.file} does not pass")


def serial(lab, variant):
    """The chapter's file, and behind it a serial kernel with the rules; the lab that calls it."""
    rules = {"causal": 0, "window": 0, "chunk": 0, "prefix": 0, "soft_cap": 0.0, "alibi": 0.0, "distance": 0, "half_life": 0.0,
             "sink": "-INFINITY", "k_transposed": 0, "v_transposed": 0} | variant.rules | variant.case
    numbers = {name: f"{value}f" if isinstance(value, float) else value if isinstance(value, str) else int(value)
               for name, value in rules.items()}
    defines = "".join(f"#define AL_RULE_{name.upper()} {number}\n" for name, number in numbers.items())
    calling = dataclasses.replace(lab, facts=lab.facts | {"launch": "al::serial::launch_serial"})
    return (f'{starter.chapter_file(lab)}\n{defines}#include "common/tests/lab_serial.cuh"\n', calling)


def try_variant(lab, folder, wrong):
    wanted, seed = {name for choice in lab.facts["variant"]["of"] for name in choice.split("+")}, 0
    while wanted:
        seed += 1
        variant = variants.Variant(lab, seed)
        if not wanted & set(variant.features):
            continue
        wanted -= set(variant.features)
        (folder / lab.file).unlink(missing_ok=True)
        starter.write_starter(lab, folder, variant)
        verdict = judge.judge(lab.id, folder, seed=seed)
        print(f"--- {lab.id}, seed {seed}, {', '.join(variant.features)}: {verdict['seconds']:.1f} s\n{said(verdict)}")
        if verdict["passed"]:
            wrong.append(f"the starter passes with seed {seed}")
        if not is_judged(verdict):
            wrong.append(f"the starter does not compile, or has no verdict, with seed {seed}")
        text, calling = serial(lab, variant)
        (folder / lab.file).write_text(text, encoding="utf-8")
        with unittest.mock.patch.object(starter, "find_lab", lambda _: calling):
            verdict = judge.judge(lab.id, folder, seed=seed)
        print(f"--- a serial kernel: {verdict['seconds']:.1f} s\n{said(verdict)}")
        if any(not check["passed"] for check in verdict["checks"] if not check["name"].startswith("at most")):
            wrong.append(f"a serial kernel is not right with seed {seed}")
        if verdict["passed"]:
            wrong.append("a serial kernel passes: the lab needs [limits]")


def main(lab_id):
    lab, wrong = starter.find_lab(lab_id), []
    with tempfile.TemporaryDirectory() as folder:
        (try_variant if lab.kind == "variant" else try_lab)(lab, pathlib.Path(folder), wrong)
    for line in wrong:
        print(f"{lab_id}: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
