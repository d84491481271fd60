#!/usr/bin/env python3
"""Draws how the data of each chapter's kernel move: docs/pictures/*.svg.

    python3 docs/pictures.py [--check] [--root DIR]

A picture is a few rows, from top to bottom as the kernel goes. A row is boxes with arrows between
them: (column, name, what it is), what the arrow carries, (column, ...). An arrow's words that begin
with ~ are of a copy that goes on while the kernel does something else. A row with a name is a loop,
and its rows stand in a frame. Tiles are those that the launcher takes at hdim64_seq4k, fp16 where
nothing else is said. With --check nothing is written; the exit code is 1 when a file is not what
this program draws.
"""

import argparse
import html
import pathlib
import sys

FAR, SHARED, REGISTERS, UNITS = range(4)
MEMORIES = ["global memory", "shared memory", "registers", "what computes"]

PICTURES = {
    "01_naive_qk": {
        "title": "register_tiles in fp32: 128 threads make 64 × 128 scores",
        "alt": "Chunks of Q and K go from global to shared memory, from there as float4 into registers, where each feeds many "
               "multiply-adds. The scores leave once.",
        "rows": [
            ("for each of the 2 chunks of 32 d", [
                [(FAR, "Q", "64 rows"), "8 KB", (SHARED, "Q_smem", "64 × 32"), "128 KB", (REGISTERS, "q", "8 float4 a thread")],
                [(FAR, "K", "128 rows"), "16 KB", (SHARED, "K_smem", "128 × 32"), "128 KB", (REGISTERS, "k", "8 float4 a thread"),
                 "", (UNITS, "FP32 cores", "S += q · k")]]),
            [(REGISTERS, "S_rmem", "8 × 8 a thread"), "32 KB", (FAR, "S", "64 × 128")]],
    },
    "02_softmax": {
        "title": "one_pass, fp32 to fp16: 256 threads share a row of 4096 scores",
        "alt": "A row of S is read once, into registers. The warps agree on its maximum and its sum through a few words of "
               "shared memory. P is written once.",
        "rows": [
            [(FAR, "S", "a row of 4096, fp32"), "16 KB", (REGISTERS, "x", "16 a thread"), "", (UNITS, "shuffles, exp", "max, then Σ e^(x − m)")],
            [(UNITS, "m, then l", "of each warp"), "32 bytes each", (SHARED, "8 words", "one a warp")],
            [(REGISTERS, "p", "e^(x − m) / l"), "8 KB", (FAR, "P", "the row, fp16")]],
    },
    "03_pv": {
        "title": "all of attention in three kernels at hdim64_seq4k, full, fp16",
        "alt": "The first kernel writes S, 8.6 GB; the second reads it and writes P, 4.3 GB; the third reads P and V and writes O. "
               "Inputs and outputs together are 0.27 GB.",
        "columns": ["global memory", "on the chip", "global memory"],
        "rows": [
            [(0, "Q, K", "0.13 GB"), "0.13 GB", (1, "01: S = scale · Q Kᵀ", "tiles of 64 × 128"), "8.6 GB", (2, "S, fp32", "8.6 GB")],
            [(0, "S, fp32", "8.6 GB, once more"), "8.6 GB", (1, "02: P = softmax(S)", "a row a block"), "4.3 GB", (2, "P, fp16", "4.3 GB")],
            [(0, "P, V", "4.3 GB, 0.07 GB"), "~4.4 GB", (1, "03: O = P V", "tiles of 128 × 64"), "0.07 GB", (2, "O", "0.07 GB")]],
    },
    "04_fused_v1": {
        "title": "fused, fp32 inside: 128 threads own 128 queries",
        "alt": "Q comes to shared memory once. For each tile of 64 keys, K and V come after one another; S is made in registers, P goes "
               "through shared memory, O stays in registers. Only O leaves.",
        "rows": [
            [(FAR, "Q", "128 rows"), "16 KB", (SHARED, "Q_smem", "64 × 128, fp32")],
            ("for each of the N / 64 tiles of keys", [
                [(FAR, "K", "64 keys"), "8 KB", (SHARED, "KV_smem", "64 × 64, fp32"), "Q, K: 512 KB", (REGISTERS, "S_rmem", "8 × 8 a thread"),
                 "", (UNITS, "FP32 cores", "S = Q Kᵀ")],
                [(REGISTERS, "S_rmem → P", "and m, l, keep"), "", (UNITS, "shuffles, exp", "one step of the softmax")],
                [(REGISTERS, "P", "fp32"), "32 KB", (SHARED, "P_smem", "64 × 128, fp32")],
                [(FAR, "V", "64 keys"), "8 KB", (SHARED, "KV_smem", "where K was"), "P, V: 512 KB", (REGISTERS, "O_rmem", "8 × 8 a thread"),
                 "", (UNITS, "FP32 cores", "O = keep · O + P V")]]),
            [(REGISTERS, "O_rmem", "is normalised already"), "16 KB", (FAR, "O", "128 rows")]],
    },
    "05_epilogue_norm_v2": {
        "title": "fused: what has changed since chapter 04",
        "alt": "As in chapter 04, but only tiles of keys that a query sees are walked, the next K or V is copied while this one is "
               "multiplied, and O is divided by l once, on its way out.",
        "rows": [
            [(FAR, "Q", "128 rows"), "16 KB", (SHARED, "Q_smem", "64 × 128, fp32")],
            ("for each tile of 64 keys that the queries see", [
                [(FAR, "K", "the next 64 keys"), "~8 KB", (SHARED, "narrow → KV_smem", "fp16, then fp32"), "Q, K: 512 KB",
                 (REGISTERS, "S_rmem", "8 × 8 a thread"), "", (UNITS, "FP32 cores", "S = Q Kᵀ")],
                [(REGISTERS, "S_rmem → P", "and m, l"), "", (UNITS, "shuffles, exp2", "masks: last tiles only")],
                [(REGISTERS, "P", "fp32"), "32 KB", (SHARED, "P_smem", "padded rows")],
                [(FAR, "V", "the next 64 keys"), "~8 KB", (SHARED, "narrow → KV_smem", "the other buffer"), "P, V: 512 KB",
                 (REGISTERS, "O_rmem", "8 × 8 a thread"), "", (UNITS, "FP32 cores", "O += P V")]]),
            [(REGISTERS, "O_rmem / l", "the one division"), "16 KB", (FAR, "O", "128 rows")]],
    },
    "06_fp8_prefetch_v3": {
        "title": "hopper, e4m3: three warpgroups own 192 queries, a fourth one copies",
        "alt": "One warpgroup has the copy engine fill rings of two tiles of K and of V, 10 KB each. The tensor cores read them from shared "
               "memory; S, P and O are in registers.",
        "rows": [
            [(FAR, "Q", "192 rows, e4m3"), "~12 KB", (SHARED, "Q_smem", "192 × 64")],
            ("for each tile of 160 keys", [
                [(FAR, "K", "160 keys, e4m3"), "~10 KB", (SHARED, "K_smem", "a ring of 2"), "Q, K", (UNITS, "tensor cores", "wgmma: S = Q Kᵀ")],
                [(UNITS, "tensor cores", "sums in fp32"), "", (REGISTERS, "S_rmem → P", "80 a thread; P in e4m3"), ],
                [(FAR, "Vᵀ", "160 keys, e4m3"), "~10 KB", (SHARED, "V_smem", "a ring of 2"), "V; P from registers",
                 (UNITS, "tensor cores", "wgmma: O += P V")]]),
            [(REGISTERS, "O_rmem · s_v / l", "32 a thread"), "24 KB", (FAR, "O", "192 rows, fp16")]],
    },
    "07_flash_decoding": {
        "title": "tensor_cores: one query, the keys split over the whole GPU",
        "alt": "Each block reads its share of K and V straight into registers, 8 KB a warp at a time. Its warps are merged in shared memory, "
               "the blocks through a small workspace.",
        "rows": [
            ("each warp, for every 32 keys of its share", [
                [(FAR, "K", "32 keys"), "4 KB", (REGISTERS, "K", "as it lies in memory"), "", (UNITS, "tensor cores", "mma.sync: Sᵀ = K Qᵀ")],
                [(FAR, "V", "32 keys"), "4 KB", (REGISTERS, "V", "as it lies in memory"), "", (UNITS, "tensor cores", "Oᵀ += Vᵀ Pᵀ")]]),
            [(REGISTERS, "o, m, l", "of each warp"), "once", (SHARED, "8 warps", "are merged"), "once", (FAR, "workspace", "o, lse of each split")],
            [(FAR, "workspace", "of all splits"), "once", (REGISTERS, "o", "the last block merges"), ],
            [(REGISTERS, "o", "128 bytes a head"), "once", (FAR, "O", "one row")]],
    },
    "08_wmma": {
        "title": "asked_layout: four warps own 32 queries each",
        "alt": "K and V come to shared memory by asynchronous copies; every warp reads all of them as fragments. S and P never leave the "
               "registers; Q is read anew from shared memory for each tile.",
        "rows": [
            [(FAR, "Q", "128 rows"), "16 KB", (SHARED, "Q_smem", "128 × 64")],
            ("for each tile of 64 keys that the queries see", [
                [(FAR, "K", "64 keys"), "~8 KB", (SHARED, "K_smem", "64 × 64, padded"), "Q 16, K 32 KB", (REGISTERS, "fragments", "16 × 16"),
                 "", (UNITS, "tensor cores", "S = Q Kᵀ")],
                [(REGISTERS, "S → P", "the layout was asked for"), "", (UNITS, "shuffles, exp2", "one step of the softmax")],
                [(FAR, "V", "64 keys"), "~8 KB", (SHARED, "V_smem", "64 × 64, padded"), "V: 32 KB", (REGISTERS, "fragments", "16 × 16"),
                 "", (UNITS, "tensor cores", "O += P V")]]),
            [(REGISTERS, "O / l", "32 × 64 a warp"), "16 KB", (FAR, "O", "128 rows")]],
    },
    "09_cute": {
        "title": "flash_sm90: three warpgroups own 192 queries, one warp of a fourth copies",
        "alt": "The copy engine (TMA) fills rings of two tiles of K and of V, 16 KB each, and takes O away. The tensor cores read Q, K and V "
               "from shared memory; S, P and O are in registers.",
        "rows": [
            [(FAR, "Q", "192 rows"), "~TMA 24 KB", (SHARED, "Q_smem", "192 × 64, swizzled")],
            ("for each tile of 128 keys that the queries see", [
                [(FAR, "K", "128 keys"), "~TMA 16 KB", (SHARED, "K_smem", "a ring of 2"), "Q, K", (UNITS, "tensor cores", "wgmma: S = Q Kᵀ")],
                [(UNITS, "tensor cores", "sums in fp32"), "", (REGISTERS, "S_rmem → P", "64 a thread, exp2")],
                [(FAR, "V", "128 keys"), "~TMA 16 KB", (SHARED, "V_smem", "a ring of 2"), "V; P from registers",
                 (UNITS, "tensor cores", "wgmma: O += P V")]]),
            [(REGISTERS, "O_rmem / l", "32 a thread"), "24 KB", (SHARED, "O_smem", "192 × 64"), "~TMA 24 KB", (FAR, "O", "192 rows")]],
    },
}

