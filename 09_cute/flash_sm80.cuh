// FlashAttention as an Ampere GPU likes it, in CuTe: mma.sync on tiles that cp.async brings into
// swizzled shared memory and ldmatrix takes into registers.
//
//   Q [B·Hq, Nq, D]   K, V [B·Hkv, Nkv, D]   O [B·Hq, Nq, D]   LSE [B·Hq, Nq]
//
// A block computes BLOCK_M rows of O; each of its warps 16 rows of every 16 · WARPS, so what a row
// needs of the softmax stays within four neighbouring lanes. Keys are walked in tiles of BLOCK_N,
// the last tile first: the masked ones come first then, and the loop after them knows no mask.
#pragma once

#include <cmath>
#include <limits>

#include "09_cute/flash_sm80.hpp"
#include "09_cute/sm80_config.cuh"
#include "09_cute/sm80_leaks.cuh"
#include "09_cute/tile_order.cuh"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/ptx/exp2.cuh"

namespace al::cute_attention {

using namespace cute;
using cute::Tensor;  // not al::Tensor

// Rounds a fragment to T, two elements an instruction.
template <typename T, typename Engine, typename Layout>
__device__ __forceinline__ auto rounded(const Tensor<Engine, Layout>& x) {
  auto y = make_tensor_like<T>(x);
#pragma unroll
  for (int i = 0; i < size(x); i += 2) {
    if constexpr (std::is_same_v<T, half_t>) {
      reinterpret_cast<__half2&>(y(i)) = __floats2half2_rn(x(i), x(i + 1));
    } else {
      reinterpret_cast<__nv_bfloat162&>(y(i)) = __floats2bfloat162_rn(x(i), x(i + 1));
    }
  }
  return y;
}

// Starts to copy a tile of which `rows` rows exist; the others become zeros. `where`: the row and
// column of each element that this thread copies.
template <int ROWS, typename Load, typename Source, typename Target, typename Where>
__device__ __forceinline__ void load_tile(const Load& load, const Source& from, Target&& to,
                                          const Where& where, int rows) {
  if (rows >= ROWS) {
    copy(load, from, to);
  } else {
#pragma unroll
    for (int r = 0; r < size<1>(from); ++r) {
      copy(load.with(get<0>(where(0, r, 0)) < rows), from(_, r, _), to(_, r, _));
    }
  }
}

// C += A Bᵀ, in slices of 16 along K. fetch(k) takes slice k of the operands from shared memory
// into a and b; the next slice is on its way while this one is multiplied.
// [snippet multiply]
template <typename Mma, typename C, typename A, typename B, typename Fetch>
__device__ __forceinline__ void multiply(const Mma& mma, C& c, const A& a, const B& b,
                                         const Fetch& fetch) {
  constexpr int SLICES = decltype(size<2>(a))::value;
  fetch(0);
#pragma unroll
  for (int k = 0; k < SLICES; ++k) {
    if (k + 1 < SLICES) fetch(k + 1);
    gemm(mma, a(_, _, k), b(_, _, k), c);
  }
}
// [/snippet]

template <typename Config>
__global__ void __launch_bounds__(Config::THREADS)
    flash_sm80(const typename Config::T* Q, const typename Config::T* K,
               const typename Config::T* V, typename Config::T* O, float* LSE, KernelShape shape,
               TileOrder order) {
  using T = typename Config::T;
  constexpr int D = Config::D, BLOCK_M = Config::BLOCK_M, BLOCK_N = Config::BLOCK_N;
  constexpr float INF = std::numeric_limits<float>::infinity();

  // [snippet tensors]
  const int thread = threadIdx.x;
  const auto [bh, tile_m] = order(blockIdx.x);
  const int row0 = tile_m * BLOCK_M;
  const int rows = min(BLOCK_M, shape.Nq - row0);
  const int keys = max(0, shape.visible_keys(row0 + rows - 1));  // that the last row sees
  const int tiles = ceil_div(keys, BLOCK_N);                     // of keys
  const int whole = max(0, shape.visible_keys(row0)) / BLOCK_N;  // tiles that every row sees all of

  // Global memory, and its tiles.
  const auto matrix = [](auto* head, int height) {
    return make_tensor(make_gmem_ptr(head), make_shape(height, Int<D>{}),
                       make_stride(Int<D>{}, _1{}));
  };
  const std::size_t kv_offset = std::size_t(shape.kv_head(bh)) * shape.Nkv * D;
  const std::size_t q_offset = std::size_t(bh) * shape.Nq * D;
  using TileQ = Shape<Int<BLOCK_M>, Int<D>>;
  using TileK = Shape<Int<BLOCK_N>, Int<D>>;
  const Tensor gQ = local_tile(matrix(Q + q_offset, shape.Nq), TileQ{}, make_coord(tile_m, 0));
  const Tensor gK = local_tile(matrix(K + kv_offset, shape.Nkv), TileK{}, make_coord(_, 0));
  const Tensor gV = local_tile(matrix(V + kv_offset, shape.Nkv), TileK{}, make_coord(_, 0));
  const Tensor gO = local_tile(matrix(O + q_offset, shape.Nq), TileQ{}, make_coord(tile_m, 0));

  // Shared memory.
  SharedArena shared;
  auto& Q_smem = shared.take<T[BLOCK_M * D]>("Q_smem");  // in the end it takes O
  auto& K_smem = shared.take<T[BLOCK_N * D]>("K_smem");
  auto& V_smem = shared.take<T[BLOCK_N * D]>("V_smem");
  const Tensor sQ = make_tensor(make_smem_ptr(Q_smem), typename Config::SmemQ{});    // (M, D)
  const Tensor sK = make_tensor(make_smem_ptr(K_smem), typename Config::SmemK{});    // (N, D)
  const Tensor sV = make_tensor(make_smem_ptr(V_smem), typename Config::SmemV{});    // (N, D)
  const Tensor sVt = make_tensor(make_smem_ptr(V_smem), typename Config::SmemVt{});  // (D, N)

  // Global → shared: the pieces this thread copies, and which rows they are.
  typename Config::Load load;
  const auto load_thread = load.get_thread_slice(thread);
  const Tensor tKgK = load_thread.partition_S(gK);  // (8, rows, columns, tiles)
  const Tensor tVgV = load_thread.partition_S(gV);
  const Tensor tKcK = load_thread.partition_S(make_identity_tensor(TileK{}));
  Tensor tKsK = load_thread.partition_D(sK);  // (8, rows, columns)
  Tensor tVsV = load_thread.partition_D(sV);
  const auto load_K = [&](int j) {
    load_tile<BLOCK_N>(load, tKgK(_, _, _, j), tKsK, tKcK, shape.Nkv - j * BLOCK_N);
    cp_async_fence();
  };
  const auto load_V = [&](int j) {
    load_tile<BLOCK_N>(load, tVgV(_, _, _, j), tVsV, tKcK, shape.Nkv - j * BLOCK_N);
    cp_async_fence();
  };

  // Shared → registers: fragments of the two products, and the same seen as ldmatrix fills them.
  typename Config::Mma mma;
  const auto mma_thread = mma.get_thread_slice(thread);
  Tensor tSrQ = mma_thread.partition_fragment_A(sQ);   // (8, MMA_M, D / 16)
  Tensor tSrK = mma_thread.partition_fragment_B(sK);   // (4, MMA_N, D / 16)
  Tensor tOrV = mma_thread.partition_fragment_B(sVt);  // (4, MMA_D, N / 16)
  const auto ldsm_Q = make_tiled_copy_A(Copy_Atom<LdMatrix, T>{}, mma);
  const auto ldsm_K = make_tiled_copy_B(Copy_Atom<LdMatrix, T>{}, mma);
  const auto ldsm_V = make_tiled_copy_B(Copy_Atom<LdMatrixTransposed, T>{}, mma);
  const auto ldsm_Q_thread = ldsm_Q.get_thread_slice(thread);
  const auto ldsm_K_thread = ldsm_K.get_thread_slice(thread);
  const auto ldsm_V_thread = ldsm_V.get_thread_slice(thread);
  const Tensor tSsQ = ldsm_Q_thread.partition_S(sQ);
  const Tensor tSsK = ldsm_K_thread.partition_S(sK);
  const Tensor tOsV = ldsm_V_thread.partition_S(sVt);
  Tensor tSrQ_view = ldsm_Q_thread.retile_D(tSrQ);
  Tensor tSrK_view = ldsm_K_thread.retile_D(tSrK);
  Tensor tOrV_view = ldsm_V_thread.retile_D(tOrV);
  // [/snippet]

  // [snippet state]
  Tensor tOrO = partition_fragment_C(mma, TileQ{});  // ((2, 2), MMA_M, MMA_D)
  Tensor O_rows = make_tensor(tOrO.data(), as_rows_and_columns(tOrO.layout()));
  constexpr int ROWS = decltype(size<0>(O_rows))::value;  // of this thread
  float m[ROWS], l[ROWS];  // largest score, before it is scaled; this thread's part of the sum
  bool V_finite = true;    // in the masked tiles
  clear(tOrO);
#pragma unroll
  for (int r = 0; r < ROWS; ++r) m[r] = -INF, l[r] = 0;
  // exp(scale · s) = 2^(scale_log2 · s). A larger product is a larger score: where the scale is
  // negative, Q's sign is turned. Not quite zero where the scale is: 0 · -inf is NaN.
  const float scale_log2 = fmaxf(fabsf(shape.scale) * float(M_LOG2E), 1e-30f);
  // [/snippet]

  // [snippet step]
  // One tile of keys. MASKED: some row does not see all of it.
  const auto step = [&](auto masked, int j) {
    constexpr bool MASKED = decltype(masked)::value;
    cp_async_wait<0>();
    __syncthreads();  // K tile j is complete; everyone is done reading the V before
    load_V(j);

    // S = Q Kᵀ  [BLOCK_M, BLOCK_N]
    Tensor tSrS = partition_fragment_C(mma, Shape<Int<BLOCK_M>, Int<BLOCK_N>>{});
    clear(tSrS);
    multiply(mma, tSrS, tSrQ, tSrK, [&](int k) {
      copy(ldsm_Q, tSsQ(_, _, k), tSrQ_view(_, _, k));
      copy(ldsm_K, tSsK(_, _, k), tSrK_view(_, _, k));
    });
    Tensor S = make_tensor(tSrS.data(), as_rows_and_columns(tSrS.layout()));  // (rows, columns)

    cp_async_wait<0>();
    __syncthreads();  // V tile j is complete; everyone is done reading K
    if (j > 0) load_K(j - 1);

    if constexpr (MASKED) {
      const Tensor tScS =
          mma_thread.partition_C(make_identity_tensor(Shape<Int<BLOCK_M>, Int<BLOCK_N>>{}));
      const Tensor where = make_tensor(tScS.data(), as_rows_and_columns(tScS.layout()));
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        const int visible = shape.visible_keys(row0 + get<0>(where(r, 0))) - j * BLOCK_N;
#pragma unroll
        for (int c = 0; c < size<1>(S); ++c) {
          if (get<1>(where(r, c)) >= visible) S(r, c) = -INF;
        }
      }
    }

    // The maximum of each row, over the tile and the four lanes that share the row.
    float m_new[ROWS];
    bool grown = false;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      m_new[r] = m[r];
#pragma unroll
      for (int c = 0; c < size<1>(S); ++c) m_new[r] = fmaxf(m_new[r], S(r, c));
      m_new[r] = fmaxf(m_new[r], __shfl_xor_sync(0xffffffff, m_new[r], 1));
      m_new[r] = fmaxf(m_new[r], __shfl_xor_sync(0xffffffff, m_new[r], 2));
      grown |= m_new[r] > m[r];
    }
    // A maximum has grown, so what is summed up shrinks. Seldom for one row, but the vote is of 32.
    if (__any_sync(0xffffffff, grown)) {
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        // A row that has seen no key yet has nothing to rescale; -inf - -inf would be NaN.
        const float shrink = m[r] == -INF ? 0 : fast_exp2((m[r] - m_new[r]) * scale_log2);
        m[r] = m_new[r];
        l[r] *= shrink;
#pragma unroll
        for (int d = 0; d < size<1>(O_rows); ++d) O_rows(r, d) *= shrink;
      }
    }

    // P = 2^((S - m) · scale · log2 e), in place of S.
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const float m_scaled = MASKED && m[r] == -INF ? 0 : m[r] * scale_log2;
#pragma unroll
      for (int c = 0; c < size<1>(S); ++c) {
        S(r, c) = fast_exp2(S(r, c) * scale_log2 - m_scaled);
        l[r] += S(r, c);
      }
    }

    // O += P V: what was the result of one product is the operand of the next, in the same lanes.
    const Tensor P = rounded<T>(tSrS);
    const Tensor tOrP = make_tensor(P.data(), as_A_operand(P.layout()));
    multiply(mma, tOrO, tOrP, tOrV,
             [&](int k) { copy(ldsm_V, tOsV(_, _, k), tOrV_view(_, _, k)); });
    if constexpr (MASKED) V_finite &= all_finite(tVsV);  // what this thread brought
  };
  // [/snippet]

  // [snippet walk]
  if (tiles > 0) {
    Tensor tQsQ = load_thread.partition_D(sQ);
    load_tile<BLOCK_M>(load, load_thread.partition_S(gQ), tQsQ,
                       load_thread.partition_S(make_identity_tensor(TileQ{})), rows);
    load_K(tiles - 1);
    if (shape.scale < 0) {  // turns Q's sign, the highest bit of either element
      cp_async_wait<0>();
      Tensor pairs = recast<std::uint32_t>(tQsQ);
      for (int i = 0; i < size(pairs); ++i) pairs(i) ^= 0x80008000;
    }
  }
  int j = tiles - 1;
