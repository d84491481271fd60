#!/usr/bin/env python3
"""Writes what the Markdown files quote, tables and code, from where it really comes from.

    python3 docs/weave.py [--check] [--root DIR]

A pair of comments in a Markdown file says what stands between them:

    <!-- weave: snippet file=01_naive_qk/qk.cuh name=coalesced -->
    <!-- /weave -->

        The lines of that file between "// [snippet coalesced]" and "// [/snippet]", without
        the marks of labs, "// [hole NAME]" and "// [/hole]".

    <!-- weave: diff from=04_fused_v1/fused.cuh to=05_epilogue_norm_v2/fused.cuh name=epilogue -->
    <!-- /weave -->

        How the snippet of that name in one file differs from that in the other: - old, + new.

    <!-- weave: table results=docs/results/h200/01_naive_qk.json config=hdim64_seq4k
         dtype=fp32 mask=full columns=variant,ms,prior,tflops,limit -->
    <!-- /weave -->

        One row for each row of that results file with this config, dtype and mask (full or
        causal). Several may be named, as in config=tiny,hdim64_seq4k; then a column says which.
        operation= picks the rows that compute it, as in operation=softmax; without, all do.
        Where problems differ in how K and V are stored, a column says how.
        columns= may be left out; variants=a,b shows those alone.

    <!-- weave: ladder gpu=h200 config=hdim64_seq4k dtype=fp16,fp32 mask=causal,full -->
    <!-- /weave -->

        One row for each chapter that has docs/results/GPU/CHAPTER.json: its title and its idea from
        its README, and its fastest kernel (or that of SHIPPED, below), with the first of the configs,
        dtypes and masks that it was measured with; where its kernels compute different things, of
        those that do most.

    <!-- weave: gpus config=hdim64_seq4k,decode_64k dtype=fp16,fp32 mask=causal,full -->
    <!-- /weave -->

        The same numbers for several configs, and a column for each folder docs/results/GPU.

    <!-- weave: heat_map results=docs/results/h200/01_naive_qk_tiles.json config=hdim64_seq4k
         dtype=fp32 mask=full -->
    <!-- /weave -->

        The times of a sweep over tiles, whose variants are called BLOCK_MxBLOCK_NxTHREADS;
        with kernel=a only of those whose name begins with a, without empty rows and columns.

    <!-- weave: labs chapter=01_naive_qk -->
    <!-- /weave -->

        The labs of a chapter, from the facts at the top of their pages; without chapter=, of all, and
        columns= picks of kind, minutes, teaches and answer.

Without --check the files are rewritten. With it they are left alone, and every difference, missing
file or unknown name is one line; the exit code is 1 when there is any. Markers inside ``` fences
are text like any other.
"""

import argparse
import difflib
import json
import math
import os
import pathlib
import re
import sys
import textwrap
import tomllib

OPEN = re.compile(r"^<!-- weave: (.*?) -->$", re.DOTALL)
CLOSE = "<!-- /weave -->"
SNIPPET = re.compile(r"^\s*(?://|#) \[snippet (\w+)\]$")
SNIPPET_END = re.compile(r"^\s*(?://|#) \[/snippet\]$")
HOLE = re.compile(r"^\s*(?://|#) \[(/hole|hole \w+)\]$")  # of a lab: not shown
LANGUAGES = {".cu": "cuda", ".cuh": "cuda", ".cpp": "cpp", ".hpp": "cpp", ".h": "c", ".py": "python",
             ".cmake": "cmake"}
OPERATIONS = ["scores", "softmax", "probabilities", "pv", "attention"]  # as the pipeline does them: the last is all
# What stands for a chapter in the table of all, where that is not its fastest row: what it runs when
# no --variant is asked for. In 09 `lagging` is faster and less exact, and the step before is a draw.
SHIPPED = {"09_cute": "flash_sm90"}
SKIPPED_FOLDERS = re.compile(r"^(\..*|build.*|student|__pycache__)$")


class WeaveError(Exception):
    """A marker that cannot be followed; the text is one sentence."""


# --------------------------------------------------------------------------------------------------
# Snippets


