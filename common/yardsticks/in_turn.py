#!/usr/bin/env python3
"""Kernels in turn: one launch of each, round after round, and how they compare with cuDNN.

    python3 common/yardsticks/in_turn.py [--config NAME,...] [--dtype NAME,...] [--causal | --full]
                                         [--kernel STAGE/VARIANT,...] [--rounds N]

The stages' own programs time a few hundred launches of one kernel, then the next kernel; one that
draws the most power is then at a lower clock than the others (docs/measuring.md). Here all share one
clock, as they would in a program that does other things too. Both answers are true.

Needs torch with CUDA, and the C library: cmake --build build/cuda --target attention_ladder. cuDNN
is PyTorch's; FlashAttention-3 takes its turn too where its package is installed. Each launch is
between two events, after an L2 flush; the inputs are PyTorch's random numbers.

Exit code: 0; 1 a kernel failed, or differs from cuDNN; 2 wrong usage; 77 without torch, GPU or
library.
"""

import argparse
import pathlib
import sys

import pytorch  # beside this file

sys.path.insert(0, str(pytorch.ROOT / "examples" / "pytorch"))
import attention_ladder as ladder  # noqa: E402

CONFIGS = {  # as in --config: batch, heads, length, head_dim
    "hdim64_seq4k": (4, 32, 4096, 64),
    "hdim128_seq8k": (2, 16, 8192, 128),
    "hdim256_seq16k": (1, 8, 16384, 256),
}
WARM_UP_ROUNDS = 100  # until the clock is what they settle at


def problem_of(config, dtype, causal):
    batch, heads, seq, head_dim = CONFIGS[config]
    return {"config": config, "dtype": dtype, "causal": causal, "batch": batch, "heads": heads,
            "kv_heads": heads, "seq": seq, "kv_seq": seq, "head_dim": head_dim,
            "scale": head_dim**-0.5}


def of_the_ladder(torch, kernel, problem, inputs):
    """f(): one launch of STAGE/VARIANT. O, LSE and workspace are made once."""
    stage, _, variant = kernel.partition("/")
    library = ladder.library("cuda")
    sizes = {name: problem[name] for name in ("batch", "heads", "kv_heads", "seq", "kv_seq",
                                              "head_dim", "causal", "scale")}
    arguments = ladder.Arguments(dtype=ladder.DTYPES[str(inputs[0].dtype).removeprefix("torch.")],
                                 **sizes)
    arguments.q, arguments.k, arguments.v = (x.data_ptr() for x in inputs)
    out = torch.empty_like(inputs[0])
    lse = torch.empty(out.shape[:3], device="cuda", dtype=torch.float32)
    arguments.o, arguments.lse = out.data_ptr(), lse.data_ptr()
    why = library.refusal(stage, variant or None, arguments)
    if why:
        raise ladder.Unsupported(why)
    size = library.workspace_bytes(stage, variant or None, arguments)
    workspace = torch.zeros(size + 256, dtype=torch.uint8, device="cuda")  # al_run: from a 256th on
    arguments.workspace, arguments.workspace_bytes = -(-workspace.data_ptr() // 256) * 256, size
    stream = torch.cuda.current_stream().cuda_stream

    def run():
        library.run(stage, variant or None, arguments, stream)
        return out

    run.kept = (lse, workspace)
    return run


def of_cudnn(torch, problem, inputs):
    attention = pytorch.make_attention(torch, problem)

    def run():
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.CUDNN_ATTENTION):
            return attention(*inputs)

    return run


def of_flash_attention_3(problem, inputs):
    from flash_attn_interface import flash_attn_func
    q, k, v = (x.transpose(1, 2).contiguous() for x in inputs)  # [batch, length, heads, head_dim]

    def run():
        out = flash_attn_func(q, k, v, softmax_scale=problem["scale"], causal=problem["causal"])
        return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)

    return run


