// The CUDA language as a kernel sees it, for the host compiler: what NVIDIA's own headers do not
// give it. The types, the vector types, and most of fp16 and bf16 arithmetic come from them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "common/emulator/launch.hpp"

#define __launch_bounds__(...)
#undef __maxnreg__
#define __maxnreg__(...)
#undef __shared__
#define __shared__ _Pragma("GCC error \"Take shared memory from a SharedArena, not __shared__.\"")

// Set at each switch to a CUDA thread, so that `print threadIdx` works in a debugger.
extern const constinit thread_local uint3 threadIdx, blockIdx;
extern const constinit thread_local dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace al::emulator {

// Where a kernel calls something that waits: reports name it.
using Where = std::source_location;

void barrier(Where where);
struct Votes {
  int yes, all;  // threads whose predicate was true; threads in the block
};
Votes barrier_vote(bool predicate, Where where);
void sync_warp(unsigned mask, Where where);
unsigned ballot(unsigned mask, bool predicate, Where where);

enum class Shuffle { from_lane, up, down, exclusive_or };
std::uint64_t shuffle(Shuffle kind, unsigned mask, std::uint64_t bits, int argument, int width,
                      Where where);

template <typename T>
T shuffle_value(Shuffle kind, unsigned mask, T value, int argument, int width, Where where) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(kind, mask, bits, argument, width, where);
  std::memcpy(static_cast<void*>(&value), &bits, sizeof(T));
  return value;
}

std::size_t shared_offset(const void* pointer);  // in the block's shared memory

void wait_for_kernels_in_front();  // see common/ptx/dependent_launch.cuh

void fence();  // __threadfence: what this block has written may be announced by an atomic

// The atomic operations, defined in atomics.cpp for int, unsigned, unsigned long long, and float
// and double where CUDA has them.
template <typename T>
T atomic_add(T* address, T value);
template <typename T>
T atomic_min(T* address, T value);
template <typename T>
T atomic_max(T* address, T value);
template <typename T>
T atomic_exchange(T* address, T value);
template <typename T>
T atomic_compare_and_swap(T* address, T expected, T value);

// cp.async: see common/ptx/cp_async.cuh.
void cp_async(void* to, const void* from, unsigned bytes, unsigned source_bytes);
void cp_async_commit();
void cp_async_wait(unsigned newer_groups);

template <typename T>
using Same = std::type_identity_t<T>;  // converts the argument to the type of the address

}  // namespace al::emulator

// --- waiting for other threads ------------------------------------------------------------------
// The default argument is evaluated where the kernel calls: it names that line.

inline void __syncthreads(al::emulator::Where where = al::emulator::Where::current()) {
  al::emulator::barrier(where);
}
inline int __syncthreads_or(int p, al::emulator::Where where = al::emulator::Where::current()) {
  return al::emulator::barrier_vote(p != 0, where).yes > 0;
}
inline int __syncthreads_and(int p, al::emulator::Where where = al::emulator::Where::current()) {
  const auto [yes, all] = al::emulator::barrier_vote(p != 0, where);
  return yes == all;
}
inline int __syncthreads_count(int p, al::emulator::Where where = al::emulator::Where::current()) {
  return al::emulator::barrier_vote(p != 0, where).yes;
}
inline void __syncwarp(unsigned mask = 0xffffffff,
                       al::emulator::Where where = al::emulator::Where::current()) {
  al::emulator::sync_warp(mask, where);
}

inline unsigned __ballot_sync(unsigned mask, int p,
                              al::emulator::Where where = al::emulator::Where::current()) {
  return al::emulator::ballot(mask, p != 0, where);
}
inline int __any_sync(unsigned mask, int p,
                      al::emulator::Where where = al::emulator::Where::current()) {
  return al::emulator::ballot(mask, p != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int p,
                      al::emulator::Where where = al::emulator::Where::current()) {
  return al::emulator::ballot(mask, p != 0, where) == mask;
}
// Which lanes happen to run together is chance on a GPU too: name the lanes you mean.
unsigned __activemask() = delete;

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
              al::emulator::Where where = al::emulator::Where::current()) {
  return shuffle_value(al::emulator::Shuffle::from_lane, mask, value, lane, width, where);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 al::emulator::Where where = al::emulator::Where::current()) {
  return shuffle_value(al::emulator::Shuffle::up, mask, value, static_cast<int>(delta), width,
                       where);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   al::emulator::Where where = al::emulator::Where::current()) {
  return shuffle_value(al::emulator::Shuffle::down, mask, value, static_cast<int>(delta), width,
                       where);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  al::emulator::Where where = al::emulator::Where::current()) {
  return shuffle_value(al::emulator::Shuffle::exclusive_or, mask, value, lane_mask, width, where);
}