def snippet_lines(root, file, name):
    found, inside = {}, None
    for number, line in enumerate(read(root, file).splitlines(), 1):
        begin = SNIPPET.match(line)
        if begin:
            if inside is not None:
                raise WeaveError(f"{file}:{number}: a snippet begins inside a snippet")
            inside = begin[1]
            if inside in found:
                raise WeaveError(f"{file}:{number}: there are two snippets {inside}")
            found[inside] = []
        elif SNIPPET_END.match(line):
            if inside is None:
                raise WeaveError(f"{file}:{number}: [/snippet] ends nothing")
            inside = None
        elif inside is not None and not HOLE.match(line):
            found[inside].append(line)
    if inside is not None:
        raise WeaveError(f"{file}: snippet {inside} has no [/snippet]")
    if name not in found:
        raise WeaveError(f"{file} has no snippet {name}; there are: {', '.join(found) or 'none'}")
    return textwrap.dedent("\n".join(found[name])).strip("\n").split("\n")


def snippet(root, arguments):
    file = arguments["file"]
    code = "\n".join(snippet_lines(root, file, arguments["name"]))
    return f"```{LANGUAGES.get(pathlib.PurePath(file).suffix, '')}\n{code}\n```"


def diff(root, arguments):
    """Three lines of context; "@@" where lines that are the same are left out."""
    old, new = (snippet_lines(root, arguments[key], arguments["name"]) for key in ("from", "to"))
    lines = list(difflib.unified_diff(old, new, lineterm=""))[2:]  # without the files' names
    if not lines:
        raise WeaveError(f"snippet {arguments['name']} is the same in {arguments['from']} and "
                         f"{arguments['to']}")
    return "```diff\n" + "\n".join("@@" if line.startswith("@@") else line for line in lines) + "\n```"


# --------------------------------------------------------------------------------------------------
# Numbers, as people write them


