#!/usr/bin/env python3
"""Makes the site from the repository's own Markdown.

    python3 docs/site/build_site.py [--root DIR] [--out build/site] [--programs build/emulator/bin]

The Markdown is the one that GitHub shows: chapter READMEs, docs/, labs. This program copies it
beside OUT (OUT-pages), where it

  * makes a page of every file that a page links to, so that a link to a kernel's source stays on
    the site, and a list of every folder;
  * leaves out what only other programs read (weave's markers), folds the hints of labs, and sets
    lists in the way Python-Markdown wants them;
  * writes the table of contents.

mkdocs (see mkdocs.yml) does the rest. A link that leads nowhere is an error.
"""

import argparse
import concurrent.futures
import importlib.util
import json
import os
import pathlib
import posixpath
import re
import shutil
import subprocess
import sys
import tomllib

import steps

HERE = pathlib.Path(__file__).parent
SKIPPED_FOLDERS = re.compile(r"^(\..*|build.*|student|__pycache__)$")
LINK = re.compile(r"(?<=\]\()([^()\s]+)(?=\))")
PICTURE = re.compile(r"^!\[[^\]]*\]\(([^()\s]*pictures/[^()\s]+\.svg)\)$", re.MULTILINE)
CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
LANGUAGES = {".cu": "cuda", ".cuh": "cuda", ".cpp": "cpp", ".hpp": "cpp", ".h": "c", ".c": "c", ".inc": "cpp",
             ".py": "python", ".cmake": "cmake", ".sh": "bash", ".yml": "yaml", ".toml": "toml"}
AS_THEY_ARE = {".json", ".svg", ".png", ".npy", ".csv"}  # copied, and opened by the browser


class SiteError(Exception):
    """The text is one sentence."""


# --------------------------------------------------------------------------------------------------
# Markdown as GitHub reads it → as Python-Markdown reads it


def parts_of(text):
    """(is it a fenced block, its lines), one after the other."""
    inside, lines = None, []
    for line in text.split("\n"):
        fence = re.match(r"\s*(`{3,}|~{3,})", line)
        if inside is None and fence:
            if lines:
                yield False, lines
            inside, lines = fence[1], [line]
        elif inside and fence and line.strip() == inside[0] * len(line.strip()) and len(fence[1]) >= len(inside):
            yield True, [*lines, line]
            inside, lines = None, []
        else:
            lines.append(line)
    if lines:
        yield inside is not None, lines


ITEM = re.compile(r"( *)([*+-]|\d+\.)( +)(?=\S)")


def relist(text):
    """A list may follow a paragraph at once, and what belongs to an item stands 4 columns to the
    right of it, where GitHub wants it under the item's text."""
    result, stack, before = [], [], ""  # stack: (column of an open item's text, is it numbered)
    for fenced, lines in parts_of(text):
        for number, line in enumerate(lines):
            indent = len(line) - len(line.lstrip(" "))
            item = None if fenced else ITEM.match(line)
            if item and before.strip() and item[2][0].isdigit() and item[2] != "1.":
                # Only a numbered list goes on with such a number, else a line of text begins with it.
                siblings = [numbered for column, numbered in stack if indent < column]
                if not (siblings and siblings[0]):
                    line, item = line.replace(".", "\\.", 1), None
            if line.strip() and (not before.strip() or item or (fenced and number == 0)):
                while stack and indent < stack[-1][0]:
                    stack.pop()
            if item and before.strip() and not stack and not ITEM.match(before) and not before.startswith("  "):
                result.append("")
            inner = line.strip() and stack and indent >= stack[-1][0]
            result.append(" " * (4 * len(stack) + indent - stack[-1][0]) + line.lstrip(" ") if inner else line)
            if item:
                stack.append((len(item[0]), item[2][0].isdigit()))
            before = line
    return "\n".join(result)


def outside_code(text, change):
    """The text with change() applied to what is no code."""
    result = []
    for fenced, lines in parts_of(text):
        part = "\n".join(lines)
        if not fenced:
            pieces, end = [], 0
            for span in CODE_SPAN.finditer(part):
                pieces += [change(part[end:span.start()]), span[0]]
                end = span.end()
            part = "".join(pieces) + change(part[end:])
        result.append(part)
    return "\n".join(result)


def without_comments(text):
    return re.sub(r"^<!--.*?-->\n?", "", text, flags=re.DOTALL | re.MULTILINE)


