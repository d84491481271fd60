#!/usr/bin/env python3
"""Adds PyTorch's attention to a results file, as yardstick rows.

    python3 common/yardsticks/pytorch.py --into results.json [--config NAME,...] [--dtype NAME,...]
                                         [--causal | --full] [--iters N]

Needs torch with CUDA, on the GPU that made the file: start it right after the run that wrote
results.json, so that its rows have the same machine in the same state. For each attention problem in
the file (or those the options pick) it runs scaled_dot_product_attention with each of three back
ends and adds one row:

    pytorch_math    MATH: separate kernels for the matrix products and the softmax
    pytorch_flash   FLASH_ATTENTION: FlashAttention-2, built into PyTorch
    pytorch_cudnn   CUDNN_ATTENTION: cuDNN's fused kernel

What a back end cannot do is a row that says why. Rows of an earlier call are replaced. The times are
taken as docs/measuring.md says, the errors as docs/numerics.md says, but on PyTorch's random
numbers and on fewer rows.

Exit code: 0, 2 for wrong usage or a file that does not fit, 77 without torch or GPU.
"""

import argparse
import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[2]

BACKENDS = {  # variant: (name in torch.nn.attention.SDPBackend, idea)
    "pytorch_math": ("MATH", "PyTorch's SDPA, MATH: matrix products and softmax one by one"),
    "pytorch_flash": ("FLASH_ATTENTION", "PyTorch's SDPA, FLASH_ATTENTION (FlashAttention-2)"),
    "pytorch_cudnn": ("CUDNN_ATTENTION", "PyTorch's SDPA, CUDNN_ATTENTION"),
}
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
EPSILON = {"fp32": 2.0**-20, "fp16": 2.0**-10, "bf16": 2.0**-7}  # as in check.cpp

# As in benchmark.cu.
GRAPH_BELOW_MS, REPLAY_MS = 0.2, 4
WARM_UPS, SAMPLES, FEWEST_WARM_UPS, FEWEST_SAMPLES = 10, 30, 1, 5
WARM_UP_MS, SAMPLING_MS, CLOCK_RAMP_MS = 1000, 3000, 50
ROTATED_BYTES, MOST_SETS = 512 << 20, 256


class Failure(Exception):
    """One sentence for the user, and the exit code."""

    def __init__(self, message, code=2):
        super().__init__(message)
        self.code = code


# --------------------------------------------------------------------------------------------------
# The results file. Nothing here needs torch.