def digits(value):
    """Three significant digits, without an exponent: 0.0712, 7.12, 71.2, 7120."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def thousands(value):
    return f"{value:,}"


def without_unit(ceiling):
    return ceiling.split(" ")[0]


# --------------------------------------------------------------------------------------------------
# Columns. Each takes a row and its results file and gives a cell; a value that is not there raises
# KeyError or TypeError, and the cell becomes a dash.


def variant_cell(row, _):
    role = {"stage": "", "prior": " (the rung before)", "yardstick": " (yardstick)"}[row["role"]]
    wrong = "" if "refused" in row or row["error"]["ok"] else " **wrong**"
    return f"`{row['variant']}`{role}{wrong}"


def prior_cell(row, _):
    stage, variant = row["prior"].split("/")
    name = variant if stage == row["stage"] else row["prior"]
    return f"{digits(row['ratio_to_prior'])}× `{name}`"


def count(name):
    return lambda row, _: thousands(row["counts"][name])


COLUMNS = {
    "stage": ("stage", lambda row, _: row["stage"]),
    "variant": ("variant", variant_cell),
    "idea": ("idea", lambda row, _: row["idea"]),
    "ms": ("ms", lambda row, _: digits(row["ms"]["median"])),
    "range": ("p10–p90 ms", lambda row, _: f"{digits(row['ms']['p10'])}–{digits(row['ms']['p90'])}"),
    "prior": ("vs prior", prior_cell),
    "tflops": ("TFLOP/s", lambda row, _: digits(row["tflops"])),
    "gbps": ("GB/s", lambda row, _: digits(row["gbps"])),
    "limit": ("% of ceiling",
              lambda row, _: (f"{100 * row['limit']['fraction']:.0f} % "
                              + without_unit(row["limit"]["name"]))),
    "predicted": ("predicted ms",
                  lambda row, _: f"{digits(row['predicted_ms'])} ({without_unit(row['predicted_by'])})"),
    "extra": ("extra MB", lambda row, _: digits(row["extra_bytes"] / 1e6)),
    "error": ("error / budget", lambda row, _: f"{row['error']['scaled'] / row['error']['budget']:.2f}"),
    "row_rel_l2": ("row-relative L2", lambda row, _: f"{row['error']['row_rel_l2']:.1e}"),
    "max_abs": ("largest error", lambda row, _: f"{row['error']['max_abs']:.1e}"),
    "global_mb": ("global MB",
                  lambda row, _: digits((row["counts"]["global_load_bytes"]
                                         + row["counts"]["global_store_bytes"]) / 1e6)),
    "sectors": ("sectors / request",
                lambda row, _: digits(row["counts"]["global_sectors"]
                                      / row["counts"]["global_requests"])),
    "wavefronts": ("wavefronts / request",
                   lambda row, _: digits(row["counts"]["shared_wavefronts"]
                                         / row["counts"]["shared_requests"])),
    "barriers": ("barriers", count("barriers")),
    "shuffles": ("shuffles", count("shuffles")),
}
WORDS = {"stage", "variant", "idea", "config", "dtype", "mask", "operation"}  # lined up on the left
TIMED_COLUMNS = "variant,ms,prior,tflops,limit,predicted,error"
COUNTED_COLUMNS = "variant,global_mb,sectors,wavefronts,barriers,error"


def column(name):
    """A column by its name; vs:NAME is the time of variant NAME divided by this time."""
    if name in COLUMNS:
        return COLUMNS[name]
    if name.startswith("vs:"):
        other = name.removeprefix("vs:")

        def ratio(row, results):
            rows = [r for r in results["rows"]
                    if r["variant"] == other and r["problem"] == row["problem"]]
            if not rows:
                raise WeaveError(f"there is no variant {other} beside {row['variant']}")
            return digits(rows[0]["ms"]["median"] / row["ms"]["median"]) + "×"

        return (f"vs `{other}`", ratio)
    raise WeaveError(f"column {name} is not known; there are: {', '.join(COLUMNS)}, vs:VARIANT")


def cell(make, row, results):
    try:
        return make(row, results)
    except (KeyError, TypeError, ZeroDivisionError):
        return "–"


def markdown(titles, lines):
    """Rows of cells as a Markdown table; titles are (text, is it lined up on the left)."""
    rule = ["---" if left else "---:" for _, left in titles]
    rows = [[title for title, _ in titles], rule, *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


# --------------------------------------------------------------------------------------------------
# Results


def read_results(root, name):
    try:
        results = json.loads(read(root, name))
        results["rows"], results["problems"], results["device"]["name"]  # what is relied on
    except (ValueError, KeyError, TypeError) as failure:
        raise WeaveError(f"{name} is not a results file ({failure})") from failure
    return results


def mask_of(problem):
    return "causal" if problem["causal"] else "full"


def cache_of(problem):
    """What is beyond the plain problem: K and V of another dtype, in pages, of several lengths."""
    words = [problem["kv_dtype"]] if problem.get("kv_dtype", problem["dtype"]) != problem["dtype"] else []
    words += [f"pages of {problem['page_size']}"] if "page_size" in problem else []
    words += ["lengths"] if "kv_len" in problem else []
    return ", ".join(words) or problem["dtype"]


def chosen_problems(results, name, arguments):
    """Indices of the problems that config, dtype, mask and operation name, in the order they name
    them."""
    problems = results["problems"]
    operations = arguments.get("operation", ",".join(OPERATIONS)).split(",")
    chosen = []
    for config in arguments["config"].split(","):
        for dtype in arguments["dtype"].split(","):
            for mask in arguments["mask"].split(","):
                found = [i for operation in operations for i, p in enumerate(problems)
                         if (p["config"], p["dtype"], mask_of(p), p["operation"])
                         == (config, dtype, mask, operation)]
                if not found:
                    there = [f"{p['config']} {p['dtype']} {mask_of(p)} {p['operation']}"
                             for p in problems]
                    asked = f"{config} {dtype} {mask} {arguments.get('operation', '')}".rstrip()
                    raise WeaveError(f"{name} has no {asked}; there are: "
                                     + ", ".join(dict.fromkeys(there)))
                chosen += found
    return chosen


def source(name, results, page):
    """The line under a table: on what, when, from which file."""
    device = results["device"]
    what = device["name"]
    if results["backend"] == "cuda":
        what += f", driver {device['driver']}, CUDA {device['cuda']}"
    link = os.path.relpath(name, pathlib.PurePosixPath(page).parent)
    return f"\n\n*{what}; {results['date']}, commit {results['commit']}; [{name}]({link}).*"


def table(root, arguments, page):
    name = arguments["results"]
    results = read_results(root, name)
    chosen = chosen_problems(results, name, arguments)
    default = TIMED_COLUMNS if results["backend"] == "cuda" else COUNTED_COLUMNS
    names = arguments.get("columns", default).split(",")
    columns = [column(part) for part in names]
    there = dict.fromkeys(row["variant"] for row in results["rows"])
    wanted = arguments.get("variants", ",".join(there)).split(",")
    for variant in wanted:
        if variant not in there:
            raise WeaveError(f"{name} has no variant {variant}; there are: {', '.join(there)}")
    varying = [key for key in ("config", "dtype", "mask", "operation")
               if "," in arguments.get(key, "")]
    stored = (results["problems"][index] for index in chosen)
    if len({cache_of(p).removeprefix(p["dtype"]) for p in stored}) > 1:
        varying.append("K and V")

    titles = [(key, True) for key in varying]
    titles += [(title, key in WORDS) for key, (title, _) in zip(names, columns)]
    lines, refused = [], []
    for index in chosen:
        problem = results["problems"][index]
        labels = {**problem, "mask": mask_of(problem), "K and V": cache_of(problem)}
        for row in results["rows"]:
            if row["problem"] != index or row["variant"] not in wanted:
                continue
            if "refused" in row:
                refused.append(f"\n\n`{row['variant']}` refused: {row['refused']}")
            else:
                lines.append([labels[key] for key in varying]
                             + [cell(make, row, results) for _, make in columns])
    return markdown(titles, lines) + "".join(dict.fromkeys(refused)) + source(name, results, page)


def chapters(root, gpu):
    """(chapter, file, results) of each chapter that has docs/results/GPU/CHAPTER.json."""
    for path in sorted((root / "docs" / "results" / gpu).glob("*.json")):
        if (root / path.stem / "README.md").exists():
            name = path.relative_to(root).as_posix()
            yield path.stem, name, read_results(root, name)


def fastest(results, chapter, arguments):
    """The chapter's fastest right row, or that of SHIPPED, of the first named problem that it has a
    time for, or None; of several operations, of that which does most."""
    for config in arguments["config"].split(","):
        index = first_measured(results, chapter, {**arguments, "config": config})
        if index is not None:
            rows = own_rows(timed_rows(results, index), chapter)
            return min([row for row in rows if row["variant"] == SHIPPED.get(chapter)] or rows,
                       key=lambda row: row["ms"]["median"])
    return None


def rate(row, _):
    """In the unit of the ceiling that binds."""
    unit = row["limit"]["name"].split(" ")[-1]
    return f"{digits(row['gbps' if unit == 'GB/s' else 'tflops'])} {unit}"


def headlines(root, chapter):
    """The chapter's title and its idea, as its README has them."""
    text = read(root, f"{chapter}/README.md")
    title, idea = (re.search(pattern, text, re.MULTILINE) for pattern in (TITLE, IDEA))
    if not title or not idea:
        raise WeaveError(f"{chapter}/README.md has no '# title' or no '**The one new idea: …**'")
    return title[1], idea[1][0].lower() + idea[1][1:]