def title_of(text):
    """The first heading, as plain text."""
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return re.sub(r"[`*]", "", found[1]) if found else ""


# --------------------------------------------------------------------------------------------------
# Labs: TOML in a comment, then Markdown


def lab_page(path, text):
    front, _, body = text.partition("-->\n")
    about = tomllib.loads(front.removeprefix("<!--\n"))
    chapter, number = path.parts[0][:2], path.stem.split("_")[0]
    facts = [f"about {about['minutes']} minutes"] if "minutes" in about else []
    if "file" in about:
        facts.append(f"[{about['file']}](../{about['file']})")
    facts.append(f"`make lab LAB={chapter}.{number}`")
    body = re.sub(r"^### (Hint \d+)\s*\n(.*?)(?=^### |^## |\Z)",
                  lambda hint: f"<details markdown=\"1\"><summary>{hint[1]}</summary>\n\n{hint[2].strip()}\n\n</details>\n\n",
                  body, flags=re.DOTALL | re.MULTILINE)
    return f"# Lab {chapter}.{number} · {about['title']}\n\n{' · '.join(facts)}\n\n{body}"


# --------------------------------------------------------------------------------------------------
# The pages


class Site:
    def __init__(self, root, pages):
        self.root, self.pages, self.made = root, pages, set()

    def write(self, path, text):
        target = self.pages / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def add_markdown(self, path):
        """path: of a Markdown file, from the root."""
        text = (self.root / path).read_text()
        if text.startswith("<!--\n"):
            text = lab_page(path, text)
        text = outside_code(without_comments(text), lambda part: PICTURE.sub(lambda image: self.drawn(path, image), part))
        text = outside_code(text, lambda part: LINK.sub(lambda link: self.link(path, link[1]), part))
        self.write(path, relist(text))
        return title_of(text)

    def drawn(self, page, image):
        """The picture itself in place of a link to it: then it follows the page's light and dark."""
        svg = (self.root / page.parent / image[1]).resolve().read_text()
        return f'<div class="picture">{" ".join(svg.split())}</div>'

    def link(self, page, target):
        """The link as it is on the site; what it leads to is put there."""
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            return target
        name, _, anchor = target.partition("#")
        path = pathlib.PurePosixPath(posixpath.normpath(posixpath.join(page.parent.as_posix(), name)))
        here = self.root / path
        if path.parts[:1] == ("..",) or not here.exists():
            raise SiteError(f"{page}: the link {target} leads nowhere")
        place = self.place_of(path)
        return posixpath.relpath(place, page.parent.as_posix()) + ("#" + line_anchor(anchor) if anchor else "")

    def place_of(self, path):
        here = self.root / path
        if here.is_dir():
            if (here / "README.md").exists():
                return (path / "README.md").as_posix()
            place, make = path / "index.md", self.folder_page
        elif here.suffix == ".md":
            return path.as_posix()
        elif here.suffix in AS_THEY_ARE:
            place, make = path, self.copy
        else:
            visible = pathlib.PurePosixPath(*(part.lstrip(".") for part in path.parts))  # or mkdocs skips it
            place, make = visible.with_name(visible.name + ".md"), self.source_page
        if place not in self.made:
            self.made.add(place)
            make(path, place)
        return place.as_posix()

    def copy(self, path, place):
        (self.pages / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.root / path, self.pages / place)

    def source_page(self, path, place):
        text = (self.root / path).read_text()
        language = LANGUAGES.get(path.suffix, "cmake" if path.name == "CMakeLists.txt" else "text")
        fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
        self.write(place, f"---\nsearch: {{exclude: true}}\nhide: [toc]\n---\n# {path.name}\n\n`{path}`\n\n"
                          f"{fence} {{.{language} linenums=1}}\n{text.rstrip()}\n{fence}\n")

    def folder_page(self, path, place):
        files = sorted(entry for entry in (self.root / path).iterdir() if not SKIPPED_FOLDERS.match(entry.name))
        lines = [f"* [{entry.name}]({posixpath.relpath(self.place_of(path / entry.name), path.as_posix())})"
                 for entry in files]
        self.write(place, f"---\nsearch: {{exclude: true}}\n---\n# {path}\n\n" + "\n".join(lines) + "\n")


