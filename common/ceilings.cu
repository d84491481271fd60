// The ceilings, measured: how fast this GPU moves bytes and multiplies when it does nothing else.
// docs/roofline.md says what each kernel is for.
#include <cuda_fp8.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "common/bandwidth_kernels.cuh"
#include "common/benchmark.hpp"
#include "common/buffer.hpp"
#include "common/event.cuh"
#include "common/launch.cuh"
#include "common/ptx/exp2.cuh"
#include "common/ptx/mma.cuh"
#include "common/roofline.hpp"
#include "common/yardsticks/cublas.hpp"
#include "common/yardsticks/cublaslt.hpp"

namespace al {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr int kThreads = kBandwidthThreads;

// ---- data: zeros would draw less power, and some hardware moves them faster ----

__device__ std::uint32_t hash(std::uint32_t x) {
  x ^= x >> 16;
  x *= 0x21f0aaadu;
  x ^= x >> 15;
  x *= 0x735a2d97u;
  return x ^ x >> 15;
}

__global__ void fill_with_noise(std::uint32_t* words, std::size_t count) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    words[i] = hash(static_cast<std::uint32_t>(i));
  }
}

// Uniform in [-1, 1), rounded to T.
template <typename T>
__global__ void fill_with_numbers(T* values, std::size_t count) {
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    values[i] = T(static_cast<int>(hash(static_cast<std::uint32_t>(i))) * 0x1p-31f);
  }
}

// ---- arithmetic and shared memory ----

// CHAINS sums that do not wait for each other, so that the FP32 units always have the next one.
template <int CHAINS>
__global__ void ffma_chains(float* sink, int steps, float a, float b) {
  float x[CHAINS];
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) x[c] = static_cast<float>(threadIdx.x + c);
#pragma unroll 8
  for (int step = 0; step < steps; ++step) {
#pragma unroll
    for (int c = 0; c < CHAINS; ++c) x[c] = fmaf(x[c], a, b);
  }
  float sum = 0;
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) sum += x[c];
  if (sum == -1) *sink = sum;  // it never is, which the compiler cannot know
}

// The same for 2^x. Its result is between 0 and 1 from the second step on, and comes to rest there.
template <int CHAINS>
__global__ void exp_chains(float* sink, int steps) {
  float x[CHAINS];
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) x[c] = -static_cast<float>(threadIdx.x + c);
#pragma unroll 8
  for (int step = 0; step < steps; ++step) {
#pragma unroll
    for (int c = 0; c < CHAINS; ++c) x[c] = fast_exp2(-x[c]);
  }
  float sum = 0;
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) sum += x[c];
  if (sum == -1) *sink = sum;
}

// A warp's TM x TN products of 16 x 8 x 16, from registers, that do not wait for each other.
template <int TM, int TN>
__global__ void mma_chains(float* sink, int steps) {
  std::uint32_t a[TM][4], b[TN][2];
  std::uint32_t seed = 64 * threadIdx.x;
  const auto noise = [&] { return hash(seed++) & 0xbfffbfffu; };  // two numbers in (-2, 2)
#pragma unroll
  for (int m = 0; m < TM; ++m) {
    for (int x = 0; x < 4; ++x) a[m][x] = noise();
  }
#pragma unroll
  for (int n = 0; n < TN; ++n) {
    for (int x = 0; x < 2; ++x) b[n][x] = noise();
  }
  float d[TM][TN][4] = {};
#pragma unroll 4
  for (int step = 0; step < steps; ++step) {
#pragma unroll
    for (int m = 0; m < TM; ++m) {
#pragma unroll
      for (int n = 0; n < TN; ++n) mma_m16n8k16<__half>(d[m][n], a[m], b[n]);
    }
  }
  float sum = 0;
#pragma unroll
  for (int m = 0; m < TM; ++m) {
#pragma unroll
    for (int n = 0; n < TN; ++n) sum += d[m][n][0] + d[m][n][1] + d[m][n][2] + d[m][n][3];
  }
  if (sum == -1) *sink = sum;
}

constexpr int kSharedThreads = 512, kLoadsPerStep = 4;

// Every warp reads 512 consecutive bytes at a time: four wavefronts of 128 bytes, no conflicts.
// `shift`, a multiple of 8 vectors, moves every step to other addresses. It is not a constant, or
// the compiler would see when they come round again and load once for all.
__global__ void read_shared(unsigned* sink, int steps, int shift) {
  SharedArena shared;
  auto& data = shared.take<uint4[kLoadsPerStep][kSharedThreads]>("data");
  for (int x = 0; x < kLoadsPerStep; ++x) {
    const std::uint32_t noise = hash(x * kSharedThreads + threadIdx.x);
    data[x][threadIdx.x] = {noise, noise + 1, noise + 2, noise + 3};
  }
  __syncthreads();  // every vector is written before any is read
  uint4 sum = {0, 0, 0, 0};
  unsigned v = threadIdx.x;
  for (int step = 0; step < steps; ++step) {
#pragma unroll
    for (int x = 0; x < kLoadsPerStep; ++x) {
      const uint4 read = data[x][v];
      sum.x ^= read.x;
      sum.y ^= read.y;
      sum.z ^= read.z;
      sum.w ^= read.w;
    }
    v = (v + shift) % kSharedThreads;
  }
  if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x9e3779b9u) *sink = sum.x;
}

