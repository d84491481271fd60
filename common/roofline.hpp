// What this machine can do at the most, measured, and what that predicts for a kernel.
#pragma once

#include <optional>
#include <string>

#include "common/stage.hpp"

namespace al {

// A ceiling that could not be measured is absent; `why_absent` says why.
struct Ceilings {
  std::optional<double> copy_gbps;      // read + written bytes, best copy
  std::optional<double> read_gbps;      // best of several read kernels, >= 1 GiB
  std::optional<double> ffma_tflops;    // independent FP32 FMA chains
  std::optional<double> tensor_tflops;  // fp16 8192^3 through cuBLAS
  std::optional<double> mma_tflops;     // fp16, mma.sync from registers: what WMMA and CuTe's
                                        // sm_80 kernels are made of
  std::optional<double> shared_gbps;    // conflict-free shared-memory loads, all SMs
  std::optional<double> exp_tops;       // independent chains of ex2.approx, 10^12 results a second
  // e4m3 8192^3 through cuBLASLt. Absent without a word where the tensor cores know no 8 bits.
  std::optional<double> tensor_fp8_tflops;
  std::string why_absent;
};

Ceilings measure_ceilings();  // about a second on a GPU; all absent under the emulator

// GB/s, read + written, of a copy that moves `bytes` in all, timed as a kernel is timed
// (benchmark.hpp): what a small memory-bound kernel can hope for. GPU only.
double copy_gbps_at(std::size_t bytes);

// The ceiling that binds a piece of work: its name, its value, and the time it allows.
struct Limit {
  std::string name;  // "copy GB/s", "FFMA TFLOP/s", "tensor TFLOP/s", "exp T/s"
  double value = 0;
  double ms = 0;
};

// The units that multiply.
enum class Units { ffma, tensor, tensor_fp8 };
Units units_of(const Cost& cost);  // the fastest that the kernel uses

// The binding ceiling for the least work the problem needs on the units that the kernel computes
// on. Nothing when the ceilings are absent.
std::optional<Limit> binding_limit(const Problem& problem, Units units, const Ceilings& ceilings);

// The prediction for a kernel: the slowest of its costs at the ceilings.
std::optional<Limit> predict(const Cost& cost, const Ceilings& ceilings);

}  // namespace al
