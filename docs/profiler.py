#!/usr/bin/env python3
"""Profiles a stage's kernels with ncu (Nsight Compute) and prints one line for each.

    python3 docs/profiler.py --report build/profile/01_naive_qk.ncu-rep -- PROGRAM ARGUMENTS...
    python3 docs/profiler.py --csv FILE

The first runs PROGRAM under ncu, keeps the report, and prints its table; `make profile` calls it so.
The second prints the table of what `ncu --import REPORT --csv --page raw --print-units base` wrote.
What the columns mean is in docs/profiling.md.

Exit code: 0, 1 when the program or ncu failed, 2 for wrong usage, 77 where nothing can be profiled:
no ncu, no GPU, or no right to read its counters.
"""

import argparse
import csv
import io
import pathlib
import re
import shutil
import subprocess
import sys

STALLS = ["barrier", "branch_resolving", "dispatch_stall", "drain", "gmma", "imc_miss", "lg_throttle",
          "long_scoreboard", "math_pipe_throttle", "membar", "mio_throttle", "misc",
          "no_instruction", "not_selected", "selected", "short_scoreboard", "sleeping",
          "tex_throttle", "wait"]


def stall_metric(reason):
    return f"smsp__average_warps_issue_stalled_{reason}_per_issue_active.ratio"


TIME = "gpu__time_duration.sum"
FFMA = "sm__sass_thread_inst_executed_op_ffma_pred_on.sum.pct_of_peak_sustained_elapsed"
TENSOR = "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed"
XU = "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_elapsed"
DRAM = ["dram__bytes_read.sum", "dram__bytes_write.sum"]
WAVEFRONTS = "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum"
CONFLICTS = "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum"
OCCUPANCY = "sm__warps_active.avg.pct_of_peak_sustained_active"
REGISTERS = "launch__registers_per_thread"
METRICS = [TIME, FFMA, TENSOR, XU, *DRAM, WAVEFRONTS, CONFLICTS, OCCUPANCY, REGISTERS,
           *map(stall_metric, STALLS)]

NO_NCU = ("There is no ncu on this machine: it is Nsight Compute's command, part of the CUDA toolkit "
          "and to be had alone from NVIDIA. Put it on PATH, then run this again.")
NO_COUNTERS = (
    "The driver shows the GPU's counters to root only (ERR_NVGPUCTRPERM). On a machine of your own, "
    "let everybody read them: put 'options nvidia NVreg_RestrictProfilingToAdminUsers=0' into "
    "/etc/modprobe.d/nvidia-profiling.conf and reboot; or run this once as root. A container needs "
    "--cap-add=SYS_ADMIN. Where neither is yours to do, ask who runs the machine, and meanwhile "
    "see what the emulator counts.")


class Failure(Exception):
    """One sentence or a few for the user, and the exit code."""

    def __init__(self, message, code=1):
        super().__init__(message)
        self.code = code


# --------------------------------------------------------------------------------------------------
# What ncu wrote


def number(text):
    """ncu's "1,234.5", or None where it has no value."""
    try:
        return float(text.replace(",", ""))
    except (ValueError, AttributeError):
        return None


