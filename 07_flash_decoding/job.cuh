// What all kernels of this chapter are told, and how they find their rows and keys.
//
// The query rows that read one key/value head lie side by side in memory: Q [B, Hq, Nq, D] is
// [B · Hkv, rows, D] with rows = Hq / Hkv · Nq. Row r is query r % Nq of its head.
#pragma once

#include <cstdint>

#include "07_flash_decoding/plan.hpp"
#include "common/device.cuh"
#include "common/kernel_shape.cuh"
#include "common/stage.hpp"

namespace al::decoding {

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// Partial results of chunks: a normalised o and the LSE, to the base 2, of each row of Q. Where a
// row sees no key of a chunk they are 0 and -inf.
struct Partials {
  unsigned* tickets;  // [heads, row_tiles]: blocks that have finished; zero between launches
  float* lse;         // [heads, splits, rows]
  float* o;           // [heads, splits, rows, D]
};

struct Job {
  int kv_heads, rows, Nq, Nkv;
  int row_tiles, tile, splits;
  float scale_log2;  // scale · log2 e
  bool causal;
  bool one_launch;                 // the last block merges, not a second kernel
  bool overlaps;                   // it begins while the kernel in front still runs
  const int* kv_len;               // [B] or nullptr
  const float *k_scale, *v_scale;  // [Hkv] or nullptr
  const int* page_table;           // [B, max_pages] or nullptr
  int max_pages, page_shift;       // keys of a page: 2^page_shift
  float* LSE;                      // [B, Hq, Nq] or nullptr
  Partials partials;

  Job(const Problem& p, const Arguments& a, const Plan& plan, bool merged_by_last_block,
      bool begins_early = false)
      : kv_heads(p.kv_heads),
        rows(p.group() * p.seq),
        Nq(p.seq),
        Nkv(p.kv_seq),
        row_tiles(plan.row_tiles),
        tile(plan.tile),
        splits(plan.splits),
        scale_log2(static_cast<float>(p.scale) * kLog2e),
        causal(p.causal),
        one_launch(merged_by_last_block),
        overlaps(begins_early),
        kv_len(a.kv_len),
        k_scale(a.k_scale),
        v_scale(a.v_scale),
        page_table(a.page_table),
        max_pages(a.max_pages),
        LSE(a.lse) {
    for (page_shift = 0; 1 << page_shift < p.page_size;) ++page_shift;
    const std::size_t results = std::size_t(plan.heads) * plan.splits * rows;
    auto* const memory = static_cast<std::byte*>(a.workspace);
    partials.tickets = reinterpret_cast<unsigned*>(memory);
    partials.o = reinterpret_cast<float*>(memory + ticket_bytes(plan));
    partials.lse = partials.o + results * p.head_dim;
  }

  static std::size_t ticket_bytes(const Plan& plan) {
    return (std::size_t(plan.heads) * plan.row_tiles * sizeof(unsigned) + 255) / 256 * 256;
  }
  static std::size_t workspace_bytes(const Problem& p, const Plan& plan) {
    const std::size_t results = std::size_t(plan.heads) * plan.splits * p.group() * p.seq;
    return ticket_bytes(plan) + results * (p.head_dim + 1) * sizeof(float);
  }
};

// One block's part.
struct Part {
  int head;                   // key/value head, counted over the batch
  int sequence, shared_head;  // the same, apart; where lengths, pages or scales ask for it
  int tile, row0, rows;       // of rows; its first one, and how many there are
  int length;                 // keys of the sequence
  int split, splits;          // which chunk, and how many have keys
  float k_scale, v_scale;
  // The chunk's tiles go round with those of the others: from `begin` to `end` in steps of
  // `stride`.
  int begin, end, stride;

  // The grid is [heads · row tiles, splits], in two dimensions for once: a division takes a hundred
  // clocks, and the first load of K would wait for it. The others are done where they are needed.
  __device__ Part(const Job& job, int rows_at_once) {
    split = blockIdx.y;
    tile = job.row_tiles > 1 ? blockIdx.x % job.row_tiles : 0;
    head = job.row_tiles > 1 ? blockIdx.x / job.row_tiles : blockIdx.x;
    const bool apart = job.kv_len || job.page_table || job.k_scale;
    sequence = apart ? head / job.kv_heads : 0;
    shared_head = apart ? head % job.kv_heads : 0;
    row0 = tile * rows_at_once;
    rows = min(rows_at_once, job.rows - row0);
    length = job.kv_len ? job.kv_len[sequence] : job.Nkv;
    splits = max(1, min(job.splits, ceil_div(length, job.tile)));
    k_scale = job.k_scale ? job.k_scale[shared_head] : 1.0f;
    v_scale = job.v_scale ? job.v_scale[shared_head] : 1.0f;
    begin = split * job.tile;
    end = length;
    stride = splits * job.tile;
  }

  // The tile's first row among the partial results of chunk `c`.
  __device__ std::size_t partial_row(const Job& job, int c) const {
    return (std::size_t(head) * job.splits + c) * job.rows + row0;
  }
  // Keys that row r of the tile sees: j < visible(r).
  __device__ int visible(const Job& job, int r) const {
    return job.causal ? (row0 + r) % job.Nq + 1 + length - job.Nq : length;
  }
};

// K or V of one head: whole, or in pages. Keys are looked up by sixteen, which never cross a page.
template <typename T, int D>
struct Cache {
  const T* first;         // row 0; in pages: of page 0
  const int* page_table;  // [max_pages] of this sequence, or nullptr
  unsigned in_page;       // mask of the key's place in its page
  int page_shift;
  std::int64_t page_elements;

  __device__ Cache(const T* tensor, const Job& job, const Part& part) {
    const bool pages = job.page_table != nullptr;
    in_page = pages ? (1u << job.page_shift) - 1 : 0x7fffffffu;
    page_shift = job.page_shift;
    const std::int64_t head_elements = std::int64_t{pages ? 1 << page_shift : job.Nkv} * D;
    first = tensor + (pages ? part.shared_head : part.head) * head_elements;
    page_table = pages ? job.page_table + std::int64_t{part.sequence} * job.max_pages : nullptr;
    page_elements = pages ? job.kv_heads * head_elements : 0;
  }

  // The page of keys j … j + 15. To be asked early: the answer comes from memory.
  __device__ int page_of(int j) const { return page_table ? page_table[j >> page_shift] : 0; }
  __device__ const T* row(int page, int j) const {
    return first + (page * page_elements + (int(j & in_page) * D));
  }
};

}  // namespace al::decoding