#pragma unroll 1
  for (; j >= whole; --j) step(true_type{}, j);
#pragma unroll 1
  for (; j >= 0; --j) step(false_type{}, j);
  // [/snippet]

  // [snippet normalise]
  // Everyone is done reading Q, too, whose place O takes.
  if (!__syncthreads_and(V_finite)) return attention_by_hand<Config>(Q, K, V, O, LSE, shape, order);

  // Epilogue: O / l, LSE = m · scale + ln l.
  const Tensor tOcO = mma_thread.partition_C(make_identity_tensor(TileQ{}));
  const Tensor where_O = make_tensor(tOcO.data(), as_rows_and_columns(tOcO.layout()));
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    l[r] += __shfl_xor_sync(0xffffffff, l[r], 1);
    l[r] += __shfl_xor_sync(0xffffffff, l[r], 2);
    const float one_over_l = l[r] == 0 ? 0 : 1 / l[r];  // 0: the row sees no key
#pragma unroll
    for (int d = 0; d < size<1>(O_rows); ++d) O_rows(r, d) *= one_over_l;
    const int row = get<0>(where_O(r, 0));
    if (LSE && get<1>(where_O(r, 0)) == 0 && row < rows) {
      LSE[std::size_t(bh) * shape.Nq + row0 + row] =
          l[r] == 0 ? -INF : m[r] * fabsf(shape.scale) + logf(l[r]);
    }
  }
  // [/snippet]

  // [snippet epilogue]
  // O goes through shared memory, where the lanes that own a row's pieces of 4 bytes exchange them
  // for pieces of 16.
  Tensor sO = make_tensor(make_smem_ptr(Q_smem), typename Config::SmemQ{});
  const auto put_O = make_tiled_copy_C(Copy_Atom<UniversalCopy<std::uint32_t>, T>{}, mma);
  const auto put_O_thread = put_O.get_thread_slice(thread);
  const Tensor O_rounded = rounded<T>(tOrO);
  Tensor sO_pieces = put_O_thread.partition_D(sO);
  copy(put_O, put_O_thread.retile_S(O_rounded), sO_pieces);
  __syncthreads();  // O is complete
  typename Config::Store store;
  const auto store_thread = store.get_thread_slice(thread);
  const Tensor tOsO = store_thread.partition_S(sO);
  Tensor tOgO = store_thread.partition_D(gO);
  const Tensor tOcO_pieces = store_thread.partition_S(make_identity_tensor(TileQ{}));