WIDTH, BOX, HIGH, ROW, TOP, EDGE = 940, 158, 40, 58, 66, 26
STYLE = """
svg.al { --ink: #1f2328; --soft: #59636e; --m0: #fbe3c8; --m1: #cdeaf0; --m2: #dbe7cf; --m3: #eadcf4; --loop: #f3f4f6; --paper: #ffffff;
  font-family: system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { svg.al { --ink: #e6edf3; --soft: #9aa4af; --m0: #5a3b12; --m1: #134b57; --m2: #34491f; --m3: #4a2f5e;
  --loop: #1c2128; --paper: #0d1117; } }
svg.al text { fill: var(--ink); font-size: 12px; }
svg.al .title { font-size: 14px; font-weight: 600; }
svg.al .head, svg.al .soft { fill: var(--soft); font-size: 11px; }
svg.al .name { font-weight: 600; }
svg.al .m0 { fill: var(--m0); } svg.al .m1 { fill: var(--m1); } svg.al .m2 { fill: var(--m2); } svg.al .m3 { fill: var(--m3); }
svg.al .loop { fill: var(--loop); stroke: var(--soft); stroke-dasharray: 2 3; }
svg.al .paper { fill: var(--paper); }
svg.al .arrow { stroke: var(--ink); stroke-width: 1.4; fill: none; } svg.al .later { stroke-dasharray: 5 4; }
svg.al .tip { fill: var(--ink); stroke: none; }
"""


