#!/usr/bin/env python3
"""Draws the committed results: docs/results/GPU/*.json → docs/plots/*.svg.

    python3 docs/plots.py [--root DIR]

    all chapters  the ladder: how fast every kernel of every chapter is on one published shape
    *_seq*.json   (--sweep seq=…) latency and speed-up against sequence length, a picture of each for
                  every dtype, mask and shape in the file: one line a stage, one a yardstick
    *_tiles.json  (--sweep tiles) a heat map of BLOCK_M x BLOCK_N for every problem in the file

`make plots` calls it with a Python that has matplotlib. The pictures depend on the results alone,
not on the day they are drawn, so that a picture that changes says that a result did.

Exit code: 0, 1 when a file cannot be read, 77 without matplotlib.
"""

import argparse
import math
import pathlib
import sys

from weave import (COMPUTES, OPERATIONS, WeaveError, cell, chapters, digits, fastest, first_measured,
                   headlines, mask_of, own_rows, rate, read_results, tile_times, timed_rows)

# --------------------------------------------------------------------------------------------------
# From rows to lines. Nothing here needs matplotlib.

SHAPE = ("dtype", "causal", "batch", "heads", "kv_heads", "head_dim")


def shape_of(problem, tokens=None):
    """What a picture has in common: SHAPE, and the queries where they are fewer than the keys. With
    `tokens` (--tokens) it is batch x length and not the batch: "16384 / N"."""
    queries = problem["seq"] if problem["seq"] != problem["kv_seq"] else None
    shape = {**problem, "batch": f"{tokens}/N"} if tokens else problem
    return (*(shape[key] for key in SHAPE), queries)


def tokens_of(results):
    """Batch x length where that, and not the batch, is the same in all problems."""
    problems = results["problems"]
    tokens = {problem["batch"] * problem["kv_seq"] for problem in problems}
    return tokens.pop() if len(tokens) == 1 and len({p["batch"] for p in problems}) > 1 else None


def name_of(row, problem):
    """What a line is called. A stage that computes part of attention says which."""
    name = row["variant"] if row["role"] == "yardstick" else row["stage"]
    part = {"attention": "", "scores": " (Q Kᵀ only)", "softmax": " (softmax only)",
            "probabilities": " (Q Kᵀ and softmax only)", "pv": " (P V only)"}[problem["operation"]]
    return name + part


def sweeps(results):
    """{shape: {line: {keys: ms}}}: at each length a stage's fastest variant of the operation that does
    most. Stages come first, in their order; a yardstick shows where it computes all of attention."""
    found, tokens = {}, tokens_of(results)
    for index, problem in enumerate(results["problems"]):
        lines = found.setdefault(shape_of(problem, tokens), {})
        for row in timed_rows(results, index):
            if row["role"] == "yardstick" and problem["operation"] != "attention":
                continue
            at = lines.setdefault((row["role"] == "yardstick", row["stage"], row["variant"]
                                   if row["role"] == "yardstick" else ""), {})
            rank = OPERATIONS.index(problem["operation"])
            entry = (-rank, row["ms"]["median"], name_of(row, problem))
            at[problem["kv_seq"]] = min(at.get(problem["kv_seq"], entry), entry)
    named = {}
    for shape, lines in found.items():
        named[shape] = {}
        for key in sorted(lines, key=lambda key: key[:2]):
            entries = lines[key]
            name = max(entries.values(), key=lambda entry: entry[0] * -1)[2]
            named[shape][name] = {n: ms for n, (_, ms, own) in sorted(entries.items())
                                  if own == name}
    return named


def speed_ups(lines):
    """(line it is over, {line: {N: ratio}}): over the first stage that computes all of attention."""
    base = next((name for name in lines if name[:2].isdigit() and "only" not in name), None)
    if base is None:
        return None, {}
    ratios = {name: {n: lines[base][n] / ms for n, ms in points.items() if n in lines[base]}
              for name, points in lines.items() if "only" not in name}
    return base, {name: points for name, points in ratios.items() if points}


def shape_text(shape):
    problem = dict(zip(SHAPE, shape))
    groups = f" Hkv{problem['kv_heads']}" if problem["kv_heads"] != problem["heads"] else ""
    queries = f" Nq{shape[-1]}" if shape[-1] else ""
    return (f"B{problem['batch']} H{problem['heads']}{groups}{queries} D{problem['head_dim']} "
            f"{problem['dtype']} {mask_of(problem)}")


