// The stage record: all that the rest of the house knows about a chapter.
//
// A chapter's stage.cu defines one Stage. Its executable, the next chapter's executable, the
// tests, `ladder` and the C ABI all read it.
#pragma once

#include <span>
#include <string>

#include "common/check.hpp"
#include "common/device.hpp"
#include "common/problem.hpp"

namespace al {

// Device pointers, contiguous, with the shapes of Problem.
struct Arguments {
  const void* q = nullptr;    // [B, Hq, Nq, D]
  const void* k = nullptr;    // [B, Hkv, Nkv, D]
  const void* v = nullptr;    // [B, Hkv, Nkv, D]
  const void* s = nullptr;    // [B, Hq, Nq, Nkv] in Problem::score_dtype()
  const void* p = nullptr;    // [B, Hq, Nq, Nkv]
  void* out = nullptr;        // S, P or O, by the operation
  float* lse = nullptr;       // [B, Hq, Nq] fp32, natural log; nullptr: not wanted
  void* workspace = nullptr;  // Variant::workspace bytes, 256-byte aligned
  // Beyond the plain problem; nullptr where the problem does not have it.
  const float *q_scale = nullptr, *k_scale = nullptr, *v_scale = nullptr;  // [Hq], [Hkv], [Hkv]
  const int* kv_len = nullptr;                                             // [B]
  const int* page_table = nullptr;                                         // [B, max_pages]
  int max_pages = 0;
};

// What a kernel makes the hardware do, by the chapter's own count; the runner turns it into a
// predicted time with the measured ceilings (roofline.hpp).
struct Cost {
  double ffma_flops = 0;         // on the FP32 units, 2 per FMA
  double tensor_flops = 0;       // on the tensor cores, operands of 16 bits (fp32 counts twice)
  double mma_flops = 0;          // the same through mma.sync, which is slower than wgmma on Hopper
  double tensor_fp8_flops = 0;   // on the tensor cores, operands of 8 bits
  double exponentials = 0;       // and what else the special-function units make: 2^x, 1/x
  double dram_bytes = 0;         // read + written, re-reads that miss L2 included
  double shared_wavefronts = 0;  // 128-byte passes of the load/store unit (shared memory and L1)
};

inline constexpr const char* kPriorStage = "the prior stage";

// What a problem may ask for beyond the plain case. A variant takes nothing of it that it does not
// name, and the rest is refused for it (refusal() below).
struct Features {
  bool fp8 = false;       // Q, K and V of 8 bits, with a scale a head
  bool kv_dtype = false;  // K and V of another dtype than Q
  bool kv_len = false;    // a length for each sequence
  bool pages = false;     // K and V in pages
};

struct Variant {
  const char* name;  // what --variant, the JSON and the C ABI call it: "register_tiles"
  const char* idea;  // one line, for --list and the table
  // The variant of this stage it is timed against, kPriorStage for the prior stage's best, or
  // nullptr for none.
  const char* prior;
  Operation operation;
  Features features = {};

  // Why this variant cannot run this problem here, its features apart; empty: it can. Says what is
  // allowed. Asked through refusal().
  std::string (*refuse)(const Problem&, const DeviceInfo&);
  std::size_t (*workspace)(const Problem&);  // bytes; nullptr: none
  // Bytes at the workspace's beginning that must be zero before the first launch, and that every
  // launch leaves zero; nullptr: none.
  std::size_t (*zeroed)(const Problem&) = nullptr;
  Cost (*cost)(const Problem&);  // nullptr: no prediction
  // What it allows itself beyond the budget of every other; nullptr: nothing.
  Slack (*slack)(const Problem&) = nullptr;
  // Enqueues the kernels. Inputs have been validated and not refused.
  void (*launch)(const Problem&, const Arguments&, Stream);
  // Brings a library's result into the form that the check reads, where the library has none such;
  // not a part of the time. nullptr: launch has.
  void (*finish)(const Problem&, const Arguments&, Stream) = nullptr;
};

// Why the variant cannot run the problem: a feature that it does not take, or what it says itself.
std::string refusal(const Variant& variant, const Problem& problem, const DeviceInfo& device);

enum class Role { stage, prior, yardstick };

struct Stage {
  const char* name;   // "01_naive_qk"
  const char* title;  // one line
  Operation operation;
  const Stage* prior;                 // the stage it is timed against; nullptr: the first
  std::span<const Variant> variants;  // in the order the chapter grows them
  // Index of the variant to use for this problem when the user names none.
  int (*best)(const Problem&, const DeviceInfo&);
  // Rows made of libraries that this stage's table and all later ones show.
  std::span<const Variant> yardsticks;
  int default_seq = 0;  // --seq where none is given; 0: the config's
  // --sweep splits: the best variant with one chunk of keys a head, with two, …, and with as many
  // as the chapter's model says.
  std::span<const Variant> splits = {};
};

// A point of `--sweep tiles`: a variant made for one tile.
struct TilePoint {
  int block_m, block_n, threads;
  Variant variant;
};

// Looks a variant up by name; throws Error(usage) naming those there are.
const Variant& find_variant(const Stage& stage, const std::string& name);

}  // namespace al
