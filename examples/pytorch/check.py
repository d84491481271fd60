#!/usr/bin/env python3
"""Checks every stage against PyTorch, on PyTorch's tensors.

    python3 examples/pytorch/check.py [--device cpu|cuda] [--stage NAME,...] [--large] [--cases]

What is right is PyTorch's own scaled_dot_product_attention in float64, on the same rounded inputs;
how far from it a result may be is docs/numerics.md's budget: twice the error of the plain
implementation, here made of torch's matrix products in float32, plus an epsilon. A line for each
variant and dtype: the largest error as a part of its budget, and PyTorch's own error in that dtype
as a part of the same budget. On the CPU the kernels run in the emulator.

Exit code: 0 right, 1 wrong, 77 without torch, the library, or a GPU for --device cuda.
"""

import argparse
import collections
import itertools
import math
import sys
import time

try:
    import torch
    import torch.nn.functional as functional
except ImportError:
    print("SKIP: there is no torch here")
    sys.exit(77)

import attention_ladder as ladder
from library_or_skip import library_or_skip

Shape = collections.namedtuple("Shape", "batch heads kv_heads seq kv_seq head_dim")

SHAPES = [
    Shape(2, 4, 2, 65, 129, 64),  # one past a tile's edge both ways, two query heads a key head
    Shape(1, 3, 1, 70, 40, 128),  # more queries than keys: causal rows that see no key
    Shape(2, 8, 2, 1, 300, 64),  # decoding
    Shape(1, 2, 1, 17, 48, 256),
]
LARGE = [  # for a GPU
    Shape(1, 2, 2, 128, 128, 64),
    Shape(2, 16, 4, 1024, 1024, 64),
    Shape(1, 16, 16, 1000, 1777, 128),
    Shape(1, 8, 8, 1024, 1024, 256),
    Shape(8, 32, 8, 1, 8192, 128),
]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16,
          "e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
LARGEST = {"e4m3": 448.0, "e5m2": 57344.0}
# What is rounded on the way, P and O, to within ... of itself: docs/numerics.md.
ROUNDING = {"fp16": 2.0**-11, "bf16": 2.0**-8, "e4m3": 2.0**-4, "e5m2": 2.0**-3}

Slack = collections.namedtuple("Slack", "scores out")
NO_SLACK = Slack(0, 0)
TO_8_BITS = Slack(8 * 0.0265 * 1.4143, 8 * 0.0265)
SLACK = {("06_fp8_prefetch_v3", "hopper"): Slack(2.0**-9, 0),
         ("06_fp8_prefetch_v3", "quantised"): TO_8_BITS,
         ("06_fp8_prefetch_v3", "quantised_rotated"): TO_8_BITS}


def operation_of(stage, variant):
    if stage == "01_naive_qk":
        return "scores"
    if stage == "02_softmax":
        return "probabilities" if variant == "pipeline" else "softmax"
    return "pv" if stage == "03_pv" and variant != "pipeline" else "attention"


def store(x, dtype):
    """x in that dtype, and the factor of each head, or None."""
    if dtype not in LARGEST:
        return x.to(DTYPES[dtype]), None
    scale = x.abs().amax(dim=(0, 2, 3)) / LARGEST[dtype]
    return (x / scale[:, None, None]).to(DTYPES[dtype]), scale


def one_by_one(a, b):
    """a @ b, one term added after the other: the plain implementation's order. A library adds in
    several sums, and so with less error."""
    out = a[..., :, :1] * b[..., :1, :]
    for i in range(1, b.shape[-2]):
        out += a[..., :, i:i + 1] * b[..., i:i + 1, :]
    return out