#pragma unroll
  for (int r = 0; r < size<1>(tOsO); ++r) {
    if (get<0>(tOcO_pieces(0, r, 0)) < rows) copy(store, tOsO(_, r, _), tOgO(_, r, _));
  }
  // [/snippet]
}

template <typename Config>
void launch_flash_sm80_config(const Problem& p, const Arguments& a, Stream stream) {
  using T = typename Config::T;
  const std::size_t kv_bytes = std::size_t{2} * p.kv_seq * Config::D * sizeof(T);
  const TileOrder order(p.batch * p.heads, p.group(), ceil_div(p.seq, Config::BLOCK_M), kv_bytes,
                        device().l2_bytes);
  launch(flash_sm80<Config>,
         {.name = "flash_sm80",
          .grid = dim3(order.tiles()),
          .block = dim3(Config::THREADS),
          .shared_bytes = Config::shared(),
          .stream = stream},
         static_cast<const T*>(a.q), static_cast<const T*>(a.k), static_cast<const T*>(a.v),
         static_cast<T*>(a.out), a.lse, KernelShape(p), order);
}

// The tiles that were fastest on an H200 (README.md).
template <typename T, int D>
using Sm80Best = std::conditional_t<
    D <= 64, Sm80Config<T, D, 128, 128, 4>,
    std::conditional_t<D == 128, Sm80Config<T, D, 128, 48, 4>, Sm80Config<T, D, 128, 64, 8>>>;

template <int D>
void launch_flash_sm80(const Problem& p, const Arguments& a, Stream stream) {
  if (p.dtype == DType::fp16) {
    launch_flash_sm80_config<Sm80Best<half_t, D>>(p, a, stream);
  } else {
    launch_flash_sm80_config<Sm80Best<bfloat16_t, D>>(p, a, stream);
  }
}

}  // namespace al::cute_attention