class Drawing:
    def __init__(self, picture):
        self.columns = picture.get("columns", MEMORIES)
        self.step = (WIDTH - 2 * EDGE - BOX) / (len(self.columns) - 1)
        self.colours = [0, 1, 2, 3] if len(self.columns) == 4 else [0, 3, 0]
        self.back, self.front, self.y = [], [], TOP

    def text(self, x, y, words, kind, anchor="middle"):
        self.front.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{html.escape(words)}</text>')

    def x(self, column):
        return EDGE + self.step * column

    def box(self, column, name, what):
        x = self.x(column)
        self.front.append(f'<rect class="m{self.colours[column]}" x="{x:g}" y="{self.y}" width="{BOX}" height="{HIGH}" rx="5"/>')
        self.text(x + BOX / 2, self.y + 17, name, "name")
        self.text(x + BOX / 2, self.y + 32, what, "soft")

    def arrow(self, from_, to, words):
        right = to > from_
        begin = self.x(from_) + (BOX if right else 0) + (2 if right else -2)
        end = self.x(to) + (0 if right else BOX) + (-2 if right else 2)
        y, tip = self.y + HIGH / 2, 7 if right else -7
        later = " later" if words.startswith("~") else ""
        self.front.append(f'<path class="arrow{later}" d="M{begin:g} {y:g}H{end - tip:g}"/>'
                          f'<path class="tip" d="M{end:g} {y:g}l{-tip} -4v8z"/>')
        if words.strip("~"):
            self.text((begin + end) / 2, y - 5, words.strip("~"), "soft")

    def row(self, parts):
        for i, part in enumerate(parts):
            if isinstance(part, tuple):
                self.box(*part)
            else:
                self.arrow(parts[i - 1][0], parts[i + 1][0], part)
        self.y += ROW

    def loop(self, words, rows):
        top = self.y - 6
        self.y += 20
        for parts in rows:
            self.row(parts)
        self.back.append(f'<rect class="loop" x="8" y="{top}" width="{WIDTH - 16}" height="{self.y - top - 8}" rx="8"/>')
        self.text(EDGE, top + 17, "↻ " + words, "soft", "start")
        self.y += 10