class Inputs:
    """Q, K and V of one shape and dtype, and S and P made of them, as tensors for the stages."""

    def __init__(self, shape, dtype, causal, device):
        self.shape, self.dtype, self.causal = shape, dtype, causal
        self.outliers = not causal  # one element in 1024 twenty times larger
        generator = torch.Generator().manual_seed(1)

        def make(*size):
            x = torch.randn(size, generator=generator)
            if self.outliers:
                x = torch.where(torch.rand(size, generator=generator) < 1 / 1024, 20 * x, x)
            return store(x.to(device), dtype)

        s = shape
        self.q, self.q_scale = make(s.batch, s.heads, s.seq, s.head_dim)
        self.k, self.k_scale = make(s.batch, s.kv_heads, s.kv_seq, s.head_dim)
        self.v, self.v_scale = make(s.batch, s.kv_heads, s.kv_seq, s.head_dim)
        self.mask = torch.ones(s.seq, s.kv_seq, dtype=torch.bool, device=device)
        if causal:
            self.mask = self.mask.tril(s.kv_seq - s.seq)
        self.scale = s.head_dim**-0.5
        if dtype not in LARGEST:  # where 02 and 03 begin
            self.s = self.scores(torch.float64).to(DTYPES[dtype])
            self.p = softmax(self.scores(torch.float64), self.mask)[0].to(DTYPES[dtype])

    def wide(self, name, kind):
        """q, k or v as numbers of `kind`, key heads repeated for their query heads."""
        x, scale = getattr(self, name).to(kind), getattr(self, name + "_scale")
        if scale is not None:
            x = x * scale.to(kind)[:, None, None]
        return x if name == "q" else x.repeat_interleave(
            self.shape.heads // self.shape.kv_heads, dim=1)

    def scores(self, kind):
        product = torch.matmul if kind == torch.float64 else one_by_one
        return product(self.wide("q", kind), self.wide("k", kind).mT) * self.scale

    def score_scale(self):
        """|scale| sqrt(sum_d q_d^2 mean_j k_jd^2) of each row."""
        k2 = self.wide("k", torch.float64).square().mean(dim=2, keepdim=True)
        return (self.wide("q", torch.float64).square() * k2).sum(dim=-1).sqrt() * self.scale

    def __str__(self):
        s = self.shape
        return (f"B{s.batch} H{s.heads} Hkv{s.kv_heads} N{s.seq} Nkv{s.kv_seq} D{s.head_dim} "
                f"{self.dtype} {'causal' if self.causal else 'full'}")


def softmax(s, mask):
    """P and LSE; a row without keys has P = 0 and LSE = -inf."""
    s = s.masked_fill(~mask, -math.inf)
    return torch.softmax(s, dim=-1).masked_fill(~mask, 0), torch.logsumexp(s, dim=-1)


def round_weights(p, dtype):
    if dtype not in LARGEST:
        return p.to(DTYPES[dtype]).float()
    largest = p.amax(dim=-1, keepdim=True).clamp_min(1e-38)  # 8 bits: before the division by l
    return (p / largest * 256).to(DTYPES[dtype]).float() / 256 * largest


class Expected:
    """The right result of one operation on Inputs, and the budget of each row's error."""

    def __init__(self, operation, inputs):
        exact, plain = torch.float64, torch.float32
        self.operation, self.inputs = operation, inputs
        self.mask = inputs.mask if operation in ("scores", "softmax", "probabilities") else None
        out = torch.float16 if inputs.dtype in LARGEST else DTYPES[inputs.dtype]
        self.lse = None
        if operation == "scores":
            self.exact, by_steps = inputs.scores(exact), inputs.scores(plain)
            self.row_scale = inputs.score_scale()
        elif operation == "pv":
            p = torch.where(inputs.mask, inputs.p, 0)
            self.exact = p.to(exact) @ inputs.wide("v", exact)
            by_steps = one_by_one(p.float(), inputs.wide("v", plain)).to(out)
            self.row_scale = self.of_sums(p.to(exact))
        else:
            s = [inputs.s.to(kind) if operation == "softmax" else inputs.scores(kind)
                 for kind in (exact, plain)]
            p, self.lse = softmax(s[0], inputs.mask)
            p_by_steps, self.lse_by_steps = softmax(s[1], inputs.mask)
            p_by_steps = round_weights(p_by_steps, inputs.dtype)
            if operation == "attention":
                self.exact = torch.nan_to_num(functional.scaled_dot_product_attention(
                    *(inputs.wide(name, exact) for name in "qkv"), attn_mask=inputs.mask))
                by_steps = one_by_one(p_by_steps, inputs.wide("v", plain)).to(out)
                self.row_scale = self.of_sums(p)
            else:
                self.exact, by_steps = p, p_by_steps
                self.row_scale = p.amax(dim=-1)
        self.twice_plain = 2 * self.scaled_errors(by_steps).max().item()

    def of_sums(self, p):
        v2 = self.inputs.wide("v", torch.float64).square().mean(dim=-1, keepdim=True)
        return (p.square() @ v2).sqrt()[..., 0]

    def scaled_errors(self, got):
        """The largest error of each row, in its scale; what is not finite is infinitely wrong."""
        error = (got.double() - self.exact).abs()
        if self.mask is not None:
            error = error.masked_fill(~self.mask, 0)
        error = torch.nan_to_num(error, nan=math.inf, posinf=math.inf).amax(dim=-1)
        return torch.where(error == 0, 0, error / self.row_scale)

    def slack_of_scores(self, slack):
        part = slack.scores
        if self.inputs.dtype == "fp32" and self.operation in ("attention", "probabilities"):
            part += 2.0**-18
        return part * self.inputs.score_scale() if part else 0

    def part_of_budget(self, got, slack=NO_SLACK):
        if self.operation == "scores":
            epsilon = 2.0**-18
        elif self.inputs.dtype == "fp32":
            epsilon = 2.0**-20
        elif self.inputs.dtype in LARGEST:
            epsilon = ROUNDING[self.inputs.dtype] + ROUNDING["fp16"]
        else:
            epsilon = ROUNDING[self.inputs.dtype] * (2 if self.operation == "attention" else 1)
        budget = self.twice_plain + epsilon + slack.out + self.slack_of_scores(slack)
        return (self.scaled_errors(got) / budget).max().item()

    def part_of_lse_budget(self, got, slack):
        same = self.lse == got  # -inf too
        plain = (self.lse_by_steps.double() - self.lse).abs()
        plain = plain[plain.isfinite()].max().item()
        budget = (2 * plain + 2.0**-18 * self.lse.abs().clamp_min(1)
                  + self.slack_of_scores(slack))
        error = torch.nan_to_num((got.double() - self.lse).abs(), nan=math.inf)
        return torch.where(same, 0, error / budget).max().item()


def run(stage, variant, operation, x):
    """The stage's result, and its LSE or None."""
    if operation == "scores":
        return ladder.scores(x.q, x.k, causal=x.causal, variant=variant), None
    if operation == "softmax":
        return ladder.softmax(x.s, causal=x.causal, variant=variant, return_lse=True)
    if operation == "probabilities":
        return ladder.probabilities(x.q, x.k, causal=x.causal), None
    if operation == "pv":
        return ladder.pv(x.p, x.v, causal=x.causal, variant=variant), None
    return ladder.attention(x.q, x.k, x.v, causal=x.causal, stage=stage, variant=variant,
                            q_scale=x.q_scale, k_scale=x.k_scale, v_scale=x.v_scale,
                            return_lse=True)


def torchs_own(operation, x):
    """PyTorch's result in the same dtype, or None where it has none."""
    if operation != "attention" or x.dtype in LARGEST:
        return None
    k, v = (y.repeat_interleave(x.shape.heads // x.shape.kv_heads, dim=1) for y in (x.k, x.v))
    own = functional.scaled_dot_product_attention(x.q, k, v, attn_mask=x.mask)
    return own.masked_fill(~x.mask.any(dim=-1, keepdim=True), 0)  # its rows without keys vary


class Tally:
    """The cases of one variant and dtype."""

    def __init__(self):
        self.cases = self.refused = 0
        self.worst = self.worst_lse = 0.0
        self.torchs = None


def check(device, stages, shapes, dtypes, show_cases):
    backend = "emulator" if device == "cpu" else "cuda"
    variants = [(stage, variant, operation_of(stage, variant))
                for stage in ladder.stages(backend) if not stages or stage in stages
                for variant in ladder.variants(stage, backend)]
    tallies = {(stage, variant, dtype): Tally()
               for stage, variant, _ in variants for dtype in dtypes}
    cases = list(itertools.product(shapes, dtypes, (False, True)))
    for number, (shape, dtype, causal) in enumerate(cases):
        x = Inputs(shape, dtype, causal, device)
        print(f"\r\033[K[{number + 1}/{len(cases)}] {x}", end="", file=sys.stderr, flush=True)
        expected, torchs = {}, {}
        for stage, variant, operation in variants:
            slack = SLACK.get((stage, variant), NO_SLACK)
            if dtype in LARGEST and operation != "attention":
                continue
            if slack is not NO_SLACK and x.outliers:
                continue  # it is a part of a score's root mean square, and theirs are far larger
            tally = tallies[stage, variant, dtype]
            try:
                got, lse = run(stage, variant, operation, x)
            except ladder.Unsupported:
                tally.refused += 1
                continue
            if operation not in expected:
                expected[operation] = Expected(operation, x)
                own = torchs_own(operation, x)
                torchs[operation] = own if own is None else expected[operation].part_of_budget(own)
            part = expected[operation].part_of_budget(got, slack)
            part_lse = 0.0 if lse is None else expected[operation].part_of_lse_budget(lse, slack)
            tally.cases += 1
            tally.worst, tally.worst_lse = max(tally.worst, part), max(tally.worst_lse, part_lse)
            if torchs[operation] is not None:
                tally.torchs = max(tally.torchs or 0, torchs[operation])
            if show_cases or not max(part, part_lse) <= 1:
                print(f"\r\033[K{stage} {variant}: {x}: {part:.2f} of the budget, LSE "
                      f"{part_lse:.2f}", flush=True)
    print("\r\033[K", end="", file=sys.stderr, flush=True)
    return tallies


def decoding(device):
    """Chapter 07's own: lengths, pages in any order, a cache of 8 bits. PyTorch has a mask."""
    generator = torch.Generator().manual_seed(2)
    batch, heads, kv_heads, keys, dim, page = 3, 8, 2, 256, 64, 16
    q = torch.randn(batch, heads, 1, dim, generator=generator).to(device).half()
    k, v = (torch.randn(batch, kv_heads, keys, dim, generator=generator).to(device).half()
            for _ in "kv")
    lengths = torch.tensor([1, 100, 256], dtype=torch.int32, device=device)
    mask = (torch.arange(keys, device=device) < lengths[:, None])[:, None, None, :]
    table = torch.randperm(batch * keys // page, generator=generator).to(device)
    pages = []
    for x in (k, v):
        split = x.reshape(batch, kv_heads, keys // page, page, dim).transpose(1, 2)
        paged = torch.empty(batch * keys // page, kv_heads, page, dim, dtype=x.dtype, device=device)
        paged[table] = split.reshape(paged.shape)
        pages.append(paged)
    table = table.reshape(batch, -1).int()
    (k8, k_scale), (v8, v_scale) = store(k.float(), "e4m3"), store(v.float(), "e4m3")

    worst = {}
    for name, got, (k_used, v_used) in (
            ("lengths", ladder.attention(q, k, v, kv_len=lengths), (k, v)),
            ("pages", ladder.attention(q, *pages, kv_len=lengths, page_table=table), (k, v)),
            ("8-bit cache", ladder.attention(q, k8, v8, kv_len=lengths, k_scale=k_scale,
                                             v_scale=v_scale),
             (k8.double() * k_scale.double()[:, None, None],
              v8.double() * v_scale.double()[:, None, None]))):
        x = Inputs(Shape(batch, heads, kv_heads, 1, keys, dim), "fp16", False, device)
        x.q, x.k, x.v, x.mask = q, k_used, v_used, mask
        worst[name] = Expected("attention", x).part_of_budget(got)
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"),
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--stage", default="", help="only these, as in 04_fused_v1,09_cute")
    parser.add_argument("--dtype", default=",".join(DTYPES))
    parser.add_argument("--large", action="store_true", help="shapes for a GPU as well")
    parser.add_argument("--cases", action="store_true", help="a line for each case")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("SKIP: torch sees no GPU")
        sys.exit(77)
    library_or_skip("cuda" if options.device == "cuda" else "emulator")
    stages = [name for name in options.stage.split(",") if name]
    if options.device == "cpu":
        torch.set_num_threads(1)  # its tensors are small, and the emulator has the other cores
    began = time.monotonic()
    with torch.no_grad():
        tallies = check(options.device, stages, SHAPES + (LARGE if options.large else []),
                        options.dtype.split(","), options.cases)
        worst = {} if stages else decoding(options.device)

    print("largest error as a part of its budget; PyTorch's own beside it, by the same budget\n")
    print(f"{'stage':<20} {'variant':<18} {'dtype':<5} {'cases':>5}  {'O':>5} {'LSE':>5} "
          f"{'torch':>6}  refused")
    for (stage, variant, dtype), t in tallies.items():
        if t.cases:
            torchs = "" if t.torchs is None else f"{t.torchs:.2f}"
            lse = f"{t.worst_lse:.2f}" if t.worst_lse else ""
            print(f"{stage:<20} {variant:<18} {dtype:<5} {t.cases:>5}  {t.worst:>5.2f} {lse:>5} "
                  f"{torchs:>6}  {t.refused or ''}")
    for name, part in worst.items():
        print(f"07_flash_decoding    {name:<18} fp16      1  {part:>5.2f}")
    parts = [max(t.worst, t.worst_lse) for t in tallies.values()] + list(worst.values())
    right = all(part <= 1 for part in parts)
    total = sum(t.cases for t in tallies.values()) + len(worst)
    print(f"\n{'right' if right else 'WRONG'}: {total} cases on {options.device} with torch "
          f"{torch.__version__}, {time.monotonic() - began:.0f} s")
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