// ---- measuring ----

using Run = std::function<void(int i)>;  // enqueues one run in the default stream

// Median time of `samples` runs back to back, after one that is not counted. These runs are far
// longer than L2 is large and than a launch takes, so they need neither a flush nor a graph.
double median_ms(const Run& run, int samples) {
  run(0);
  std::vector<Event> marks(samples + 1);
  marks[0].record(nullptr);
  for (int i = 0; i < samples; ++i) {
    run(i + 1);
    marks[i + 1].record(nullptr);
  }
  marks.back().wait();
  std::vector<double> ms(samples);
  for (int i = 0; i < samples; ++i) ms[i] = elapsed_ms(marks[i], marks[i + 1]);
  std::nth_element(ms.begin(), ms.begin() + samples / 2, ms.end());
  return ms[samples / 2];
}

// Tries every candidate briefly, then measures the fastest well.
double best_ms(const std::vector<Run>& candidates) {
  constexpr int kTrial = 3, kFinal = 15;
  double fastest_ms = 0;
  const Run* fastest = nullptr;
  for (const Run& candidate : candidates) {
    const double ms = median_ms(candidate, kTrial);
    if (!fastest || ms < fastest_ms) {
      fastest = &candidate;
      fastest_ms = ms;
    }
  }
  return median_ms(*fastest, kFinal);
}

unsigned sms() { return static_cast<unsigned>(device().sms); }

// Blocks in a grid: so many for each SM, or (0) as many as there are tiles.
unsigned blocks_for(unsigned per_sm, std::size_t vectors, int in_flight) {
  return per_sm > 0 ? per_sm * sms() : static_cast<unsigned>(vectors / kThreads / in_flight);
}

template <Load LOAD, int IN_FLIGHT>
void add_copies(std::vector<Run>& runs, const uint4* from, uint4* to, std::size_t vectors) {
  for (const unsigned per_sm : {0u, 4u, 16u}) {
    runs.push_back([=](int) {
      launch(copy_vectors<LOAD, IN_FLIGHT>,
             {.name = "copy_vectors",
              .grid = blocks_for(per_sm, vectors, IN_FLIGHT),
              .block = kThreads},
             from, to, vectors);
    });
  }
}

// Run i reads half i % 2 of [2, vectors], so that nothing of it is in L2 from the run before.
template <Load LOAD, int IN_FLIGHT>
void add_reads(std::vector<Run>& runs, const uint4* from, unsigned* sink, std::size_t vectors) {
  for (const unsigned per_sm : {0u, 2u, 4u, 16u}) {
    runs.push_back([=](int i) {
      launch(read_vectors<LOAD, IN_FLIGHT>,
             {.name = "read_vectors",
              .grid = blocks_for(per_sm, vectors, IN_FLIGHT),
              .block = kThreads},
             from + i % 2 * vectors, sink, vectors);
    });
  }
}

template <int CHUNK, int STAGES>
void add_bulk_read(std::vector<Run>& runs, const void* from, std::size_t bytes,
                   unsigned blocks_per_sm) {
  const auto* start = static_cast<const unsigned char*>(from);
  runs.push_back([=](int i) {
    launch(read_bulk<CHUNK, STAGES>,
           {.name = "read_bulk",
            .grid = blocks_per_sm * sms(),
            .block = 1,
            .shared_bytes = shared_bytes<unsigned char[STAGES][CHUNK], std::uint64_t[STAGES]>()},
           start + i % 2 * bytes, bytes / CHUNK);
  });
}