def ladder(root, arguments, page):
    lines, sources, device, above = [], [], None, pathlib.PurePosixPath(page).parent
    for chapter, name, results in chapters(root, arguments["gpu"]):
        row = fastest(results, chapter, arguments)
        if row is None:
            continue
        problem = results["problems"][row["problem"]]
        title, idea = headlines(root, chapter)
        computes = COMPUTES[problem["operation"]] if problem["seq"] > 1 else "one query"
        lines.append([f"[{title}]({os.path.relpath(chapter, above)}/README.md)", idea, computes,
                      f"`{row['variant']}`", digits(row["ms"]["median"]), cell(rate, row, results),
                      cell(COLUMNS["limit"][1], row, results)])
        sources.append(f"[{chapter[:2]}]({os.path.relpath(name, above)})")
        device = results["device"]["name"]
    if not lines:
        raise WeaveError(f"no file in docs/results/{arguments['gpu']} has times of a chapter for "
                         f"config {arguments['config']} with this dtype and mask")
    titles = [("chapter", True), ("the one new idea", True), ("computes", True), ("kernel", True),
              ("ms", False), ("rate", False), ("% of ceiling", False)]
    asked = "; ".join(arguments[key].replace(",", ", else ") for key in ("config", "dtype", "mask"))
    but = "".join(f", of {chapter[:2]} the one that runs by default" for chapter in SHIPPED)
    return (markdown(titles, lines) + f"\n\n*{device}; {asked}; each chapter's fastest kernel{but}; "
            f"results: " + ", ".join(sources) + ".*")


