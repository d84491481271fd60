#!/usr/bin/env python3
"""A small language model that writes with PyTorch's attention, then with the ladder's: the same text?

    python3 examples/pytorch/generate.py [--device cpu|cuda] [--prefill 09_cute] [--pages] [--steps 64]

The model is a transformer as they are built today (RMS norm, rotary positions, grouped-query
attention, gated MLP), small enough to learn the chapters of this repository, byte by byte, in a
minute on two cores. Then four prompts of different lengths are continued greedily: each prompt
in one pass (prefill, chapter 05 or 09), then all four together a byte at a time against their cache of
keys and values (decoding, chapter 07), which with --pages lies in pages of 16 keys.

PyTorch's attention writes first. The ladder's then reads along, and at every byte says which it
would have written; as long as all are the same, that is what it writes alone. Which byte is best is
no question of right or wrong where two are so close that rounding decides: PyTorch's own back ends
differ there. How much rounding moves logits is measured, not guessed: the same text once with exact
attention (float64, O rounded once) and once with the plain implementation (scores in float32, P and
O rounded). The budget is docs/numerics.md's: the ladder's logits may be twice as far from the exact
ones as the plain one's. And wherever the best byte of the exact logits leads by more than twice what
rounding moved any logit of the plain ones, the ladder must choose it.

Exit code: 0 if so, 1 if not, 77 without torch, the library, or a GPU for --device cuda.
"""

import argparse
import math
import pathlib
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

ROOT = pathlib.Path(__file__).resolve().parents[2]

LAYERS, HEADS, KV_HEADS, HEAD_DIM, WIDTH, HIDDEN = 3, 4, 2, 64, 128, 256
VOCABULARY = 128  # ASCII
CONTEXT, BATCH = 64, 16  # of training
ROOM = 256  # keys that the cache has room for
PAGE = 16
PROMPTS = ["The kernel ", "Each thread reads ", "How much does it cost? The softmax ",
           "Shared memory has 32 banks, and a warp that "]


# --- the model ---------------------------------------------------------------------------------------


def make_weights(device):
    generator = torch.Generator().manual_seed(1)

    def matrix(rows, columns):
        x = torch.randn(rows, columns, generator=generator) * rows**-0.5
        return x.to(device).requires_grad_()

    weights = {"embedding": matrix(VOCABULARY, WIDTH), "logits": matrix(WIDTH, VOCABULARY)}
    for layer in range(LAYERS):
        for name, rows, columns in (
                ("q", WIDTH, HEADS * HEAD_DIM), ("k", WIDTH, KV_HEADS * HEAD_DIM),
                ("v", WIDTH, KV_HEADS * HEAD_DIM), ("o", HEADS * HEAD_DIM, WIDTH),
                ("gate", WIDTH, HIDDEN), ("up", WIDTH, HIDDEN), ("down", HIDDEN, WIDTH)):
            weights[f"{layer}.{name}"] = matrix(rows, columns)
    return weights


def norm(x):
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-5)


def rotate(x, positions):
    """Rotary positions: x [batch, heads, seq, head_dim], positions [batch, seq]."""
    half = HEAD_DIM // 2
    frequencies = 1e4**(-torch.arange(half, device=x.device) / half)
    angles = positions[:, None, :, None] * frequencies
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1)


def forward(weights, tokens, positions, attend):
    """Logits [batch, seq, VOCABULARY] of tokens [batch, seq]. attend(layer, q, k, v) is handed
    [batch, heads, seq, head_dim], and is the only part that knows of a cache or a mask."""
    dtype = weights["0.q"].dtype
    x = weights["embedding"][tokens]  # float32 between the layers, whatever they multiply in
    for layer in range(LAYERS):
        def times(x, name):
            return x @ weights[f"{layer}.{name}"]

        def heads(x, count):  # contiguous: what the stages take without another copy
            return x.unflatten(-1, (count, HEAD_DIM)).transpose(1, 2).contiguous()

        y = norm(x).to(dtype)
        q = rotate(heads(times(y, "q"), HEADS), positions)
        k = rotate(heads(times(y, "k"), KV_HEADS), positions)
        v = heads(times(y, "v"), KV_HEADS)
        x = x + times(attend(layer, q, k, v).transpose(1, 2).flatten(2), "o")
        y = norm(x).to(dtype)
        x = x + times(functional.silu(times(y, "gate")) * times(y, "up"), "down")
    return norm(x) @ weights["logits"]