void measure_memory(Ceilings& ceilings) {
  // Two halves of 2 GiB; on small GPUs, of a quarter of what is free.
  const std::size_t half = std::min(2048 * kMiB, free_memory() / 4 / kMiB * kMiB);
  const std::size_t vectors = half / sizeof(uint4);
  DeviceBuffer memory(2 * half, "ceilings");
  DeviceBuffer sink(sizeof(unsigned), "sink");
  launch(fill_with_noise, {.name = "fill_with_noise", .grid = 16 * sms(), .block = kThreads},
         static_cast<std::uint32_t*>(memory.data()), 2 * half / sizeof(std::uint32_t));
  auto* from = static_cast<uint4*>(memory.data());
  auto* to = from + vectors;
  auto* unused = static_cast<unsigned*>(sink.data());

  std::vector<Run> reads;
  add_reads<Load::plain, 4>(reads, from, unused, vectors);
  add_reads<Load::plain, 8>(reads, from, unused, vectors);
  add_reads<Load::streaming, 4>(reads, from, unused, vectors);
  add_reads<Load::streaming, 8>(reads, from, unused, vectors);
  if (device().sm >= 90) {
    add_bulk_read<8 << 10, 8>(reads, from, half, 3);
    add_bulk_read<16 << 10, 4>(reads, from, half, 3);
    add_bulk_read<16 << 10, 12>(reads, from, half, 1);
    add_bulk_read<32 << 10, 6>(reads, from, half, 1);
  }
  ceilings.read_gbps = half / best_ms(reads) / 1e6;

  std::vector<Run> copies;
  copies.push_back([=](int) {
    check(cudaMemcpyAsync(to, from, half, cudaMemcpyDeviceToDevice), "cudaMemcpyAsync");
  });
  add_copies<Load::plain, 2>(copies, from, to, vectors);
  add_copies<Load::plain, 4>(copies, from, to, vectors);
  add_copies<Load::plain, 8>(copies, from, to, vectors);
  add_copies<Load::streaming, 4>(copies, from, to, vectors);
  ceilings.copy_gbps = 2.0 * half / best_ms(copies) / 1e6;
}

template <int CHAINS>
double ffma_tflops(unsigned threads_per_sm) {
  constexpr int kSteps = (1 << 18) / CHAINS;
  constexpr unsigned kBlock = 256;
  DeviceBuffer sink(sizeof(float), "sink");
  const unsigned blocks = threads_per_sm / kBlock * sms();
  const Run run = [&](int) {
    launch(ffma_chains<CHAINS>, {.name = "ffma_chains", .grid = blocks, .block = kBlock},
           static_cast<float*>(sink.data()), kSteps, 0.999f, 0.5f);
  };
  const double flops = 2.0 * CHAINS * kSteps * kBlock * blocks;
  return flops / median_ms(run, 10) / 1e9;
}

template <int TM, int TN>
double mma_tflops(unsigned warps_per_sm) {
  constexpr int kSteps = (1 << 16) / (TM * TN);
  constexpr unsigned kBlock = 128;
  DeviceBuffer sink(sizeof(float), "sink");
  const unsigned blocks = warps_per_sm * 32 / kBlock * sms();
  const Run run = [&](int) {
    launch(mma_chains<TM, TN>, {.name = "mma_chains", .grid = blocks, .block = kBlock},
           static_cast<float*>(sink.data()), kSteps);
  };
  const double flops = 2.0 * 16 * 8 * 16 * TM * TN * kSteps * (kBlock / 32) * blocks;
  median_ms(run, 5);  // the clocks settle under the load
  return flops / median_ms(run, 20) / 1e9;
}

double exp_tops() {
  constexpr int kChains = 8, kSteps = 1 << 13;
  constexpr unsigned kBlock = 256;
  DeviceBuffer sink(sizeof(float), "sink");
  const unsigned blocks = 1024 / kBlock * sms();
  const Run run = [&](int) {
    launch(exp_chains<kChains>, {.name = "exp_chains", .grid = blocks, .block = kBlock},
           static_cast<float*>(sink.data()), kSteps);
  };
  return 1.0 * kChains * kSteps * kBlock * blocks / median_ms(run, 10) / 1e9;
}

double shared_gbps() {
  constexpr int kSteps = 4096;
  constexpr std::size_t kShared = shared_bytes<uint4[kLoadsPerStep][kSharedThreads]>();
  DeviceBuffer sink(sizeof(unsigned), "sink");
  const unsigned blocks = 2 * sms();  // 1024 threads and 64 KiB, which every SM has
  const Run run = [&](int) {
    launch(
        read_shared,
        {.name = "read_shared", .grid = blocks, .block = kSharedThreads, .shared_bytes = kShared},
        static_cast<unsigned*>(sink.data()), kSteps, 8);
  };
  const double bytes = 1.0 * sizeof(uint4) * kLoadsPerStep * kSteps * kSharedThreads * blocks;
  return bytes / median_ms(run, 10) / 1e6;
}