def contestants(torch, kernels, problem, inputs):
    """({name: f() → O}, cuDNN first; {name: why it cannot})."""
    refused = {}
    runs = {"cudnn": of_cudnn(torch, problem, inputs)}
    try:
        runs["flash_attention_3"] = of_flash_attention_3(problem, inputs)
    except ImportError:
        pass
    for kernel in kernels:
        try:
            runs[kernel] = of_the_ladder(torch, kernel, problem, inputs)
        except ladder.Unsupported as why:
            refused[kernel] = why
    return runs, refused


def measure(torch, runs, rounds, flush):
    """{name: [ms of each round]}. All is enqueued before anything is waited for."""
    events = {name: [] for name in runs}
    for i in range(WARM_UP_ROUNDS + rounds):
        for name, run in runs.items():
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush()
            start.record()
            run()
            stop.record()
            if i >= WARM_UP_ROUNDS:
                events[name].append((start, stop))
    torch.cuda.synchronize()
    return {name: [start.elapsed_time(stop) for start, stop in pairs]
            for name, pairs in events.items()}


def compare(torch, config, dtype, causal, kernels, rounds):
    """The rows of one problem, printed as a Markdown table has them."""
    problem = problem_of(config, dtype, causal)
    torch.manual_seed(1)
    inputs = pytorch.make_inputs(torch, problem)
    runs, refused = contestants(torch, kernels, problem, inputs)
    exact = runs["cudnn"]().float()
    for name, run in runs.items():
        difference = (run().float() - exact).abs().max().item()
        if not difference < (0.05 if dtype == "bf16" else 0.01):
            raise pytorch.Failure(f"{name} and cuDNN differ by {difference:.3g} on {config}.", 1)
    del exact
    flush = pytorch.Flush(torch, torch.cuda.get_device_properties(0).L2_cache_size)
    times = measure(torch, runs, rounds, flush)
    flops, _ = pytorch.minimum_work(problem)
    which = f"{config} | {dtype} | {'causal' if causal else 'full'}"
    for name, ms in times.items():
        median = pytorch.quantile(ms, 0.5)
        # Round by round: what both met at the same moment.
        ratio = pytorch.quantile([a / b for a, b in zip(times["cudnn"], ms)], 0.5)
        print(f"| {which} | {name} | {median:.4f} | "
              f"{pytorch.quantile(ms, 0.1):.4f}–{pytorch.quantile(ms, 0.9):.4f} | "
              f"{flops / median / 1e9:.0f} | {ratio:.3f} |", flush=True)
    for name, why in refused.items():
        print(f"| {which} | {name} | refused: {why} | | | |")


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=",".join(CONFIGS), help=", ".join(CONFIGS))
    parser.add_argument("--dtype", default="fp16", help="fp16, bf16")
    mask = parser.add_mutually_exclusive_group()
    mask.add_argument("--causal", action="store_true", default=None, help="only causal")
    mask.add_argument("--full", dest="causal", action="store_false", help="only full")
    parser.add_argument("--kernel", default="09_cute/flash_sm90,09_cute/lagging",
                        help="STAGE/VARIANT, or STAGE for what it runs by default")
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args(arguments)
    for config in options.config.split(","):
        if config not in CONFIGS:
            parser.error(f"--config {config} is not known; there are: {', '.join(CONFIGS)}")
    try:
        torch = pytorch.import_torch()
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, cuDNN "
              f"{torch.backends.cudnn.version()}; {options.rounds} rounds\n\n"
              "| config | dtype | mask | kernel | ms | p10–p90 ms | TFLOP/s | cuDNN's time / this |\n"
              "| --- | --- | --- | --- | ---: | ---: | ---: | ---: |")
        for config in options.config.split(","):
            for dtype in options.dtype.split(","):
                for causal in (True, False) if options.causal is None else (options.causal,):
                    with torch.no_grad():
                        compare(torch, config, dtype, causal, options.kernel.split(","),
                                options.rounds)
    except ladder.Error as failure:
        print(f"in_turn.py: {failure}", file=sys.stderr)
        return 77 if isinstance(failure, (ladder.NoLibrary, ladder.NoDevice)) else 1
    except pytorch.Failure as failure:
        print(f"in_turn.py: {failure}", file=sys.stderr)
        return failure.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