def train(device, steps):
    """Weights that have read the chapters."""
    text = "".join(path.read_text() for path in sorted(ROOT.glob("0*/README.md")))
    data = torch.tensor([ord(c) for c in text if ord(c) < VOCABULARY], device=device)
    weights = make_weights(device)
    optimizer = torch.optim.AdamW(weights.values(), lr=6e-3, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(2)
    positions = torch.arange(CONTEXT, device=device)[None]
    began = time.monotonic()

    def attend(layer, q, k, v):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    for step in range(steps):
        starts = torch.randint(len(data) - CONTEXT, (BATCH, 1), generator=generator).to(device)
        chunk = data[starts + torch.arange(CONTEXT + 1, device=device).clamp_max(CONTEXT)]
        logits = forward(weights, chunk[:, :-1], positions, attend)
        loss = functional.cross_entropy(logits.flatten(0, 1), chunk[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if (step + 1) % 10 == 0:
            print(f"\rreading {len(data)} bytes of the chapters: step {step + 1}/{steps}, "
                  f"{loss.item() / math.log(2):.2f} bits a byte, "
                  f"{time.monotonic() - began:.0f} s ", end="", flush=True)
    print()
    return weights


# --- attention with a cache, by PyTorch and by the ladder --------------------------------------------


class TorchAttention:
    """The cache: [batch, kv_heads, ROOM, head_dim] a layer, and how many keys each sequence has."""

    def __init__(self, batch, dtype, device):
        self.cache = torch.zeros(LAYERS, 2, batch, KV_HEADS, ROOM, HEAD_DIM, dtype=dtype,
                                 device=device)
        self.lengths = torch.zeros(batch, dtype=torch.int32, device=device)
        self.rows = torch.arange(batch, device=device)

    def keep_prompt(self, layer, sequence, k, v):
        for x, cache in zip((k, v), self.cache[layer]):
            cache[sequence, :, :x.shape[2]] = x[0]

    def keep_token(self, layer, k, v):
        for x, cache in zip((k, v), self.cache[layer]):
            cache[self.rows, :, self.lengths - 1] = x[:, :, 0]

    def prefill(self, sequence):
        def attend(layer, q, k, v):
            self.keep_prompt(layer, sequence, k, v)
            return self.of_prompt(q, k, v)

        return attend

    def decode(self, layer, q, k, v):
        self.keep_token(layer, k, v)
        return self.of_cache(q, *self.cache[layer])

    def of_prompt(self, q, k, v):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    def of_cache(self, q, k, v):
        seen = torch.arange(ROOM, device=q.device) < self.lengths[:, None, None, None]
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)


class ByHand(TorchAttention):
    """A few lines of matrix products: in float64, or as the plain implementation rounds."""

    def __init__(self, batch, dtype, device, exact):
        super().__init__(batch, dtype, device)
        self.exact = exact

    def attention(self, q, k, v, seen):
        wide = torch.float64 if self.exact else torch.float32
        k, v = (x.to(wide).repeat_interleave(HEADS // KV_HEADS, dim=1) for x in (k, v))
        s = q.to(wide) @ k.transpose(-1, -2) * HEAD_DIM**-0.5
        p = s.masked_fill(~seen, -math.inf).softmax(dim=-1)
        if not self.exact:
            p = p.to(q.dtype).to(wide)
        return (p @ v).to(q.dtype)

    def of_prompt(self, q, k, v):
        seen = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).tril()
        return self.attention(q, k, v, seen)

    def of_cache(self, q, k, v):
        seen = torch.arange(ROOM, device=q.device) < self.lengths[:, None, None, None]
        return self.attention(q, k, v, seen)


class LadderAttention(TorchAttention):
    def __init__(self, batch, dtype, device, stage):
        super().__init__(batch, dtype, device)
        self.stage = stage

    def of_prompt(self, q, k, v):
        return ladder.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True,
                                                   stage=self.stage)

    def of_cache(self, q, k, v):
        return ladder.attention(q, k, v, kv_len=self.lengths, stage="07_flash_decoding")


class PagedAttention(LadderAttention):
    """The cache in pages: [n, kv_heads, PAGE, head_dim] a layer, in any order, and a table."""

    def __init__(self, batch, dtype, device, stage):
        super().__init__(batch, dtype, device, stage)
        count = batch * ROOM // PAGE
        self.cache = torch.zeros(LAYERS, 2, count, KV_HEADS, PAGE, HEAD_DIM, dtype=dtype,
                                 device=device)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(3))
        self.table = order.reshape(batch, -1).int().to(device)

    def keep_prompt(self, layer, sequence, k, v):
        at = torch.arange(k.shape[2], device=k.device)
        pages = self.table[sequence, at // PAGE]
        for x, cache in zip((k, v), self.cache[layer]):
            cache[pages, :, at % PAGE] = x[0].transpose(0, 1)

    def keep_token(self, layer, k, v):
        at = self.lengths - 1
        pages = self.table[self.rows, at // PAGE]
        for x, cache in zip((k, v), self.cache[layer]):
            cache[pages, :, at % PAGE] = x[:, :, 0]

    def of_cache(self, q, k, v):
        return ladder.attention(q, k, v, kv_len=self.lengths, page_table=self.table,
                                stage="07_flash_decoding")


# --- writing -----------------------------------------------------------------------------------------


def generate(name, weights, attention, steps, device, written=None):
    """The logits [prompts, steps, VOCABULARY] of bytes that follow the prompts. The best is written
    each time; or, whichever is best, those of `written` [prompts, steps]."""
    began = time.monotonic()
    chosen = []
    for sequence, prompt in enumerate(PROMPTS):
        tokens = torch.tensor([[ord(c) for c in prompt]], device=device)
        positions = torch.arange(len(prompt), device=device)[None]
        logits = forward(weights, tokens, positions, attention.prefill(sequence))
        attention.lengths[sequence] = len(prompt)
        chosen.append(logits[:, -1])
    logits = [torch.cat(chosen)]
    for step in range(1, steps):
        tokens = (logits[-1].argmax(dim=-1, keepdim=True) if written is None
                  else written[:, step - 1:step].to(device))
        positions = attention.lengths[:, None].clone()
        attention.lengths += 1
        logits.append(forward(weights, tokens, positions, attention.decode)[:, -1])
        print(f"\r{name}: {step + 1}/{steps}", end="", flush=True)
    logits = torch.stack(logits, dim=1).float().cpu()
    print(f", {time.monotonic() - began:.1f} s")
    return logits


def compare(torchs, exact, plain, ladders):
    """Prints what the four logits [prompts, steps, VOCABULARY] say of the ladder; is it right?"""
    def apart(logits):  # the root of the mean square
        return (logits - exact).square().mean().sqrt().item()

    budget = 2 * apart(plain) + 2.0**-20 * exact.abs().max().item()
    same = ladders.argmax(dim=-1) == torchs.argmax(dim=-1)
    as_exact = ladders.argmax(dim=-1) == exact.argmax(dim=-1)
    best = exact.topk(2, dim=-1).values
    lead = best[..., 0] - best[..., 1]
    rounding = 2 * (plain - exact).abs().max().item()
    clear = lead > rounding
    print(f"{same.sum().item()} of {same.numel()} bytes are those that PyTorch's attention chose; the closest "
          f"choice was by {lead.min().item():.2g}")
    print(f"{clear.sum().item()} lead by more than rounding may move them, {rounding:.2g}: "
          f"{(clear & as_exact).sum().item()} of these are the ladder's")
    print(f"logits are {apart(ladders):.2g} from those of exact attention, root mean square, {apart(ladders) / budget:.2f} of "
          f"the budget (PyTorch's {apart(torchs) / budget:.2f})")
    enough = clear.float().mean().item() > 0.5  # a check of few bytes would be none
    return apart(ladders) <= budget and enough and bool(as_exact[clear].all())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"),
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"),
                        help="float32 on the CPU, float16 on a GPU")
    parser.add_argument("--prefill", metavar="STAGE",
                        help="05_epilogue_norm_v2 in float32, 09_cute in 16 bits")
    parser.add_argument("--pages", action="store_true", help="the cache in pages")
    parser.add_argument("--steps", type=int, default=64, help="bytes to write")
    parser.add_argument("--training", type=int, default=300, help="steps of training")
    options = parser.parse_args()
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        print("SKIP: torch sees no GPU")
        sys.exit(77)
    library_or_skip("cuda" if options.device == "cuda" else "emulator")
    dtype = getattr(torch, options.dtype or ("float32" if device == "cpu" else "float16"))
    wide = dtype == torch.float32
    stage = options.prefill or ("05_epilogue_norm_v2" if wide else "09_cute")
    options.steps = min(options.steps, ROOM - max(map(len, PROMPTS)))

    if device == "cpu":
        torch.set_num_threads(1)  # the model is small, and the emulator has the other cores
    weights = train(device, options.training)
    weights = {name: x.detach().to(torch.float32 if name in ("embedding", "logits") else dtype)
               for name, x in weights.items()}
    with torch.no_grad():
        of = (len(PROMPTS), dtype, device)
        torchs = generate("PyTorch's attention", weights, TorchAttention(*of), options.steps, device)
        written = torchs.argmax(dim=-1)
        kind = PagedAttention if options.pages else LadderAttention
        exact, plain, ladders = (
            generate(name, weights, attention, options.steps, device, written) for name, attention in (
                ("exact attention", ByHand(*of, exact=True)),
                ("the plain implementation", ByHand(*of, exact=False)),
                (f"{stage} and 07_flash_decoding", kind(*of, stage))))

    for prompt, sequence in zip(PROMPTS, written):
        print(repr(prompt + "".join(map(chr, sequence.tolist()))))
    print(f"{dtype} on {device}:")
    sys.exit(0 if compare(torchs, exact, plain, ladders) else 1)


if __name__ == "__main__":
    main()