// fp16, sums and result as cuBLAS likes them best: sums in fp32, the result rounded to fp16.
double tensor_tflops() {
  constexpr int kSize = 8192;
  constexpr std::size_t kElements = std::size_t{kSize} * kSize;
  DeviceBuffer a(kElements * sizeof(__half), "A"), b(kElements * sizeof(__half), "B"),
      c(kElements * sizeof(__half), "C"), workspace(cublas::kWorkspaceBytes, "workspace");
  for (DeviceBuffer* matrix : {&a, &b}) {
    launch(fill_with_numbers<__half>,
           {.name = "fill_with_numbers", .grid = 16 * sms(), .block = kThreads},
           static_cast<__half*>(matrix->data()), kElements);
  }
  const Run run = [&](int) {
    cublas::gemm({.batch = 1,
                  .m = kSize,
                  .n = kSize,
                  .k = kSize,
                  .alpha = 1,
                  .units = cublas::Units::tensor,
                  .in = DType::fp16,
                  .out = DType::fp16,
                  .a = a.data(),
                  .b = b.data(),
                  .b_transposed = true,
                  .c = c.data()},
                 workspace.data(), nullptr);
  };
  median_ms(run, 5);  // the clocks settle under the load
  return 2.0 * kElements * kSize / median_ms(run, 20) / 1e9;
}

// e4m3, the same size, the result in fp16.
std::optional<double> tensor_fp8_tflops() {
  constexpr int kSize = 8192;
  constexpr std::size_t kElements = std::size_t{kSize} * kSize;
  const cublaslt::ProductE4m3 product(kSize, cublas::kWorkspaceBytes);
  DeviceBuffer a(kElements, "A"), b(kElements, "B"), c(kElements * sizeof(__half), "C"),
      workspace(cublas::kWorkspaceBytes, "workspace");
  for (DeviceBuffer* matrix : {&a, &b}) {
    launch(fill_with_numbers<__nv_fp8_e4m3>,
           {.name = "fill_with_numbers", .grid = 16 * sms(), .block = kThreads},
           static_cast<__nv_fp8_e4m3*>(matrix->data()), kElements);
  }
  std::vector<Run> runs;
  for (int algorithm = 0; algorithm < product.algorithms(); ++algorithm) {
    runs.push_back([&, algorithm](int) {
      product.enqueue(algorithm, a.data(), b.data(), c.data(), workspace.data(), nullptr);
    });
  }
  if (runs.empty()) return std::nullopt;
  return 2.0 * kElements * kSize / best_ms(runs) / 1e9;
}

}  // namespace

Ceilings measure_ceilings() {
  Ceilings ceilings;
  // Arithmetic first: it also wakes the clocks of a GPU that was idle.
  ceilings.ffma_tflops =
      std::max({ffma_tflops<8>(1024), ffma_tflops<16>(1024), ffma_tflops<8>(2048)});
  ceilings.mma_tflops = std::max({mma_tflops<2, 4>(8), mma_tflops<2, 4>(16), mma_tflops<4, 4>(8)});
  ceilings.exp_tops = exp_tops();
  ceilings.shared_gbps = shared_gbps();
  measure_memory(ceilings);
  ceilings.why_absent = cublas::why_absent();
  try {
    if (ceilings.why_absent.empty()) ceilings.tensor_tflops = tensor_tflops();
    if (device().sm >= 89 && cublaslt::why_absent().empty()) {
      ceilings.tensor_fp8_tflops = tensor_fp8_tflops();
    }
  } catch (const Error& error) {
    ceilings.why_absent = error.what();
  }
  return ceilings;
}

double copy_gbps_at(std::size_t bytes) {
  constexpr int kInFlight = 4;
  constexpr std::size_t kTile = kThreads * kInFlight * sizeof(uint4);
  const std::size_t half = std::max(bytes / 2 / kTile, std::size_t{1}) * kTile;
  const std::size_t vectors = half / sizeof(uint4);
  struct Set {
    DeviceBuffer from, to;
  };
  std::vector<Set> sets(buffer_sets(2 * half));
  for (Set& set : sets) {
    set = {DeviceBuffer(half, "from"), DeviceBuffer(half, "to")};
    launch(fill_with_noise, {.name = "fill_with_noise", .grid = 16 * sms(), .block = kThreads},
           static_cast<std::uint32_t*>(set.from.data()), half / sizeof(std::uint32_t));
  }
  const auto ms = [&](const Enqueue& enqueue) {
    return benchmark(enqueue, static_cast<int>(sets.size())).primary.median_ms;
  };
  const double by_driver = ms([&](int set, Stream stream) {
    check(cudaMemcpyAsync(sets[set].to.data(), sets[set].from.data(), half,
                          cudaMemcpyDeviceToDevice, stream),
          "cudaMemcpyAsync");
  });
  const double by_kernel = ms([&](int set, Stream stream) {
    launch(copy_vectors<Load::plain, kInFlight>,
           {.name = "copy_vectors",
            .grid = blocks_for(0, vectors, kInFlight),
            .block = kThreads,
            .stream = stream},
           static_cast<const uint4*>(sets[set].from.data()),
           static_cast<uint4*>(sets[set].to.data()), vectors);
  });
  return 2.0 * half / std::min(by_driver, by_kernel) / 1e6;
}

}  // namespace al