def gpus(root, arguments, page):
    """A column for each folder docs/results/GPU."""
    names, devices, cells = [], {}, {}
    for folder in sorted(path for path in (root / "docs" / "results").iterdir() if path.is_dir()):
        found = list(chapters(root, folder.name))
        if not found:
            continue
        name = folder.name
        names.append(name)
        devices[name] = found[-1][2]
        for chapter, _, results in found:
            for config in arguments["config"].split(","):
                row = fastest(results, chapter, {**arguments, "config": config})
                if row is not None:
                    text = f"{digits(row['ms']['median'])} ms, {cell(rate, row, results)}"
                    cells.setdefault((chapter, config), {})[name] = f"{text}<br>`{row['variant']}`"
    if not names:
        raise WeaveError("docs/results has no folder with a chapter's results")
    above = pathlib.PurePosixPath(page).parent
    titles = [("", True)] + [(f"[{devices[name]['device']['name']}]"
                              f"({os.path.relpath('docs/results/' + name, above)}/)", False)
                             for name in names]
    lines = [[what] + [cell(make, devices[name], None) for name in names]
             for what, make in GPU_FACTS]
    lines += [[f"{chapter}, {config}"] + [here.get(name, "–") for name in names]
              for (chapter, config), here in sorted(cells.items(), key=lambda item: item[0][0])]
    return markdown(titles, lines)


def ceiling(key):
    return lambda results, _: digits(results["ceilings"][key])


TITLE = r"^# (.+)$"
IDEA = r"^\*\*(?:The one new idea: )?(.+?)\.?\*\*"
COMPUTES = {"scores": "Q Kᵀ", "softmax": "softmax", "probabilities": "softmax(Q Kᵀ)", "pv": "P V",
            "attention": "attention"}
GPU_FACTS = [  # a row's title, and what stands in a GPU's column, from its last chapter's file
    ("driver, CUDA", lambda results, _: f"{results['device']['driver']}, {results['device']['cuda']}"),
    ("compute capability", lambda results, _: f"{results['device']['sm'] / 10:.1f}"),
    ("multiprocessors", lambda results, _: str(results["device"]["sms"])),
    ("copy, GB/s", ceiling("copy_gbps")),
    ("FP32 units, TFLOP/s", ceiling("ffma_tflops")),
    ("tensor cores, fp16, TFLOP/s", ceiling("tensor_tflops")),
]


def timed_rows(results, index):
    """The rows of one problem that are right and have a time."""
    return [row for row in results["rows"]
            if row["problem"] == index and row.get("ms") and row["error"]["ok"]]


def own_rows(rows, stage):
    return [row for row in rows if row["stage"] == stage and row["role"] == "stage"]


def first_measured(results, stage, arguments):
    """The index of the first named problem for which this stage has a time, or None; of several
    operations, that which does most."""
    for dtype in arguments["dtype"].split(","):
        for mask in arguments["mask"].split(","):
            measured = [i for i, p in enumerate(results["problems"])
                        if (p["config"], p["dtype"], mask_of(p)) == (arguments["config"], dtype, mask)
                        and own_rows(timed_rows(results, i), stage)]
            if measured:
                return max(measured, key=lambda i: OPERATIONS.index(
                    results["problems"][i]["operation"]))
    return None