def digits(value):
    """Six significant digits, as the programs write them."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def minimum_work(problem):
    """FLOPs and bytes of an attention problem: minimum_work() of problem.cpp."""
    q, kv = problem["seq"], problem["kv_seq"]
    area = q * kv
    if problem["causal"]:
        area = area - q * q / 2 if q <= kv else kv * kv / 2
    flops = 4 * problem["batch"] * problem["heads"] * area * problem["head_dim"]
    rows = problem["batch"] * problem["head_dim"]
    elements = 2 * rows * (problem["heads"] * q + problem["kv_heads"] * kv)
    return flops, elements * BYTES[problem["dtype"]]


def binding_limit(problem, ceilings):
    """The ceiling that binds the least work, or None where one is missing: roofline.cpp."""
    flops, moved = minimum_work(problem)
    elements_out = problem["batch"] * problem["heads"] * problem["seq"] * problem["head_dim"]
    bytes_out = elements_out * BYTES[problem["dtype"]]
    reads = 10 * bytes_out < moved - bytes_out
    arithmetic = "ffma_tflops" if problem["dtype"] == "fp32" else "tensor_tflops"
    demands = [("read GB/s" if reads else "copy GB/s", moved / 1e6,
                ceilings["read_gbps" if reads else "copy_gbps"]),
               ("FFMA TFLOP/s" if problem["dtype"] == "fp32" else "tensor TFLOP/s", flops / 1e9,
                ceilings[arithmetic])]
    if any(rate is None for _, _, rate in demands):
        return None
    name, amount, rate = max(demands, key=lambda demand: demand[1] / demand[2])
    return {"name": name, "value": rate, "ms": amount / rate}


def quantile(samples, fraction):
    samples = sorted(samples)
    position = fraction * (len(samples) - 1)
    below = int(position)
    above = min(below + 1, len(samples) - 1)
    return samples[below] + (position - below) * (samples[above] - samples[below])


def measurement(timing, samples, clock_before, clock_after):
    """`samples` in ms for one launch; clocks in MHz or None."""
    return {"timing": timing,
            "ms": {name: digits(quantile(samples, fraction))
                   for name, fraction in (("median", 0.5), ("p10", 0.1), ("p90", 0.9))},
            "samples": len(samples),
            "sm_clock_mhz": {"before": clock_before, "after": clock_after}}


def row_start(variant, index, problem):
    return {"stage": "yardstick", "variant": variant, "idea": BACKENDS[variant][1],
            "role": "yardstick", "problem": index, "config": problem["config"],
            "dtype": problem["dtype"], "causal": problem["causal"]}


def refused_row(variant, index, problem, why):
    return {**row_start(variant, index, problem), "refused": " ".join(why.split())}


def timed_row(variant, index, problem, ceilings, primary, beside, extra_bytes, error):
    ms = primary["ms"]["median"]
    flops, moved = minimum_work(problem)
    row = {**row_start(variant, index, problem), **primary}
    if beside:
        row["beside"] = beside
    row["tflops"] = digits(flops / ms / 1e9)
    row["gbps"] = digits(moved / ms / 1e6)
    limit = binding_limit(problem, ceilings)
    if limit:
        row["limit"] = {"name": limit["name"], "value": limit["value"], "ms": digits(limit["ms"]),
                        "fraction": digits(limit["ms"] / ms)}
    row["extra_bytes"] = extra_bytes
    row["error"] = error
    return row


def error_report(max_abs, row_rel_l2, scaled, budget, why=""):
    """`why`: where the result is wrong whatever the figures say."""
    if not why and not scaled <= budget:
        why = f"an element is off by {scaled:.3g} row scales, allowed {budget:.3g}"
    report = {"max_abs": digits(max_abs), "row_rel_l2": digits(row_rel_l2),
              "scaled": digits(scaled), "budget": digits(budget), "lse_max_abs": 0.0,
              "ok": not why}
    if why:
        report["why"] = why
    return report


def read_results(path):
    try:
        results = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as failure:
        raise Failure(f"--into {path} cannot be read as a results file: {failure}.") from failure
    faults = schema_faults(results)
    if faults:
        raise Failure(f"--into {path} is not a results file of this version: {faults[0]}.")
    if results["backend"] != "cuda":
        raise Failure(f"--into {path} is from the emulator, which has no times to compare with.")
    return results


def schema_faults(results):
    location = ROOT / "docs" / "results" / "validate.py"
    spec = importlib.util.spec_from_file_location("validate", location)
    validate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(validate)
    schema = json.loads((location.parent / "schema.json").read_text(encoding="utf-8"))
    return list(validate.faults(results, schema, schema))


def chosen_problems(results, configs, dtypes, causal):
    """Indices of the attention problems to run; None for a filter that is not there."""
    chosen = [index for index, problem in enumerate(results["problems"])
              if problem["operation"] == "attention"
              and (configs is None or problem["config"] in configs)
              and (dtypes is None or problem["dtype"] in dtypes)
              and (causal is None or problem["causal"] == causal)]
    if not chosen:
        there = sorted({f"{p['config']} {p['dtype']} {'causal' if p['causal'] else 'full'}"
                        for p in results["problems"] if p["operation"] == "attention"})
        raise Failure("The file has no attention problem of that kind; there are: "
                      f"{', '.join(there) or 'none'}.")
    return chosen


def add_rows(results, rows):
    """Each row behind the last row of its problem, in place of one of the same name."""
    for row in rows:
        kept = [old for old in results["rows"]
                if (old["stage"], old["variant"], old["problem"])
                != (row["stage"], row["variant"], row["problem"])]
        last = max((i for i, old in enumerate(kept) if old["problem"] == row["problem"]),
                   default=len(kept) - 1)
        results["rows"] = kept[:last + 1] + [row] + kept[last + 1:]


def write_results(results, path):
    """All or nothing: a file that breaks the schema, or half a file, is never left behind."""
    faults = schema_faults(results)
    if faults:
        raise Failure(f"The new rows break the schema, so {path} is left as it was: {faults[0]}.")
    path = pathlib.Path(path)
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False,
                                         encoding="utf-8") as file:
            json.dump(results, file, indent=2, ensure_ascii=False)
            file.write("\n")
        os.chmod(file.name, path.stat().st_mode & 0o777)
        os.replace(file.name, path)
    except OSError as failure:
        raise Failure(f"{path} cannot be written: {failure}.") from failure


# --------------------------------------------------------------------------------------------------
# The GPU


def import_torch():
    try:
        import torch
        import torch.nn.attention  # from 2.3 on: choosing a back end
    except ImportError as failure:
        raise Failure(f"PyTorch is not usable here ({failure}): its rows are skipped.",
                      77) from failure
    if not torch.cuda.is_available():
        raise Failure("PyTorch finds no CUDA GPU here: its rows are skipped.", 77)
    return torch


def sm_clock_mhz(torch):
    """What nvidia-smi says of the current device, or None."""
    try:
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        answer = subprocess.run(
            ["nvidia-smi", "-i", uuid, "--query-gpu=clocks.sm", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=20, check=True)
        return int(answer.stdout.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, AttributeError):
        return None


def torch_dtype(torch, name):
    return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]


def make_inputs(torch, problem):
    def tensor(heads, length):
        shape = (problem["batch"], heads, length, problem["head_dim"])
        return torch.randn(shape, device="cuda", dtype=torch.float32).to(
            torch_dtype(torch, problem["dtype"]))

    return (tensor(problem["heads"], problem["seq"]), tensor(problem["kv_heads"], problem["kv_seq"]),
            tensor(problem["kv_heads"], problem["kv_seq"]))


def make_attention(torch, problem):
    """f(q, k, v) → O. Causal is bottom-right: PyTorch's own flag is top-left, the same only where
    Nq = Nkv, so elsewhere the mask is a tensor."""
    sdpa = torch.nn.functional.scaled_dot_product_attention
    options = {"scale": problem["scale"]}
    if problem["heads"] != problem["kv_heads"]:
        options["enable_gqa"] = True
    if problem["causal"] and problem["seq"] == problem["kv_seq"]:
        options["is_causal"] = True
    elif problem["causal"]:
        i = torch.arange(problem["seq"], device="cuda")[:, None]
        j = torch.arange(problem["kv_seq"], device="cuda")[None, :]
        options["attn_mask"] = j <= i + problem["kv_seq"] - problem["seq"]
    return lambda q, k, v: sdpa(q, k, v, **options)


class Flush:
    """Empties L2: writes four times its size, then reads as much, so that nothing is dirty."""

    def __init__(self, torch, l2_bytes):
        words = 4 * max(l2_bytes, 1 << 20) // 4
        self.written = torch.zeros(words, dtype=torch.int32, device="cuda")
        self.read = torch.zeros(words, dtype=torch.int32, device="cuda")
        self.result = torch.zeros((), dtype=torch.int64, device="cuda")
        self.sum = torch.sum

    def __call__(self):
        self.written.fill_(0x5a5a5a5a)
        self.sum(self.read, dim=0, out=self.result)


def measure(torch, timing, stream, prepare, run, launches, iterations):
    """measure() of benchmark.cu: warm-ups, then samples that are all enqueued before any is waited
    for."""

    def timed_run(i):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        prepare()
        start.record(stream)
        run(i)
        stop.record(stream)
        return start, stop

    began, ms, i = time.monotonic(), 0.0, 0
    while True:
        spent = 1e3 * (time.monotonic() - began)
        if i >= WARM_UPS and spent >= CLOCK_RAMP_MS:
            break
        if i >= FEWEST_WARM_UPS and spent >= WARM_UP_MS:
            break
        start, stop = timed_run(i)
        stop.synchronize()
        ms = start.elapsed_time(stop)
        i += 1
    count = iterations or int(
        min(max(SAMPLING_MS / max(ms, 1e-3), FEWEST_SAMPLES), SAMPLES))

    before = sm_clock_mhz(torch)
    for warm in range(2):  # asking took a while, in which the GPU was idle
        timed_run(warm)
    events = [timed_run(i) for i in range(count)]
    events[-1][1].synchronize()
    after = sm_clock_mhz(torch)
    return measurement(timing, [start.elapsed_time(stop) / launches for start, stop in events],
                       before, after)


def benchmark(torch, attention, problem, inputs, l2_bytes, iterations):
    """(primary, beside): in a graph over rotated buffers where single launches are short."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        flush = Flush(torch, l2_bytes)
        events = measure(torch, "events", stream, flush, lambda i: attention(*inputs), 1, iterations)
        del flush
        ms = events["ms"]["median"]
        if ms >= GRAPH_BELOW_MS:
            return events, None

        set_bytes = sum(t.numel() * t.element_size() for t in (*inputs, inputs[0]))
        count = min(max(math.ceil(ROTATED_BYTES / set_bytes), 1), MOST_SETS)
        sets = [inputs] + [tuple(t.clone() for t in inputs) for _ in range(count - 1)]
        for one in sets[:3]:
            attention(*one)
        stream.synchronize()
        graph, results = torch.cuda.CUDAGraph(), []
        rounds = max(1, math.ceil(REPLAY_MS / (ms * count)))
        with torch.cuda.graph(graph, stream=stream):
            for launch in range(rounds * count):
                # The first round's outputs are kept, so that each set writes to memory of its own.
                out = attention(*sets[launch % count])
                if launch < count:
                    results.append(out)
        return measure(torch, "graph", stream, lambda: None, lambda i: graph.replay(),
                       rounds * count, iterations), events