LADDER = {"config": "hdim64_seq4k", "dtype": "fp16", "mask": "causal"}
LADDER_DECODE = {"config": "decode_64k", "dtype": "fp16", "mask": "full"}


def rungs(root, gpu):
    """([(chapter's number and idea, {variant: TFLOP/s}, the fastest, a remark)], {ceiling or library:
    TFLOP/s}) of LADDER. A chapter that has times of LADDER_DECODE only is a remark."""
    found, marks = [], {}
    for chapter, _, results in chapters(root, gpu):
        label = f"{chapter[:2]}  {headlines(root, chapter)[1]}"
        best = fastest(results, chapter, LADDER)
        if best is not None:
            index = first_measured(results, chapter, LADDER)
            rates = {row["variant"]: row["tflops"]
                     for row in own_rows(timed_rows(results, index), chapter)}
            operation = results["problems"][index]["operation"]
            remark = "" if operation == "attention" else f"{COMPUTES[operation]} only"
            found.append((label, rates, best["variant"], remark))
            for row in timed_rows(results, index):
                if row["variant"] == "cudnn":
                    marks["cuDNN"] = row["tflops"]
            marks["FP32 units"] = results["ceilings"]["ffma_tflops"]
            marks["tensor cores"] = results["ceilings"]["tensor_tflops"]
        elif (decode := fastest(results, chapter, LADDER_DECODE)) is not None:
            remark = f"one query: {cell(rate, decode, results)} of K and V"
            found.append((label, {}, None, remark))
    return found, {name: value for name, value in marks.items() if value}


# --------------------------------------------------------------------------------------------------
# From lines to pictures


def start_matplotlib():
    try:
        import matplotlib
    except ImportError:
        print("plots.py: there is no matplotlib in this Python; `make plots` installs it.",
              file=sys.stderr)
        sys.exit(77)
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    matplotlib.rcParams.update({
        "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
        "svg.hashsalt": "attention-ladder", "font.size": 9, "axes.spines.top": False,
        "axes.spines.right": False, "figure.constrained_layout.use": True})
    return plt


