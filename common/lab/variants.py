"""Gradable variants: what a lab of kind "variant" asks for, chosen by the instructor's seed.

The answers to the other labs stand in the chapters. These have none anywhere: a seed picks a feature
(a sliding window, a soft cap, ALiBi, a prefix that everyone sees, another layout of V) and its
numbers. The judge knows the rules (job.hpp) and has an oracle for them.

    python3 common/lab/variants.py 2026 2027    # what these seeds ask for in each lab
"""

import random
import sys

# Each: the numbers drawn from a random.Random, the lines of variant.hpp, the words of the question.
# {n} is the number. Rules of the judge have the same names.


def soft_cap(draw):
    cap = draw.randrange(6, 17) / 4
    return {"soft_cap": cap}, f"""\
// The score s, scale included, becomes kSoftCap · tanh(s / kSoftCap).
constexpr float kSoftCap = {cap}f;
""", f"""\
**A soft cap.** Before anything else is done with it, a score s (the scale is in it already) becomes
cap · tanh(s / cap), with cap = {cap:g} (`al::variant::kSoftCap`).
"""


def alibi(draw):
    slope = float(draw.randrange(2, 9))
    return {"alibi": slope}, f"""\
// Head h of Hq (h = 0 … Hq - 1, within its sequence) adds -2^(-kAlibi · (h + 1) / Hq) · distance to a
// score, with the distance |i + Nkv - Nq - j| of key j from query i.
constexpr float kAlibi = {slope}f;
""", f"""\
**ALiBi** (Press et al., 2022): a bias that grows with the distance. To the score of query i and key j,
after the scale, head h (0 … Hq − 1, counted within its sequence) adds −m · |i + Nkv − Nq − j| with
m = 2^(−{slope:g} · (h + 1) / Hq) (`al::variant::kAlibi` is the {slope:g}).
"""


def window(draw):
    keys = draw.randrange(5, 45)
    return {"window": keys}, f"""\
// Of the keys that it sees, a query sees the last kWindow only.
constexpr int kWindow = {keys};
""", f"""\
**A sliding window.** Of the keys that query i sees by the causal mask, it sees the last {keys} only
(`al::variant::kWindow`), its own among them. Tiles of keys that no query of a block sees need not be read.
"""


def prefix(draw):
    keys = draw.randrange(3, 40)
    return {"prefix": keys}, f"""\
// Keys 0 … kPrefix - 1 are seen by every query, whatever the mask says.
constexpr int kPrefix = {keys};
""", f"""\
**A prefix.** The first {keys} keys (`al::variant::kPrefix`; fewer, where there are fewer) are seen by
every query, whatever the causal mask says; all others as before.
"""


def transposed_v(draw):
    return {}, """\
// V is [B, Hkv, D, Nkv] in memory.
constexpr bool kTransposedV = true;
""", """\
**Another layout.** V comes as `[B, Hkv, D, Nkv]`: of each head the transpose, Nkv neighbours in memory.
"""


FEATURES = {f.__name__: f for f in (soft_cap, alibi, window, prefix, transposed_v)}


class Variant:
    """What seed `seed` makes of a lab: .features, .rules, .case (what changes in each problem),
    .header (the text of variant.hpp) and .question."""

    def __init__(self, lab, seed):
        facts = lab.facts["variant"]
        draw = random.Random(f"{lab.id} {seed}")
        self.seed = seed
        self.features = sorted(draw.sample(facts["of"], facts.get("pick", 1)))
        self.rules, lines, words = dict(lab.facts.get("rules", {})), [], []
        for name in self.features:
            rules, line, sentence = FEATURES[name](draw)
            self.rules |= rules
            lines.append(line)
            words.append(sentence)
        self.case = {"v_transposed": True} if "transposed_v" in self.features else {}
        body = "\n".join(lines)
        self.header = (f"// Lab {lab.id}, seed {seed}: what is asked of your kernel. Made by `make lab`; the judge "
                       f"uses its own copy.\n#pragma once\n\nnamespace al::variant {{\n\n{body}\n"
                       "}  // namespace al::variant\n")
        self.question = "\n".join(words)


def main(seeds):
    import starter  # in the same folder

    for lab in starter.all_labs():
        if lab.kind == "variant":
            drawn = [Variant(lab, int(seed)) for seed in seeds]
            print(lab.id, *("+".join(variant.features) for variant in drawn), sep="  ")


if __name__ == "__main__":
    main(sys.argv[1:])