def parse(text):
    """The kernels, in the order they ran: {"Kernel Name": …, metric: number or None}. Lines before
    the header are ncu's own talk; the line after it has the units."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        raise Failure("ncu wrote no table of kernels.")
    units, *rows = csv.DictReader(io.StringIO("\n".join(lines[start:])))
    kernels = [{"name": row["Kernel Name"], **{metric: number(row.get(metric)) for metric in METRICS}}
               for row in rows]
    if kernels and units[TIME] not in ("ns", "nsecond"):
        raise Failure(f"The times are in {units[TIME]}, not ns: ncu wants --print-units base.")
    return kernels


def short_name(name):
    """"void al::pv::pv_coalesced<float, 8, 32>(const T1 *, …)" → "pv_coalesced<float, 8, 32>"."""
    name = re.sub(r"\(anonymous namespace\)::|<unnamed>::", "", name.removeprefix("void "))
    depth = 0
    for at, letter in enumerate(name):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            name = name[:at]
            break
    before, angle, arguments = name.partition("<")
    return before.rsplit("::", 1)[-1] + angle + arguments


def waits(kernel, most=3):
    """The most frequent states of a warp, in % of its time, as "long_scoreboard 47, barrier 20"."""
    cycles = {reason: kernel[stall_metric(reason)] or 0 for reason in STALLS}
    total = sum(cycles.values())
    del cycles["selected"]  # that is working, not waiting
    if not total:
        return "–"
    worst = sorted(cycles, key=cycles.get, reverse=True)[:most]
    return ", ".join(f"{reason} {100 * cycles[reason] / total:.0f}" for reason in worst)


def digits(value, format_as="{:.3g}"):
    return "–" if value is None else format_as.format(value)


def cells(kernel):
    """One line of the table, in the order of TITLES."""
    ns, moved = kernel[TIME], None
    if None not in (kernel[metric] for metric in DRAM):
        moved = sum(kernel[metric] for metric in DRAM)
    share = None
    if kernel[CONFLICTS] is not None and kernel[WAVEFRONTS] is not None:
        share = 100 * kernel[CONFLICTS] / kernel[WAVEFRONTS] if kernel[WAVEFRONTS] else 0
    return [short_name(kernel["name"]), digits(ns and ns / 1e6, "{:.4g}"),
            *(digits(kernel[metric], "{:.1f}") for metric in (FFMA, TENSOR, XU)),
            digits(moved and moved / 1e6, "{:,.0f}" if (moved or 0) >= 1e8 else "{:.3g}"),
            digits(moved and ns and moved / ns, "{:.0f}"), digits(share, "{:.1f}"),
            digits(kernel[OCCUPANCY], "{:.0f}"), digits(kernel[REGISTERS], "{:.0f}"), waits(kernel)]


TITLES = ["kernel", "ms", "FFMA %", "tensor %", "XU %", "DRAM MB", "GB/s", "conflicts %",
          "occupancy %", "registers", "waits for (% of a warp's time)"]


def table(kernels):
    """Columns lined up: text to the left, numbers to the right."""
    lines = [TITLES] + [cells(kernel) for kernel in kernels]
    widths = [max(map(len, column)) for column in zip(*lines)]
    left = (0, len(TITLES) - 1)
    return "\n".join(
        "  ".join(cell.ljust(width) if column in left else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in lines)


# --------------------------------------------------------------------------------------------------
# Running it


def call(command):
    """(exit code, all it said)."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace")
    return done.returncode, done.stdout


def metrics_of_this_gpu(ncu):
    """Those of METRICS that this GPU has: wgmma's for one is Hopper's own, and to ask for what is not
    there is an error."""
    code, said = call([ncu, "--query-metrics"])
    if code != 0:
        raise Failure(f"{said.strip()}\nncu cannot say what this GPU counts ({code}).")
    known = {line.split(maxsplit=1)[0] for line in said.splitlines() if "__" in line}
    return [metric for metric in METRICS
            if metric.split(".")[0] in known or metric.startswith("launch__")]


def profile(ncu, report, program):
    """Runs `program` under ncu; returns the kernels. The program marks what is to be profiled.
    Clocks are left alone, as when it is timed: ncu would hold them at their base value."""
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    code, said = call([ncu, "--profile-from-start", "off", "--clock-control", "none", "--metrics",
                       ",".join(metrics_of_this_gpu(ncu)), "--force-overwrite", "--export",
                       str(report), *program])
    if "ERR_NVGPUCTRPERM" in said:
        raise Failure(NO_COUNTERS, 77)
    if code == 77:
        raise Failure(said.strip(), 77)
    if code != 0 or not report.exists():
        if "No kernels were profiled" in said:
            said += "\nThe program ran no kernel: see above what it says of each variant."
        raise Failure(f"{said.strip()}\nncu or the program failed ({code}).")
    code, text = call([ncu, "--import", str(report), "--csv", "--page", "raw", "--print-units",
                       "base"])
    if code != 0:
        raise Failure(f"{text.strip()}\nncu cannot read its own report ({code}).")
    return parse(text)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=pathlib.Path, help="print the table of this file")
    parser.add_argument("--report", type=pathlib.Path, help="where to keep ncu's report")
    parser.add_argument("--ncu", default="ncu", help="the command")
    parser.add_argument("program", nargs="*", help="what to run, after --")
    options = parser.parse_args(arguments)
    if bool(options.csv) == bool(options.report and options.program):
        parser.error("give --csv FILE, or --report FILE -- PROGRAM ARGUMENTS...")
    try:
        if options.csv:
            print(table(parse(options.csv.read_text(encoding="utf-8"))))
            return 0
        if not shutil.which(options.ncu):
            raise Failure(NO_NCU, 77)
        print(table(profile(options.ncu, options.report, options.program)))
        print(f"\nEach column is explained in docs/profiling.md. The report: {options.report} "
              "(open it with ncu-ui, or print it with ncu --import).")
    except OSError as failure:
        print(f"profiler.py: {failure}.", file=sys.stderr)
        return 2
    except Failure as failure:
        print(f"profiler.py: {failure}", file=sys.stderr)
        return failure.code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