def sampled_rows(problem, most=96):
    """(batch, head, query): the first and last heads' first rows, last rows and tile edges, and
    others spread over the rest."""
    seq, heads = problem["seq"], problem["batch"] * problem["heads"]
    edge = (seq - 1) // 64 * 64
    queries = [q for q in (0, 1, 63, 64, edge - 1, edge, seq - 2, seq - 1) if 0 <= q < seq]
    rows = {(head, query) for head in (0, heads - 1) for query in queries}
    state = 1
    for _ in range(most):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        rows.add(((state >> 33) % heads, (state >> 13) % seq))
    return [(head // problem["heads"], head % problem["heads"], query)
            for head, query in sorted(rows)]


def check(torch, problem, inputs, out):
    """The error of `out` against float64 on sampled rows, and the budget: twice that of the plain
    implementation, whose P and O are rounded."""
    q, k, v = inputs
    dtype, group = q.dtype, problem["heads"] // problem["kv_heads"]
    max_abs = rel = scaled = plain_scaled = 0.0
    why = ""
    for batch, head, i in sampled_rows(problem):
        visible = problem["kv_seq"]
        if problem["causal"]:
            visible = max(0, min(visible, i + 1 + problem["kv_seq"] - problem["seq"]))
        got = out[batch, head, i].double()
        place = f"batch {batch}, head {head}, query {i}"
        if not torch.isfinite(got).all():
            why = why or f"{place}: NaN or infinite"
            continue
        if visible == 0:
            if got.abs().max() > 0:
                why = why or f"{place} sees no key and is not 0"
            continue
        keys, values = (t[batch, head // group, :visible] for t in (k, v))

        def attend(real):
            scores = problem["scale"] * (keys.to(real) @ q[batch, head, i].to(real))
            return torch.softmax(scores, dim=0)

        p = attend(torch.float64)
        exact = p @ values.double()
        plain = (attend(torch.float32).to(dtype).float() @ values.float()).to(dtype).double()
        row_scale = ((p * p) @ values.double().square()).mean().sqrt()
        error = (got - exact).abs()
        max_abs = max(max_abs, float(error.max()))
        rel = max(rel, float(error.norm() / exact.norm()))
        scaled = max(scaled, float(error.max() / row_scale))
        plain_scaled = max(plain_scaled, float((plain - exact).abs().max() / row_scale))
    return error_report(max_abs, rel, scaled, 2 * plain_scaled + EPSILON[problem["dtype"]], why)


def run(torch, variant, index, problem, results, iterations):
    backend = getattr(torch.nn.attention.SDPBackend, BACKENDS[variant][0], None)
    if backend is None:
        return refused_row(variant, index, problem,
                           f"PyTorch {torch.__version__} has no such back end")
    if problem["heads"] != problem["kv_heads"]:
        # A built-in function has no signature; its documentation names its arguments.
        if "enable_gqa" not in (torch.nn.functional.scaled_dot_product_attention.__doc__ or ""):
            return refused_row(variant, index, problem,
                               f"PyTorch {torch.__version__} knows no grouped heads")
    torch.manual_seed(1)
    try:
        with torch.no_grad(), torch.nn.attention.sdpa_kernel(backend):
            inputs = make_inputs(torch, problem)
            attention = make_attention(torch, problem)
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
            out = attention(*inputs)
            torch.cuda.synchronize()
            out_bytes = out.numel() * out.element_size()
            extra = max(0, torch.cuda.max_memory_allocated() - held - out_bytes)
            error = check(torch, problem, inputs, out)
            del out
            primary, beside = benchmark(torch, attention, problem, inputs,
                                        results["device"]["l2_bytes"], iterations)
    except (RuntimeError, TypeError) as failure:  # "No available kernel", out of memory, …
        return refused_row(variant, index, problem, (str(failure).splitlines() or ["no reason"])[0]
                           or "PyTorch gives no reason")
    finally:
        torch.cuda.empty_cache()
    return timed_row(variant, index, problem, results["ceilings"], primary, beside, extra, error)


# --------------------------------------------------------------------------------------------------


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", required=True, metavar="FILE", help="the results file")
    parser.add_argument("--config", help="only these, as in hdim64_seq4k,hdim128_seq8k")
    parser.add_argument("--dtype", help="only these: fp32, fp16, bf16")
    mask = parser.add_mutually_exclusive_group()
    mask.add_argument("--causal", action="store_true", default=None, help="only causal problems")
    mask.add_argument("--full", dest="causal", action="store_false", help="only full problems")
    parser.add_argument("--iters", type=int, default=0, help="samples; 0: as docs/measuring.md says")
    options = parser.parse_args(arguments)
    if options.iters < 0:
        parser.error("--iters takes a number of samples, or 0")
    return options


def main(arguments):
    options = parse(arguments)
    split = lambda text: text.split(",") if text else None
    try:
        results = read_results(options.into)
        chosen = chosen_problems(results, split(options.config), split(options.dtype),
                                 options.causal)
        torch = import_torch()
        name = torch.cuda.get_device_name()
        if name != results["device"]["name"]:
            raise Failure(f"{options.into} was measured on {results['device']['name']} and this is "
                          f"{name}: run the stage again here first.")
        warnings.filterwarnings("ignore")  # back ends that refuse warn at length
        rows = []
        for index in chosen:
            for variant in BACKENDS:
                problem = results["problems"][index]
                row = run(torch, variant, index, problem, results, options.iters)
                rows.append(row)
                said = row.get("refused") or f"{row['ms']['median']} ms, {row['tflops']} TFLOP/s"
                print(f"{variant} on {problem['config']} {problem['dtype']} "
                      f"{'causal' if problem['causal'] else 'full'}: {said}", flush=True)
        add_rows(results, rows)
        write_results(results, options.into)
    except Failure as failure:
        print(f"pytorch.py: {failure}", file=sys.stderr)
        return failure.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