def svg(picture):
    drawing = Drawing(picture)
    for i, column in enumerate(drawing.columns):
        drawing.text(drawing.x(i) + BOX / 2, 52, column, "head")
    drawing.text(EDGE, 24, picture["title"], "title", "start")
    for row in picture["rows"]:
        drawing.loop(*row) if isinstance(row, tuple) else drawing.row(row)
    height = drawing.y
    if any("~" in str(row) for row in picture["rows"]):
        drawing.text(WIDTH - EDGE, 24, "- - →  goes on while the kernel does something else", "soft", "end")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" class="al" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
            f'aria-label="{html.escape(picture["alt"])}">\n<style>{STYLE}</style>\n'
            f'<rect class="paper" width="{WIDTH}" height="{height}" rx="8"/>\n'
            + "\n".join(drawing.back + drawing.front) + "\n</svg>\n")


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).parents[1], help="the repository")
    options = parser.parse_args(arguments)
    folder, stale = options.root / "docs" / "pictures", []
    for name, picture in PICTURES.items():
        path, text = folder / f"{name}.svg", svg(picture)
        if options.check:
            if not path.exists() or path.read_text() != text:
                stale.append(f"docs/pictures/{name}.svg is not what docs/pictures.py draws: run 'make docs'")
            readme = options.root / name / "README.md"
            if readme.exists() and f"![{picture['alt']}](../docs/pictures/{name}.svg)" not in readme.read_text():
                stale.append(f"{name}/README.md does not show its picture with these words: ![{picture['alt']}](../docs/pictures/{name}.svg)")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    print("\n".join(stale), end="\n" if stale else "")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
