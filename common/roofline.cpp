#include "common/roofline.hpp"

#include <initializer_list>

namespace al {
namespace {

// Something a kernel needs, and the measured rate at which the machine gives it.
struct Demand {
  const char* name;
  double amount;               // FLOPs or bytes
  std::optional<double> rate;  // as the ceiling states it: TFLOP/s or GB/s
  double unit;                 // FLOPs or bytes a second in one of those
};

constexpr double kGiga = 1e9, kTera = 1e12;

// The demand that takes longest. Nothing when one of them has no ceiling: it might be the one.
std::optional<Limit> slowest(std::initializer_list<Demand> demands) {
  std::optional<Limit> limit;
  for (const Demand& demand : demands) {
    if (demand.amount <= 0) continue;
    if (!demand.rate) return std::nullopt;
    const double ms = 1e3 * demand.amount / (*demand.rate * demand.unit);
    if (!limit || ms > limit->ms) limit = Limit{demand.name, *demand.rate, ms};
  }
  return limit;
}

}  // namespace

#ifdef AL_EMULATOR
Ceilings measure_ceilings() {
  Ceilings ceilings;
  ceilings.why_absent = "the emulator counts what a kernel does; it does not time it";
  return ceilings;
}
#endif

Units units_of(const Cost& cost) {
  if (cost.tensor_fp8_flops > 0) return Units::tensor_fp8;
  return cost.tensor_flops > 0 || cost.mma_flops > 0 ? Units::tensor : Units::ffma;
}

std::optional<Limit> binding_limit(const Problem& problem, Units units, const Ceilings& ceilings) {
  const Work work = minimum_work(problem);
  // A kernel that writes next to nothing is held by reading alone, which is faster than copying.
  const bool reads = 10 * problem.out_bytes() < problem.in_bytes();
  Demand arithmetic{"FFMA TFLOP/s", work.flops, ceilings.ffma_tflops, kTera};
  if (units == Units::tensor) {
    arithmetic = {"tensor TFLOP/s", work.flops, ceilings.tensor_tflops, kTera};
  } else if (units == Units::tensor_fp8) {
    arithmetic = {"FP8 tensor TFLOP/s", work.flops, ceilings.tensor_fp8_tflops, kTera};
  }
  return slowest({
      reads ? Demand{"read GB/s", work.bytes, ceilings.read_gbps, kGiga}
            : Demand{"copy GB/s", work.bytes, ceilings.copy_gbps, kGiga},
      arithmetic,
  });
}

std::optional<Limit> predict(const Cost& cost, const Ceilings& ceilings) {
  constexpr double kWavefrontBytes = 128;
  return slowest({
      {"FFMA TFLOP/s", cost.ffma_flops, ceilings.ffma_tflops, kTera},
      {"tensor TFLOP/s", cost.tensor_flops, ceilings.tensor_tflops, kTera},
      {"mma.sync TFLOP/s", cost.mma_flops, ceilings.mma_tflops, kTera},
      {"FP8 tensor TFLOP/s", cost.tensor_fp8_flops, ceilings.tensor_fp8_tflops, kTera},
      {"exp T/s", cost.exponentials, ceilings.exp_tops, kTera},
      {"copy GB/s", cost.dram_bytes, ceilings.copy_gbps, kGiga},
      {"load/store GB/s", cost.shared_wavefronts * kWavefrontBytes, ceilings.shared_gbps, kGiga},
  });
}

}  // namespace al