def line_anchor(anchor):
    """#L12, as on GitHub, is a line of a source page."""
    return re.sub(r"^L(\d+)(-L\d+)?$", r"__codelineno-0-\1", anchor)


def markdown_files(root):
    """Every page of the repository."""
    for path in sorted(root.rglob("*.md")):
        relative = path.relative_to(root)
        if not any(SKIPPED_FOLDERS.match(part) for part in relative.parts):
            yield pathlib.PurePosixPath(relative)


def table_of_contents(titles, step_pages):
    """`titles` by path: the front page, the chapters with what belongs to them, and the rest."""
    rest = dict(titles)
    contents = [{"The ladder": "README.md"}] if rest.pop("README.md", None) else []
    for readme in sorted(path for path in titles if re.match(r"\d\d_[^/]*/README\.md$", path)):
        folder = readme.split("/")[0]
        own = [readme]
        rest.pop(readme)
        if folder in step_pages:
            own.append({"Step through the kernels": step_pages[folder]})
        own += [{rest.pop(path): path} for path in sorted(rest) if path.startswith(folder + "/")]
        contents.append({folder: own})
    if "docs/instructor.md" in rest:
        contents.append({"For instructors": "docs/instructor.md"})
        del rest["docs/instructor.md"]
    contents.append({"Reference": [{title: path} for path, title in sorted(rest.items())]})
    return contents


def add_steps(site, programs):
    """A page for each chapter whose program is there; {chapter: page}."""
    stages = [stage for stage in steps.RUNS if programs and (programs / stage).exists()]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        recorded = list(pool.map(lambda stage: steps.record(programs, stage), stages))
    pages = {}
    for stage, kernels in zip(stages, recorded):
        text, sources = steps.page(site, stage, kernels)
        for file in sources:
            site.place_of(pathlib.PurePosixPath(file))
        site.write(f"{stage}/step.md", "---\nsearch: {exclude: true}\n---\n" + text)
        pages[stage] = f"{stage}/step.md"
    return pages


def add_doors(site, chapter, doors):
    """Under a chapter's title: what else there is of it."""
    path = site.pages / chapter / "README.md"
    title, _, rest = path.read_text().partition("\n")
    path.write_text(f"{title}\n\n{' · '.join(doors)}\n{{: .doors }}\n{rest}")


def make_pages(root, pages, programs):
    shutil.rmtree(pages, ignore_errors=True)
    site = Site(root, pages)
    titles = {path.as_posix(): site.add_markdown(path) for path in markdown_files(root)}
    step_pages = add_steps(site, programs)
    for chapter in sorted({path.split("/")[0] for path in titles if re.match(r"\d\d_.*/README\.md", path)}):
        labs = [path for path in sorted(titles) if path.startswith(f"{chapter}/lab/")]
        doors = ["[step through the kernels](step.md)"] if chapter in step_pages else []
        doors += [f"[{titles[lab].split(' · ')[0].lower()}](lab/{posixpath.basename(lab)})" for lab in labs]
        if doors:
            add_doors(site, chapter, doors)
    for name in ("site.css", "site.js"):
        site.write(f"assets/{name}", (HERE / name).read_text())
    return table_of_contents(titles, step_pages)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, default=HERE.parents[1], help="the repository")
    parser.add_argument("--out", type=pathlib.Path, default=None, help="where the site goes")
    parser.add_argument("--programs", type=pathlib.Path, default=None,
                        help="the folder of the emulator's programs, which record what their kernels do")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("material") is None or importlib.util.find_spec("latex2mathml") is None:
        print("SKIP: there is no mkdocs-material in this Python; `make site` installs it.")
        return 77
    root = options.root.resolve()
    out = (options.out or root / "build" / "site").resolve()
    pages = out.with_name(out.name + "-pages")
    try:
        contents = make_pages(root, pages, options.programs)
    except (SiteError, steps.TraceError) as failure:
        print(f"build_site.py: {failure}.", file=sys.stderr)
        return 1
    config = out.with_name(out.name + ".yml")  # JSON is YAML
    config.write_text(json.dumps({"INHERIT": str(HERE / "mkdocs.yml"), "docs_dir": str(pages), "site_dir": str(out),
                                  "hooks": [str(HERE / "hooks.py")], "nav": contents}, indent=1))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", str(config)]
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # an advertisement
    return subprocess.run(command, env={**os.environ, **quiet}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
