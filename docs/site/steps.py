"""Pages that step through a kernel, made from what the emulator has recorded of it (--trace).

RUNS says what is run for which chapter. A page is readable as it is, from top to bottom; site.js
turns the phases of each kernel into pages to leaf through.
"""

import html
import json
import os
import re
import subprocess
import tempfile

#  chapter: (arguments, thread of block 0[, the kernels to show; all of the chapter]). The Hopper kernels
#  need one thread of each role.
RUNS = {
    "01_naive_qk": [("--full --variant uncoalesced,coalesced,shared_tiles,register_tiles --dtype fp32", 37)],
    "02_softmax": [("--full --variant three_pass,one_pass", 37), ("--full --variant online", 5, "softmax_online")],
    "03_pv": [("--full --variant coalesced,shared_tiles,register_tiles", 37)],
    "04_fused_v1": [("--full --variant fused", 37)],
    "05_epilogue_norm_v2": [("--full --variant fused", 37)],
    "06_fp8_prefetch_v3": [("--full --variant mma_2_stages", 37), ("--full --dtype e4m3 --variant hopper", 0, "attention_wgmma"),
                           ("--full --dtype e4m3 --variant hopper", 165, "attention_wgmma")],
    "07_flash_decoding": [("--seq 1 --kv-seq 1024 --heads 4 --kv-heads 1 --variant split,tensor_cores", 37)],
    "08_wmma": [("--full --variant one_warp", 5), ("--full --variant longest_first", 37)],
    "09_cute": [("--full --variant flash_sm80", 37), ("--causal --variant specialised", 37),
                ("--causal --variant specialised", 384)],
}
PROBLEM = "--batch 1 --heads 1 --seq 256 --head-dim 64 --check"
SHAPES = {"Q": "D", "K": "D", "V": "D", "O": "D", "S": "N", "P": "N"}  # what a row of it counts
LANES_SHOWN = 32


class TraceError(Exception):
    """The text is one sentence."""


def record(programs, stage):
    """[(program, arguments, thread, the kernels recorded)] of a chapter."""
    recorded = []
    for arguments, thread, *only in RUNS[stage]:
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "trace.json")
            command = [str(programs / stage), *PROBLEM.split(), *arguments.split()]
            trace = ["--trace", f"0,{thread}", "--trace-json", file]
            run = subprocess.run(command + trace, capture_output=True, text=True)
            if run.returncode != 0:
                raise TraceError(f"{' '.join(command + trace)} failed ({run.returncode}): {run.stderr.strip()}")
            with open(file) as text:
                kernels = [kernel for kernel in json.load(text)["kernels"]
                           if is_of(kernel, stage) and (not only or kernel["kernel"] in only)]
            kernels = list({kernel["kernel"]: kernel for kernel in kernels}.values())  # the rung before comes first
            if not kernels:
                raise TraceError(f"{' '.join(command + trace)} recorded nothing of {stage}")
            recorded.append((stage, f"{PROBLEM} {arguments}", thread, kernels))
    return recorded


def is_of(kernel, stage):
    """Not of the stage before, which runs too, to be compared with."""
    return any(f"{stage}/" in step["line"] for phase in kernel["phases"] for step in phase["steps"])


# --------------------------------------------------------------------------------------------------
# What is said of a step


def merged(steps):
    """A line that the compiler has unrolled is several instructions; here it is one step again."""
    result = {}
    for step in steps:
        key = (step["what"], step.get("array"), step["line"], step.get("bytes"))
        if key in result:
            result[key]["times"] += step["times"]
            result[key]["first"] += step.get("first", [])
        else:
            result[key] = {**step, "first": list(step.get("first", []))}
    return list(result.values())


def number(value):
    return f"{value:,}".replace(",", "\u202f")


def times(n):
    return "once" if n == 1 else f"{number(n)} times"


def element(array, offset, elements, row_bytes):
    """Where a byte is, in the words of the matrix it belongs to."""
    if array not in row_bytes:
        return f"byte {offset}"
    row, rest = divmod(offset, row_bytes[array])
    return f"{array}[{row}][{rest // elements[array]}]"


