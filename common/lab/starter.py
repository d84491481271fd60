"""The labs as their Markdown files tell them, and the starters made from the chapters' own files.

A lab is NN_chapter/lab/<n>_<name>.md; what stands in it is told in README.md beside this file. A
starter is a copy of the chapter's file with a few changes, so it cannot drift from the chapter: when
a change no longer fits, that is an error, and a test finds it.
"""

import dataclasses
import pathlib
import re
import textwrap
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ("fill", "broken", "faster", "variant")
SECTIONS = ("Question", "Predict first", "Do", "Check", "Hints")
MARKER = re.compile(r"^\s*// \[(/?)(hole|snippet)(?: (\w+))?\]\n", re.MULTILINE)


class LabError(Exception):
    """What is wrong, as one sentence for whoever wrote or asked."""


@dataclasses.dataclass(frozen=True)
class Lab:
    id: str  # "01.2"
    chapter: str  # "01_naive_qk"
    path: pathlib.Path
    facts: dict  # the front matter: a comment, so that no page shows the answer
    text: str  # the Markdown below it

    @property
    def title(self):
        return self.facts["title"]

    @property
    def kind(self):
        return self.facts["kind"]

    @property
    def file(self):
        """The chapter's file that the student edits: "qk.cuh"."""
        return self.facts["file"]

    @property
    def files(self):
        """What is handed in, by its names in the student's folder."""
        return [self.file]

    @property
    def minutes(self):
        return self.facts["minutes"]

    @property
    def hints(self):
        return re.findall(r"^### Hint \d+\n+(.*?)(?=^##|\Z)", self.text, re.MULTILINE | re.DOTALL)

    def section(self, name):
        found = re.search(rf"^## {name}\n+(.*?)(?=^## |\Z)", self.text, re.MULTILINE | re.DOTALL)
        return found[1].strip() if found else ""


def read_lab(path):
    path = pathlib.Path(path)
    where = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    before, comment, page = path.read_text(encoding="utf-8").partition("<!--\n")
    front, end, text = page.partition("-->\n")
    if before or not comment or not end:
        raise LabError(f"{where} does not begin with facts between <!-- and -->, each in its line")
    try:
        facts = tomllib.loads(front)
    except tomllib.TOMLDecodeError as wrong:
        raise LabError(f"{where}: the facts are no TOML: {wrong}") from wrong
    chapter = path.parents[1].name
    number = path.name.split("_")[0]
    lab = Lab(f"{chapter[:2]}.{number}", chapter, path, facts, text)
    for key in ("title", "kind", "file", "minutes", "launch", "problem"):
        if key not in facts:
            raise LabError(f"{where} does not say {key}")
    if lab.kind not in KINDS:
        raise LabError(f"{where}: kind '{lab.kind}' is none of {', '.join(KINDS)}")
    if lab.kind == "variant" and not facts.get("variant", {}).get("of"):
        raise LabError(f"{where} does not say what the seed chooses: [variant] of = […]")
    if lab.kind != "variant" and not facts.get("change"):
        raise LabError(f"{where} changes nothing")
    for name in SECTIONS:
        if not lab.section(name):
            raise LabError(f"{where} has no section '## {name}'")
    if not lab.hints:
        raise LabError(f"{where} has no '### Hint 1'")
    return lab


def all_labs(root=ROOT):
    return [read_lab(path) for path in sorted(root.glob("[0-9][0-9]_*/lab/[0-9]*_*.md"))]


def find_lab(lab_id):
    labs = all_labs()
    for lab in labs:
        if lab.id == lab_id:
            return lab
    asked = re.fullmatch(r"(\d+)(?:\.(\d+))?", lab_id)
    chapter = asked[1].zfill(2) if asked else ""
    near = [lab.id for lab in labs if lab.id.split(".")[0] == chapter]
    if asked and f"{chapter}.{asked[2]}" in near:
        raise LabError(f"There is no lab {lab_id}. Did you mean {chapter}.{asked[2]}?")
    if near:
        raise LabError(f"There is no lab {lab_id}. Those of chapter {chapter} are {', '.join(near)}.")
    raise LabError(f"There is no lab {lab_id}. 'make lab' lists those that there are.")


# --------------------------------------------------------------------------------------------------
# Starters


def indented_like(text, model):
    """`text` without its own indentation, with that of the first line of `model` that has one."""
    indent = next((line[:len(line) - len(line.lstrip())] for line in model.splitlines()
                   if line.strip()), "")
    return textwrap.indent(textwrap.dedent(text).strip("\n"), indent) + "\n"


def change_region(source, name, text, where):
    region = re.compile(rf"^[ \t]*// \[hole {name}\]\n(.*?)^[ \t]*// \[/hole\]\n",
                        re.MULTILINE | re.DOTALL)
    found = region.findall(source)
    if len(found) != 1:
        raise LabError(f"{where} has {len(found)} regions '// [hole {name}]' … '// [/hole]', not one")
    return region.sub(lambda match: indented_like(text, match[1]), source)


def change_text(source, old, new, where):
    old, new = old.strip("\n"), new.rstrip("\n")
    if source.count(old) != 1:
        raise LabError(f"{where} has this {source.count(old)} times, not once:\n{old}")
    return source.replace(old, new)


def chapter_file(lab):
    """The chapter's own file, without the comments that only weave.py and this program need."""
    return MARKER.sub("", (ROOT / lab.chapter / lab.file).read_text(encoding="utf-8"))


def starter(lab):
    """The text of the file that the student begins with."""
    where = f"{lab.chapter}/{lab.file}"
    source = (ROOT / lab.chapter / lab.file).read_text(encoding="utf-8")
    for change in lab.facts.get("change", []):
        if "region" in change:
            source = change_region(source, change["region"], change["text"], where)
    source = MARKER.sub("", source)
    for change in lab.facts.get("change", []):
        if "from" in change:
            source = change_text(source, change["from"], change["to"], where)
    if lab.kind == "variant":
        source = change_text(source, "#pragma once\n", '#pragma once\n\n#include "variant.hpp"\n', where)
    return source


WITHOUT_INSTRUCTOR = " Without an instructor, any number will do as SEED, or none."


def question(lab, variant=None):
    """What the student reads: the lab's page without the hints, which come one at a time; of a
    variant, with what the seed chose."""
    text = re.sub(r"^## Hints\n.*?(?=^## |\Z)", "", lab.text, flags=re.MULTILINE | re.DOTALL)
    if variant:
        text = text.replace("<!-- variant -->", variant.question.strip())
    # A student's folder is as deep as the lab's, but another one.
    text = re.sub(r"\]\(\.\./(?!\.\./)", f"](../../{lab.chapter}/", text)
    return (f"# Lab {lab.id} · {lab.title}\n\n"
            f"*Edit `{lab.file}` in this folder, then `make lab LAB={lab.id}`; a hint: "
            f"`make lab LAB={lab.id} HINT=1`. About {lab.minutes} minutes."
            f"{WITHOUT_INSTRUCTOR if variant else ''}*\n{text.rstrip()}\n")


def write_starter(lab, folder, variant=None):
    """Makes the student's folder where it is missing. A file to edit that is there stays as it is;
    the question is always the newest. Returns whether it wrote the file to edit."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(question(lab, variant), encoding="utf-8")
    if variant:
        (folder / "variant.hpp").write_text(variant.header, encoding="utf-8")
    if (folder / lab.file).exists():
        return False
    (folder / lab.file).write_text(starter(lab), encoding="utf-8")
    return True