def save(plt, figure, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    print(path.name)


def draw_lines(plt, lines, title, shape, unit, path):
    """Both axes are logarithmic: lengths double, and the stages are decades apart."""
    figure, axes = plt.subplots(figsize=(8, 5))
    stages = [name for name in lines if name[:2].isdigit()]
    others = [name for name in lines if name not in stages]
    colours = plt.get_cmap("viridis_r")
    for name, points in lines.items():
        if name in stages:
            share = stages.index(name) / max(1, len(stages) - 1)
            style = {"color": colours(0.1 + 0.9 * share), "marker": "o", "markersize": 3.5}
        else:
            style = {"color": "0.45", "marker": "x+*1234"[others.index(name) % 7],
                     "linestyle": ["--", ":", "-."][others.index(name) % 3], "markersize": 5}
        line, = axes.plot(list(points), list(points.values()), label=name, **style)
        line.set_gid(f"line {name}")
    lengths = sorted({n for points in lines.values() for n in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [str(n) for n in lengths])
    axes.minorticks_off()
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")  # 0.1, not ten to the minus one
    axes.grid(True, color="0.9")
    axes.set_xlabel("keys" if shape[-1] else "sequence length N (queries = keys)")
    axes.set_ylabel(unit)
    axes.set_title(title)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    save(plt, figure, path)


def draw_ladder(plt, found, marks, title, path):
    """Chapters from top to bottom; every kernel is a dot, the fastest a large one with its number."""
    figure, axes = plt.subplots(figsize=(8.5, 1.1 + 0.38 * len(found)))
    colours = plt.get_cmap("viridis_r")
    slowest = min(rate for _, rates, _, _ in found for rate in rates.values())
    for y, (_, rates, best, remark) in enumerate(found):
        colour = colours(0.15 + 0.85 * y / max(1, len(found) - 1))
        for variant, tflops in rates.items():
            dot, = axes.plot([tflops], [y], "o", color=colour, markersize=9 if variant == best else 3.5)
            dot.set_gid(f"{variant} {digits(tflops)}")
        if rates:
            axes.annotate(f"{digits(rates[best])}  {remark}".rstrip(), (rates[best], y), (8, 0),
                          textcoords="offset points", va="center", weight="bold", fontsize=8.5,
                          bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})
        else:
            axes.annotate(remark, (slowest, y), va="center", style="italic", color="0.35")
    for place, (name, tflops) in enumerate(sorted(marks.items(), key=lambda mark: mark[1])):
        axes.axvline(tflops, color="0.6", linestyle="-" if name == "cuDNN" else ":", zorder=0)
        axes.text(tflops, -0.75 - 0.45 * (place % 2), f"{name} {digits(tflops)}", ha="center",
                  va="bottom", fontsize=7.5, color="0.35")
    axes.set_xscale("log")
    axes.set_xlim(slowest / 1.5, 4 * max([*marks.values(), slowest]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks(range(len(found)), [label for label, *_ in found])
    axes.set_ylim(len(found) - 0.4, -0.75)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.set_xlabel("TFLOP/s, each dot a kernel")
    axes.set_title(title, pad=26)
    save(plt, figure, path)


def draw_heat_map(plt, tiles, title, path):
    """`tiles` as weave.tile_times() gives them. The colour tells up to twice the fastest; what is
    slower is not worth telling apart."""
    rows, columns = (sorted({tile[axis] for tile in tiles}) for axis in (0, 1))
    fastest = min(tiles.values())[0]
    figure, axes = plt.subplots(figsize=(2.2 + 0.95 * len(columns), 1.6 + 0.5 * len(rows)))
    ratios = [[math.log2(tiles.get((m, n), (math.inf,))[0] / fastest) for n in columns]
              for m in rows]
    shown = [[min(ratio, 1) if ratio < math.inf else math.nan for ratio in line] for line in ratios]
    image = axes.pcolormesh(shown, cmap=plt.get_cmap("viridis_r", 12), vmin=0, vmax=1)
    axes.invert_yaxis()
    for y, m in enumerate(rows):
        for x, n in enumerate(columns):
            ms, threads = tiles.get((m, n), (math.inf, 0))
            text = f"{digits(ms)}\n/{threads}" if ms < math.inf else "refused" if (m, n) in tiles else ""
            bold = {"weight": "bold"} if ms == fastest else {}
            axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=7,
                      color="white" if shown[y][x] > 0.5 else "black", **bold)
    axes.set_xticks([x + 0.5 for x in range(len(columns))], columns)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows)
    axes.set_xlabel("BLOCK_N")
    axes.set_ylabel("BLOCK_M")
    axes.set_title(title, fontsize=9)
    bar = figure.colorbar(image, ticks=[0, math.log2(1.25), math.log2(1.5), 1])
    bar.ax.set_yticklabels(["fastest", "1.25 ×", "1.5 ×", "≥ 2 ×"])
    bar.set_label("time; in the cells median ms / threads")
    save(plt, figure, path)


def file_name(*parts):
    return "_".join(str(part).replace(" ", "_").replace("/", "_over_") for part in parts) + ".svg"


def draw_all(root):
    plt = start_matplotlib()
    plots = root / "docs" / "plots"
    for folder in sorted(path for path in (root / "docs" / "results").glob("*") if path.is_dir()):
        found, marks = rungs(root, folder.name)
        if any(rates for _, rates, *_ in found):
            device = list(chapters(root, folder.name))[-1][2]["device"]["name"]
            draw_ladder(plt, found, marks, f"Attention forward, B4 H32 N4096 D64 fp16 causal, {device}",
                        plots / file_name(folder.name, "ladder"))
    for path in sorted((root / "docs" / "results").glob("*/*.json")):
        name, gpu = path.relative_to(root).as_posix(), path.parent.name
        if "_seq" in path.stem:
            results = read_results(root, name)
            for shape, lines in sweeps(results).items():
                text, device = shape_text(shape), results["device"]["name"]
                draw_lines(plt, lines, f"Attention forward, {text}, {device}", shape,
                           "time, median of the run (ms)", plots / file_name(gpu, "latency", text))
                base, ratios = speed_ups(lines)
                if base:
                    draw_lines(plt, ratios, f"Speed-up over {base}, {text}, {device}", shape,
                               f"time of {base} / time (×)", plots / file_name(gpu, "speedup", text))
        elif path.stem.endswith("_tiles"):
            results = read_results(root, name)
            for index, problem in enumerate(results["problems"]):
                tiles = tile_times(results, index)
                if not tiles or min(tiles.values())[0] == math.inf:
                    continue
                which = f"{problem['config']} {problem['dtype']} {mask_of(problem)}"
                draw_heat_map(plt, tiles,
                              f"{results['program'].removesuffix('_tiles')}: tiles on {which}, "
                              f"{results['device']['name']}",
                              plots / file_name(gpu, path.stem, which))


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).parents[1],
                        help="the repository")
    options = parser.parse_args(arguments)
    try:
        draw_all(options.root)
    except WeaveError as failure:
        print(f"plots.py: {failure}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