def cost(step):
    """What memory makes of it, in words, and whether that is dear."""
    first = step["first"][0] if step["first"] else {}
    lanes = [x for x in first.get("offsets", []) if x is not None]
    if "passes" in first:
        least = max(1, -(-len(set(lanes)) * step["bytes"] // 128))
        n = first["passes"]
        return f"{n} pass{'es' if n > 1 else ''}", n > 2 * least
    if "sectors" in first:
        n = first["sectors"]
        least = max(1, -(-len(set(lanes)) * step["bytes"] // 32))
        return f"{n} sector{'s' if n > 1 else ''}", n > 2 * least
    return "", False


VERBS = {"load": "load from", "store": "store to", "cp.async": "cp.async", "ldmatrix": "ldmatrix from",
         "stmatrix": "stmatrix to", "load_matrix_sync": "load_matrix_sync from", "store_matrix_sync": "store_matrix_sync to",
         "atomic": "atomic on", "bulk load": "copy engine reads", "bulk store": "copy engine writes"}


def sentence(step, lane, elements, row_bytes):
    if "array" not in step:
        return f"<b>{html.escape(step['what'])}</b>, {times(step['times'])}"
    array = f"<code>{html.escape(step['array'])}</code>"
    verb = VERBS.get(step["what"], step["what"])
    if step["what"] == "cp.async":
        verb += " from" if step["space"] == "global" else " to"
    text = f"<b>{verb}</b> {array}, {number(step['bytes'])} bytes a lane, {times(step['times'])}"
    mine = [time["offsets"][lane] for time in step["first"] if time["offsets"][lane] is not None][:6]
    if mine:
        places = [element(step["array"], offset, elements, row_bytes) if step["space"] == "global" else f"byte {offset}"
                  for offset in mine]
        more = " …" if step["times"] > len(mine) else ""
        text += f"<br><small>lane {lane}: {', '.join(places)}{more}</small>"
    return text


# --------------------------------------------------------------------------------------------------
# Pictures: 32 lanes above, what they touch below


def lanes_picture(step, lane):
    time = step["first"][0] if step["first"] else None
    if time is None:
        return ""
    if "from" in time:
        below, targets = [str(i) for i in range(32)], time["from"]
        if targets == [None if x is None else i for i, x in enumerate(targets)]:
            return ""  # each lane has its own: nothing to see
        words, label = "value of lane", "lane"
        ends = [[] if x is None else [x] for x in targets]
    elif step["space"] == "shared":
        below, words = [str(i) for i in range(32)], "bank"
        ends = [[] if x is None else [x // 4 % 32] for x in time["offsets"]]
        if step["bytes"] > 4:
            words = f"the first of the {step['bytes'] // 4} banks of each"
        label = "bank"
    else:
        touched = sorted({x // 32 for x in time["offsets"] if x is not None})
        below, words, label = [str(i + 1) for i in range(len(touched))], "sector of 32 bytes", "sector"
        ends = [[] if x is None else [touched.index(x // 32)] for x in time["offsets"]]
    if len(below) > 64 or sum(1 for end in ends if end) < 2:
        return ""  # too much, or too little to see
    width, step_x = 660, 20
    left = 12
    step_below = min(20, 640 / max(1, len(below)))
    shift = (640 - step_below * len(below)) / 2
    x_of = lambda i: left + step_x * i + step_x / 2
    x_below = lambda i: left + shift + step_below * i + step_below / 2
    load = {e for end in ends for e in end}
    if label == "bank":  # all that are touched
        load = {(e + i) % 32 for e in load for i in range(max(1, step["bytes"] // 4))}
    top, bottom = 20, 92
    others = "".join(f"M{x_of(i):g} {top}L{x_below(e):g} {bottom - 14}" for i, end in enumerate(ends) for e in end if i != lane)
    own = "".join(f"M{x_of(lane):g} {top}L{x_below(e):g} {bottom - 14}" for e in ends[lane])
    cells = "".join(f'<rect class="{"me" if i == lane else "lane" if ends[i] else "off"}" x="{x_of(i) - 9:g}" y="4" width="18" height="16"/>'
                    f'<text x="{x_of(i):g}" y="16">{i}</text>' for i in range(32))
    small = step_below < 14
    places = "".join(f'<rect class="{"hit" if i in load else "off"}" x="{x_below(i) - step_below / 2 + 1:g}" y="{bottom - 14}" '
                     f'width="{step_below - 2:g}" height="16"/>'
                     + ("" if small else f'<text x="{x_below(i):g}" y="{bottom - 2}">{name}</text>') for i, name in enumerate(below))
    count = len(load)
    said = f"{sum(1 for end in ends if end)} lanes, {count} {label}{'s' if count != 1 else ''}"
    return (f'<svg class="lanes" viewBox="0 0 {width} 104" role="img" aria-label="{said}"><path class="line" d="{others}"/>'
            f'<path class="own" d="{own}"/>{cells}{places}'
            f'<text class="word" x="{width - 8}" y="103" text-anchor="end">lanes above, {words} below</text></svg>')


def moved_picture(moved, most):
    """Bars: what the whole block reads and writes of each array in this phase."""
    rows = [(m["space"], m["array"], direction, m[direction]) for m in moved for direction in ("read", "written") if m[direction]]
    if not rows:
        return "<p>No memory is touched.</p>"
    lines = "".join(
        f'<tr><td>{"reads" if direction == "read" else "writes"}</td><td><code>{html.escape(array)}</code></td><td>{space}</td>'
        f'<td class="bytes">{number(count)} bytes</td>'
        f'<td class="bar"><span class="{space}" style="width:{max(1, round(100 * count / most))}%"></span></td></tr>'
        for space, array, direction, count in rows)
    return f'<table class="moved"><tbody>{lines}</tbody></table>'


# --------------------------------------------------------------------------------------------------
# The page


class Source:
    """Lines of the chapter's files, with links to them."""

    def __init__(self, site, stage, path_of):
        self.site, self.stage, self.path_of, self.files = site, stage, path_of, {}

    def frames(self, where):
        return [(file, int(line)) for file, line in re.findall(r"([\w./]+):(\d+)", where)]

    def html(self, where):
        """The line of the kernel, and below it the lines of the functions that it calls."""
        frames = self.frames(where)[::-1]
        own = [frame for frame in frames if frame[0].startswith(self.stage + "/")]
        own = own or [frame for frame in frames if (self.site.root / frame[0]).exists()]
        if not own:
            return html.escape(where)
        if len(own) > 3:
            own = [own[0], *own[-2:]]
        return "".join(f'<div style="padding-left:{depth}em">{self.link(file, line)} <code>{html.escape(self.text(file, line))}'
                       "</code></div>" for depth, (file, line) in enumerate(own))

    def text(self, file, line):
        if file not in self.files:
            path = self.site.root / file
            self.files[file] = path.read_text().splitlines() if path.exists() else []
        lines = self.files[file]
        return lines[line - 1].strip() if 0 < line <= len(lines) else ""

    def link(self, file, line):
        if not (self.site.root / file).exists():
            return f"{file}:{line}"
        return f'<a href="{self.path_of(file)}#__codelineno-0-{line}">{os.path.basename(file)}:{line}</a>'


def signature(phase):
    return json.dumps([phase["ended_by"], [(s["what"], s.get("array"), s["line"], s["times"]) for s in phase["steps"]],
                       phase["moved"]])


def runs_of_phases(phases):
    """[(numbers, phase)]: phases that do the same as one before are named beside it."""
    found = {}
    for number_, phase in enumerate(phases, 1):
        found.setdefault(signature(phase), ([], phase))[0].append(number_)
    return list(found.values())


def listed(numbers):
    """1, 2, 3, 7 → 1–3, 7"""
    parts, first = [], None
    for n in numbers:
        if first is not None and n == last + 1:
            last = n
            continue
        if first is not None:
            parts.append((first, last))
        first = last = n
    parts.append((first, last))
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in parts)


def phase_html(numbers, phase, kernel, most, source, elements, row_bytes):
    steps = []
    for step in merged(phase["steps"]):
        words, dear = cost(step)
        steps.append(f'<li><div class="where">{source.html(step["line"])}</div>'
                     f'<div class="what">{sentence(step, kernel["lane"], elements, row_bytes)}'
                     + (f' <span class="cost{" dear" if dear else ""}">{words}</span>' if words else "")
                     + f"</div>{lanes_picture(step, kernel['lane'])}</li>")
    block = phase["block"]
    facts = [f"{count} {words} {number(block[cost_])} {unit}" for count, words, cost_, unit in [
        (number(block["global_requests"]), "requests to global memory touch", "global_sectors", "sectors"),
        (number(block["shared_requests"]), "requests to shared memory take", "shared_passes", "passes")] if count != "0"]
    facts += [f"{number(block['shuffles'])} shuffles"] if block["shuffles"] else []
    facts = "; ".join(facts)
    again = f" <small>the same in phases {listed(numbers)}</small>" if len(numbers) > 1 else ""
    ended = source_words(phase["ended_by"])
    return (f'<section class="phase" data-name="Phase {numbers[0]}"><h4>Phase {numbers[0]}, to {ended}{again}</h4>'
            f'<p>The whole block{": " + facts + "." if facts else ":"}</p>{moved_picture(phase["moved"], most)}'
            + (f'<p>Warp {kernel["warp"]}:</p><ol class="steps">{"".join(steps)}</ol>' if steps
               else f'<p>Warp {kernel["warp"]} only waits.</p>') + "</section>")


def source_words(where):
    return html.escape(re.sub(r"[\w./]*/([\w.]+):(\d+)", r"line \2 of \1", where))


def element_bytes(arguments):
    return 4 if "fp32" in arguments else 1 if "e4m3" in arguments else 2


def kernel_html(kernel, arguments, source):
    size = element_bytes(arguments)
    D, N = (int(re.findall(rf"--{name} (\d+)", arguments)[-1]) for name in ("head-dim", "seq"))
    elements = {name: 4 if name == "S" else 2 if name == "O" and size == 1 else size for name in SHAPES}
    row_bytes = {name: {"D": D, "N": N}[of] * elements[name] for name, of in SHAPES.items()}
    phases = runs_of_phases(kernel["phases"])
    most = max([1, *(m[d] for phase in kernel["phases"] for m in phase["moved"] for d in ("read", "written"))])
    blocks = kernel["grid"][0] * kernel["grid"][1] * kernel["grid"][2]
    threads = kernel["threads"][0] * kernel["threads"][1] * kernel["threads"][2]
    shared = ", ".join(f"<code>{html.escape(a['array'])}</code> {number(a['bytes'])}" for a in kernel["shared"])
    about = (f"<p>Block {tuple(kernel['block'])} of {number(blocks)}; {threads} threads. We watch thread {tuple(kernel['thread'])}: "
             f"lane {kernel['lane']} of warp {kernel['warp']}, and its 31 neighbours. "
             + (f"Shared memory, in bytes: {shared}." if shared else "No shared memory.") + "</p>")
    cut = f"<p>{html.escape(kernel['cut'])}.</p>" if kernel["cut"] else ""
    body = "".join(phase_html(numbers, phase, kernel, most, source, elements, row_bytes) for numbers, phase in phases)
    return f'<div class="kernel">{about}<div class="phases">{body}</div>{cut}</div>'


INTRODUCTION = """What one warp of each kernel really does, as the [emulator](../docs/emulator.md) saw it: nothing here is drawn by hand.
A *phase* goes from one barrier (or wait) to the next. The bars are bytes of the whole block; below them come the lines of code,
with what the 32 lanes of one warp touch when they come there for the first time. The marked lane is the thread that we watch.

* Global memory is read in *sectors* of 32 bytes: few sectors for many lanes is good.
* Shared memory has 32 *banks* of 4 bytes: lanes that want different words of one bank wait for each other, a *pass* each.

"""


def page(site, stage, recorded):
    """The Markdown of a chapter's page, and the source files that it links to."""
    linked = []

    def path_of(file):
        linked.append(file)
        return os.path.relpath(file, stage) + ".html"

    source = Source(site, stage, path_of)
    parts = [f"# Step through {stage}\n\n{INTRODUCTION}"]
    for program, arguments, thread, kernels in recorded:
        command = f"build/emulator/bin/{program} {arguments}".replace(" --check ", " --check \\\n  ")
        parts.append(f"The problem, and how to see more of it:\n\n```sh\n{command} \\\n  --trace 0,{thread} --trace-json trace.json\n```\n\n")
        for kernel in kernels:
            which = f", thread {thread}" if len(recorded) > 1 else ""
            parts.append(f"## {kernel['kernel']}{which}\n\n{kernel_html(kernel, arguments, source)}\n\n")
    return "".join(parts), sorted(set(linked))
