"""Gradable variants: what a lab of kind "variant" asks for, chosen by the instructor's seed.

The answers to the other labs stand in the chapters. These have none anywhere: a seed picks features
(another mask, other scores, a score more in the sum, another layout in memory) and their numbers. The
judge knows the rules (job.hpp) and has an oracle for them.

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


def chunk(draw):
    keys = draw.randrange(9, 60)
    return {"chunk": keys}, f"""\
// Keys lie in chunks of so many: 0 … kChunk - 1, kChunk … 2 kChunk - 1, and so on. Query i is at the
// place i + Nkv - Nq among them, and of the keys that it sees, it sees those of its own chunk only.
constexpr int kChunk = {keys};
""", f"""\
**Chunks.** Keys lie in chunks of {keys} (`al::variant::kChunk`): 0 … {keys - 1}, {keys} … {2 * keys - 1} and so on. Query i is at the
place i + Nkv − Nq among them; of the keys that it sees by the causal mask, it sees only those of the chunk in
which it is itself. Tiles of keys that no query of a block sees need not be read.
"""


def decay(draw):
    keys = float(draw.randrange(4, 33))
    return {"half_life": keys}, f"""\
// P_ij counts as P_ij · 2^(-distance / kHalfLife), the distance being |i + Nkv - Nq - j|.
constexpr float kHalfLife = {keys}f;
""", f"""\
**A decay.** What lies far away counts less: in place of P_ij take P_ij · 2^(−|i + Nkv − Nq − j| / {keys:g})
(`al::variant::kHalfLife` is the {keys:g}).
"""


def sink(draw):
    score = draw.choice([-1, 1]) * draw.randrange(2, 9) / 4
    return {"sink": score}, f"""\
// A score more in every row, of no key and with no V: the denominator is e^kSink + Σ_j e^(s_j).
constexpr float kSink = {score}f;
""", f"""\
**A sink**, into which a query can put its weight when no key suits it: one score more in every row, {score:g}
(`al::variant::kSink`), as it stands, neither scaled nor biased nor masked. It belongs to no key and has no V:
P_ij = exp(s_ij) / (exp(sink) + Σ_j exp(s_ij)). The LSE, where there is one, has it in its sum too; a row
that sees no key still gives zeros, with LSE = sink.
"""


def distance(draw):
    return {"distance": True}, """\
// The score of query i and key j is -scale · |q_i - k_j|², where it was scale · q_i · k_j.
constexpr bool kDistance = true;
""", """\
**A distance.** The score of query i and key j is −scale · |q_i − k_j|², the square of the distance between the two
vectors, where it was scale · q_i · k_j. Add up (q − k)² as it stands: |q|² + |k|² − 2 q · k loses digits.
"""


def transposed_k(draw):
    return {}, """\
// K is [B, Hkv, D, Nkv] in memory.
constexpr bool kTransposedK = true;
""", """\
**Another layout.** K comes as `[B, Hkv, D, Nkv]`: of each head the transpose, Nkv neighbours in memory.
"""


def transposed_v(draw):
    return {}, """\
// V is [B, Hkv, D, Nkv] in memory.
constexpr bool kTransposedV = true;
""", """\
**Another layout.** V comes as `[B, Hkv, D, Nkv]`: of each head the transpose, Nkv neighbours in memory.
"""


# In the order in which a question names them, and a kernel meets them.
FEATURES = {f.__name__: f for f in (transposed_k, distance, soft_cap, alibi, window, chunk, prefix, decay, sink, transposed_v)}
LAYOUTS = ("transposed_k", "transposed_v")


class Variant:
    """What seed `seed` makes of a lab: .features, .rules, .case (what changes in each problem),
    .header (the text of variant.hpp) and .question."""

    def __init__(self, lab, seed):
        facts = lab.facts["variant"]
        draw = random.Random(f"{lab.id} {seed}")
        self.seed = seed
        picked = draw.sample(facts["of"], facts.get("pick", 1))
        picked = {name for choice in picked for name in choice.split("+")}
        self.features = [name for name in FEATURES if name in picked]
        self.rules, lines, words = dict(lab.facts.get("rules", {})), [], []
        for name in self.features:
            rules, line, sentence = FEATURES[name](draw)
            self.rules |= rules
            lines.append(line)
            words.append(sentence)
        self.case = {f"{name[-1]}_transposed": True for name in LAYOUTS if name in self.features}
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