def tile_times(results, index, kernel=""):
    """{(BLOCK_M, BLOCK_N): (ms, threads)} of one problem, of each tile the fastest; infinitely slow
    where nothing ran. `kernel`: what the names of its tiles begin with."""
    right, best = timed_rows(results, index), {}
    for row in results["rows"]:
        tile = re.search(r"(\d+)x(\d+)x(\d+)$", row["variant"])
        if row["problem"] == index and tile and row["variant"].startswith(kernel):
            m, n, threads = map(int, tile.groups())
            ms = row["ms"]["median"] if row in right else math.inf
            best[m, n] = min(best.get((m, n), (math.inf, 0)), (ms, threads))
    return best


def heat_map(root, arguments, page):
    name = arguments["results"]
    results = read_results(root, name)
    chosen = chosen_problems(results, name, arguments)
    if len(chosen) != 1:
        raise WeaveError("a heat map is of one config, dtype, mask and operation")
    best = tile_times(results, chosen[0], arguments.get("kernel", ""))
    if not best:
        raise WeaveError(f"{name} has no tiles called BLOCK_MxBLOCK_NxTHREADS for this problem")
    fastest = min(best.values())
    ran = best  # with kernel= without the rows and columns in which nothing ran
    if "kernel" in arguments:
        ran = [tile for tile, (ms, _) in best.items() if ms < math.inf] or best
    columns = sorted({n for _, n in ran})
    titles = [("BLOCK_M \\ BLOCK_N", False)] + [(str(n), False) for n in columns]
    lines = []
    for m in sorted({m for m, _ in ran}):
        cells = [str(m)]
        for n in columns:
            ms, threads = best.get((m, n), (math.inf, 0))
            text = "–" if ms == math.inf else f"{digits(ms)} / {threads}"
            cells.append(f"**{text}**" if (ms, threads) == fastest else text)
        lines.append(cells)
    return (markdown(titles, lines) + "\n\nMedian ms / threads of the fastest block of that tile."
            + source(name, results, page))


# --------------------------------------------------------------------------------------------------
# Labs

LAB_KINDS = {"fill": "fill in", "broken": "find what is broken", "faster": "make it faster",
             "variant": "graded: an instructor's seed decides"}
LAB_COLUMNS = {"kind": "what to do", "minutes": "minutes", "teaches": "what it teaches",
               "answer": "the answer, in words"}


def labs(root, arguments, page):
    chapter, columns = arguments.get("chapter"), arguments.get("columns", "kind,minutes").split(",")
    for column in columns:
        if column not in LAB_COLUMNS:
            raise WeaveError(f"labs have no column {column}; there are: {', '.join(LAB_COLUMNS)}")
    lines, minutes = [], 0
    for path in sorted(root.glob(f"{chapter or '[0-9][0-9]_*'}/lab/[0-9]*_*.md")):
        name = path.relative_to(root).as_posix()
        try:
            facts = tomllib.loads(read(root, name).removeprefix("<!--\n").split("-->\n")[0])
            link = os.path.relpath(name, pathlib.PurePosixPath(page).parent)
            cells = {**facts, "kind": LAB_KINDS[facts["kind"]]}
            minutes += facts["minutes"]
            lines.append([f"`{name[:2]}.{path.name.split('_')[0]}`", f"[{facts['title']}]({link})"]
                         + [" ".join(str(cells.get(column, "–")).split()).replace("|", "\\|")
                            for column in columns])
        except (KeyError, tomllib.TOMLDecodeError) as failure:
            raise WeaveError(f"{name} is not a lab ({failure})") from failure
    if not lines:
        raise WeaveError(f"{chapter}/lab has no labs" if chapter else "there are no labs")
    table = markdown([("lab", True), ("", True)]
                     + [(LAB_COLUMNS[column], column != "minutes") for column in columns], lines)
    if chapter or "minutes" not in columns:
        return table
    return f"{table}\n\n*{len(lines)} labs, {minutes / 60:.0f} hours.*"