// --- memory --------------------------------------------------------------------------------------

inline void __threadfence_block() {}
inline void __threadfence() { al::emulator::fence(); }
inline void __threadfence_system() { al::emulator::fence(); }

inline std::size_t __cvta_generic_to_shared(const void* pointer) {
  return al::emulator::shared_offset(pointer);
}

template <typename T>
__forceinline__ T __ldg(const T* address) {
  return *address;
}

template <typename T>
__forceinline__ T atomicAdd(T* address, al::emulator::Same<T> value) {
  return al::emulator::atomic_add(address, value);
}
template <typename T>
__forceinline__ T atomicSub(T* address, al::emulator::Same<T> value) {
  return al::emulator::atomic_add(address, static_cast<T>(0 - value));
}
template <typename T>
__forceinline__ T atomicMin(T* address, al::emulator::Same<T> value) {
  return al::emulator::atomic_min(address, value);
}
template <typename T>
__forceinline__ T atomicMax(T* address, al::emulator::Same<T> value) {
  return al::emulator::atomic_max(address, value);
}
template <typename T>
__forceinline__ T atomicExch(T* address, al::emulator::Same<T> value) {
  return al::emulator::atomic_exchange(address, value);
}
template <typename T>
__forceinline__ T atomicCAS(T* address, al::emulator::Same<T> expected,
                            al::emulator::Same<T> value) {
  return al::emulator::atomic_compare_and_swap(address, expected, value);
}

// --- arithmetic ----------------------------------------------------------------------------------
// The fast approximations of a GPU are the exact functions here.

using std::max;
using std::min;

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }

#define __expf(x) expf(x)  // glibc has functions of these names, hidden from the linker
#define __logf(x) logf(x)
#define __powf(x, y) powf(x, y)
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __frsqrt_rn(float x) { return 1.0f / std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
inline float __saturatef(float x) { return x > 0 ? std::min(x, 1.0f) : 0.0f; }

// Nibble i of `selector` says which of eight bytes, a's and then b's, becomes byte i.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t{b} << 32 | a;
  unsigned chosen = 0;
  for (int i = 0; i < 4; ++i) {
    chosen |= static_cast<unsigned>(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  }
  return chosen;
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }

inline __half __hfma(__half a, __half b, __half c) {
  return __float2half(std::fma(__half2float(a), __half2float(b), __half2float(c)));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return __halves2half2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}
inline __half hexp2(__half a) { return __float2half(exp2f(__half2float(a))); }
inline __half hexp(__half a) { return __float2half(expf(__half2float(a))); }
inline __half2 h2exp2(__half2 a) { return __halves2half2(hexp2(a.x), hexp2(a.y)); }
inline __half2 h2exp(__half2 a) { return __halves2half2(hexp(a.x), hexp(a.y)); }

inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return __float2bfloat16(std::fma(__bfloat162float(a), __bfloat162float(b), __bfloat162float(c)));
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return __halves2bfloat162(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}
inline __nv_bfloat16 hexp2(__nv_bfloat16 a) { return __float2bfloat16(exp2f(__bfloat162float(a))); }
inline __nv_bfloat16 hexp(__nv_bfloat16 a) { return __float2bfloat16(expf(__bfloat162float(a))); }
inline __nv_bfloat162 h2exp2(__nv_bfloat162 a) {
  return __halves2bfloat162(hexp2(a.x), hexp2(a.y));
}
inline __nv_bfloat162 h2exp(__nv_bfloat162 a) { return __halves2bfloat162(hexp(a.x), hexp(a.y)); }