# --------------------------------------------------------------------------------------------------
# Pages

KINDS = {  # kind: (what makes it, arguments it needs, arguments it may have)
    "snippet": (lambda root, arguments, page: snippet(root, arguments), {"file", "name"}, set()),
    "diff": (lambda root, arguments, page: diff(root, arguments), {"from", "to", "name"}, set()),
    "table": (table, {"results", "config", "dtype", "mask"}, {"columns", "operation", "variants"}),
    "ladder": (ladder, {"gpu", "config", "dtype", "mask"}, set()),
    "gpus": (gpus, {"config", "dtype", "mask"}, set()),
    "labs": (labs, set(), {"chapter", "columns"}),
    "heat_map": (heat_map, {"results", "config", "dtype", "mask"}, {"operation", "kernel"}),
}


def read(root, name):
    try:
        return (root / name).read_text(encoding="utf-8")
    except OSError as failure:
        raise WeaveError(f"{name} cannot be read: {failure.strerror}") from failure


def woven(root, marker, page):
    """What belongs between a marker and its end."""
    kind, *words = marker.split()
    if kind not in KINDS:
        raise WeaveError(f"{kind} is not known; there are: {', '.join(KINDS)}")
    make, needed, optional = KINDS[kind]
    arguments = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in needed | optional:
            raise WeaveError(f"{word} is not an argument of {kind}; it takes: "
                             + ", ".join(sorted(needed | optional)))
        arguments[key] = value
    if needed - arguments.keys():
        raise WeaveError(f"{kind} needs {', '.join(sorted(needed - arguments.keys()))}")
    return make(root, arguments, page)


def weave_page(root, path):
    """The page as it should be, a list of what is wrong with its markers, and their number."""
    page = path.relative_to(root).as_posix()
    lines = path.read_text(encoding="utf-8").split("\n")
    out, problems, fence, at, markers = [], [], None, 0, 0
    while at < len(lines):
        line = lines[at]
        out.append(line)
        at += 1
        mark = re.match(r"^\s*(```+|~~~+)", line)
        if mark and fence is None:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and line.strip() == mark[1]:
            fence = None
        if fence is not None or not line.startswith("<!-- weave:"):
            continue
        where = f"{page}:{at}"
        markers += 1
        begin = at - 1
        while not lines[at - 1].endswith("-->") and at < len(lines):  # a marker of several lines
            out.append(lines[at])
            at += 1
        marker = OPEN.match("\n".join(lines[begin:at]))
        end = next((i for i in range(at, len(lines))
                    if lines[i] == CLOSE or lines[i].startswith("<!-- weave:")), len(lines))
        if not marker or end == len(lines) or lines[end] != CLOSE:
            problems.append(f"{where}: this marker has no {CLOSE}")
            continue
        try:
            body = ["", *woven(root, marker[1], page).split("\n"), ""]
            if body != lines[at:end]:
                problems.append(f"{where}: differs from its source: weave: "
                                + " ".join(marker[1].split()))
        except WeaveError as failure:
            problems.append(f"{where}: {failure}")
            body = lines[at:end]
        out += [*body, CLOSE]
        at = end + 1
    return "\n".join(out), problems, markers


def pages(root):
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not SKIPPED_FOLDERS.match(name))
        for name in sorted(files):
            if name.endswith(".md"):
                yield pathlib.Path(folder) / name


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 on a difference")
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent, help="the repository")
    options = parser.parse_args(arguments)
    wrong = total = 0
    for path in pages(options.root):
        text, problems, markers = weave_page(options.root, path)
        changed = text != path.read_text(encoding="utf-8")
        if not options.check and changed:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(options.root)}")
            problems = [p for p in problems if "differs from its source" not in p]
        for problem in problems:
            print(problem)
        wrong += len(problems)
        total += markers
    if options.check:
        advice = "; write them anew with: python3 docs/weave.py" if wrong else ""
        print(f"{total} woven piece(s), {wrong} wrong{advice}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
