// FlashAttention as an Ampere GPU likes it, in CuTe: mma.sync on tiles that cp.async brings into
// swizzled shared memory and ldmatrix takes into registers.
//
//   Q [B·Hq, Nq, D]   K, V [B·Hkv, Nkv, D]   O [B·Hq, Nq, D]   LSE [B·Hq, Nq]
//
// A block computes BLOCK_M rows of O; each of its warps 16 rows of every 16 · WARPS, so what a row
// needs of the softmax stays within four neighbouring lanes. Keys are walked in tiles of BLOCK_N,
// the last tile first: the masked ones come first then, and the loop after them knows no mask.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "09_cute/flash_sm80.cuh"
#include "09_cute/instructions.cuh"
#include "09_cute/tile_order.cuh"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/ptx/exp2.cuh"
#include "common/shared_arena.cuh"

namespace al::cute_attention {
// [snippet kernel]
template <typename Config>
__global__ void __launch_bounds__(Config::THREADS, Config::MIN_BLOCKS)
    flash_sm80b(const typename Config::T* Q, const typename Config::T* K,
               const typename Config::T* V, typename Config::T* O, float* LSE, KernelShape shape,
               TileOrder order) {
  using T = typename Config::T;
  constexpr int D = Config::D, BLOCK_M = Config::BLOCK_M, BLOCK_N = Config::BLOCK_N;
  constexpr float INF = std::numeric_limits<float>::infinity();

  const int thread = threadIdx.x;
  const auto [bh, tile_m] = order(blockIdx.x);
  const int row0 = tile_m * BLOCK_M;
  const int rows = min(BLOCK_M, shape.Nq - row0);
  const int keys = max(0, shape.visible_keys(row0 + rows - 1));  // that the last row sees
  const int tiles = ceil_div(keys, BLOCK_N);
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
  auto& K_smem = shared.take<T[2 * BLOCK_N * D]>("K_smem");
  auto& V_smem = shared.take<T[2 * BLOCK_N * D]>("V_smem");
  const Tensor sQ = make_tensor(make_smem_ptr(Q_smem), typename Config::SmemQ{});    // (M, D)
  const Tensor sK = make_tensor(make_smem_ptr(K_smem), typename Config::SmemK2{});    // (N, D, 2)
  const Tensor sV = make_tensor(make_smem_ptr(V_smem), typename Config::SmemK2{});    // (N, D, 2)
  const Tensor sVt = make_tensor(make_smem_ptr(V_smem), typename Config::SmemVt2{});  // (D, N, 2)

  // Global → shared: the pieces this thread copies, and which rows they are.
  typename Config::Load load;
  const auto load_thread = load.get_thread_slice(thread);
  const Tensor tKgK = load_thread.partition_S(gK);  // (8, rows, columns, tiles)
  const Tensor tVgV = load_thread.partition_S(gV);
  const Tensor tKcK = load_thread.partition_S(make_identity_tensor(TileK{}));
  Tensor tKsK = load_thread.partition_D(sK);  // (8, rows, columns)
  Tensor tVsV = load_thread.partition_D(sV);
  const auto load_K = [&](int j) {
    load_tile<BLOCK_N>(load, tKgK(_, _, _, j), tKsK(_, _, _, j & 1), tKcK, shape.Nkv - j * BLOCK_N);
  };
  const auto load_V = [&](int j) {
    load_tile<BLOCK_N>(load, tVgV(_, _, _, j), tVsV(_, _, _, j & 1), tKcK, shape.Nkv - j * BLOCK_N);
  };

  // Shared → registers: fragments of the two products, and the same seen as ldmatrix fills them.
  typename Config::Mma mma;
  const auto mma_thread = mma.get_thread_slice(thread);
  Tensor tSrQ = mma_thread.partition_fragment_A(sQ);   // (8, MMA_M, D / 16)
  Tensor tSrK = mma_thread.partition_fragment_B(sK(_, _, 0));   // (4, MMA_N, D / 16)
  Tensor tOrV = mma_thread.partition_fragment_B(sVt(_, _, 0));  // (4, MMA_D, N / 16)
  const auto fetch_Q = make_tiled_copy_A(Copy_Atom<LdMatrix, T>{}, mma);
  const auto fetch_K = make_tiled_copy_B(Copy_Atom<LdMatrix, T>{}, mma);
  const auto fetch_V = make_tiled_copy_B(Copy_Atom<LdMatrixTransposed, T>{}, mma);
  const auto fetch_Q_thread = fetch_Q.get_thread_slice(thread);
  const auto fetch_K_thread = fetch_K.get_thread_slice(thread);
  const auto fetch_V_thread = fetch_V.get_thread_slice(thread);
  const Tensor tSsQ = fetch_Q_thread.partition_S(sQ);
  const Tensor tSsK = fetch_K_thread.partition_S(sK);
  const Tensor tOsV = fetch_V_thread.partition_S(sVt);
  Tensor tSrQ_view = fetch_Q_thread.retile_D(tSrQ);
  Tensor tSrK_view = fetch_K_thread.retile_D(tSrK);
  Tensor tOrV_view = fetch_V_thread.retile_D(tOrV);

  Tensor tOrO = partition_fragment_C(mma, TileQ{});  // ((2, 2), MMA_M, MMA_D)
  Tensor O_rows = make_tensor(tOrO.data(), as_rows_and_columns(tOrO.layout()));
  constexpr int ROWS = decltype(size<0>(O_rows))::value;  // of this thread
  float m[ROWS], l[ROWS];  // largest score, before it is scaled; this thread's part of the sum
  clear(tOrO);
#pragma unroll
  for (int r = 0; r < ROWS; ++r) m[r] = -INF, l[r] = 0;
  const float scale_log2 = shape.scale * float(M_LOG2E);


  using TileS = Shape<Int<BLOCK_M>, Int<BLOCK_N>>;
  const auto scores = [&](auto& tSrS, int j) {
    clear(tSrS);
    multiply<!Config::Q_IN_REGISTERS>(mma, tSrS, tSrQ, fetch_Q, tSsQ, tSrQ_view, tSrK, fetch_K,
                                      tSsK(_, _, _, j & 1), tSrK_view);
  };
  // Softmax and P V of tile j; under it the scores of tile j - 1.
  const auto step = [&](auto slow, auto& tSrS, auto& tSrS_next, int j) __attribute__((always_inline)) {
    constexpr bool MASKED = decltype(slow)::value;
    cp_async_wait<0>();
    __syncthreads();  // K j - 1, V j complete; everyone is done reading K j, V j + 1
    if (!MASKED || j > 0) {
      load_V(j - 1);
      if (j > 1) load_K(j - 2);
      cp_async_fence();
      scores(tSrS_next, j - 1);
    }
    Tensor S = make_tensor(tSrS.data(), as_rows_and_columns(tSrS.layout()));  // (rows, columns)
    if constexpr (MASKED) {
      const Tensor tScS = mma_thread.partition_C(make_identity_tensor(TileS{}));
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
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      float m_new = m[r];
#pragma unroll
      for (int c = 0; c < size<1>(S); ++c) m_new = fmaxf(m_new, S(r, c));
      m_new = fmaxf(m_new, __shfl_xor_sync(0xffffffff, m_new, 1));
      m_new = fmaxf(m_new, __shfl_xor_sync(0xffffffff, m_new, 2));
      const float m_scaled = MASKED && m_new == -INF ? 0 : m_new * scale_log2;
      const float shrink = fast_exp2(m[r] * scale_log2 - m_scaled);
      m[r] = m_new;
      l[r] *= shrink;
#pragma unroll
      for (int d = 0; d < size<1>(O_rows); ++d) O_rows(r, d) *= shrink;
#pragma unroll
      for (int c = 0; c < size<1>(S); ++c) {
        S(r, c) = fast_exp2(S(r, c) * scale_log2 - m_scaled);
        l[r] += S(r, c);
      }
    }
    const Tensor P = rounded<T>(tSrS);
    const Tensor tOrP = make_tensor(P.data(), as_A_operand(P.layout()));
    multiply<false>(mma, tOrO, tOrP, fetch_Q, tSsQ, tSrQ_view, tOrV, fetch_V, tOsV(_, _, _, j & 1), tOrV_view);
  };

  if (tiles > 0) {
    load_tile<BLOCK_M>(load, load_thread.partition_S(gQ), load_thread.partition_D(sQ),
                       load_thread.partition_S(make_identity_tensor(TileQ{})), rows);
    load_K(tiles - 1);
    cp_async_fence();
    load_V(tiles - 1);
    if (tiles > 1) load_K(tiles - 2);
    cp_async_fence();
    Tensor tSrS = partition_fragment_C(mma, TileS{});
    Tensor tSrS_next = partition_fragment_C(mma, TileS{});
    cp_async_wait<1>();
    __syncthreads();
    if (Config::Q_IN_REGISTERS) copy(fetch_Q, tSsQ, tSrQ_view);
    scores(tSrS, tiles - 1);
    int j = tiles - 1;
    if constexpr (Config::FLAGS & 32) {
#pragma unroll 1
      for (; j >= 0; --j) {
        if (j >= whole || j == 0 || (j & 1)) {
          if (j >= whole || j == 0) step(true_type{}, tSrS, tSrS_next, j); else step(false_type{}, tSrS, tSrS_next, j);
          copy(tSrS_next, tSrS);
        } else {
          step(false_type{}, tSrS, tSrS_next, j);
          step(false_type{}, tSrS_next, tSrS, --j);
        }
      }
    } else {
#pragma unroll 1
    for (; j >= 0; --j) {
      if (j >= whole || j == 0) {
        step(true_type{}, tSrS, tSrS_next, j);
      } else {
        step(false_type{}, tSrS, tSrS_next, j);
      }
      copy(tSrS_next, tSrS);
    }
    }
  }

  // Epilogue: O / l, LSE = m · scale + ln l.
  const Tensor tScO = mma_thread.partition_C(make_identity_tensor(TileQ{}));
  const Tensor where = make_tensor(tScO.data(), as_rows_and_columns(tScO.layout()));
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    l[r] += __shfl_xor_sync(0xffffffff, l[r], 1);
    l[r] += __shfl_xor_sync(0xffffffff, l[r], 2);
    const float one_over_l = l[r] == 0 ? 0 : 1 / l[r];  // 0: the row sees no key
#pragma unroll
    for (int d = 0; d < size<1>(O_rows); ++d) O_rows(r, d) *= one_over_l;
    const int row = get<0>(where(r, 0));
    if (LSE && get<1>(where(r, 0)) == 0 && row < rows) {
      LSE[std::size_t(bh) * shape.Nq + row0 + row] =
          l[r] == 0 ? -INF : m[r] * shape.scale + logf(l[r]);
    }
  }

  // O goes through shared memory, where the lanes that own a row's pieces of 4 bytes exchange them
  // for pieces of 16.
  __syncthreads();  // everyone is done reading Q
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
  const Tensor tOcO = store_thread.partition_S(make_identity_tensor(TileQ{}));
#pragma unroll
  for (int r = 0; r < size<1>(tOsO); ++r) {
    if (get<0>(tOcO(0, r, 0)) < rows) copy(store, tOsO(_, r, _), tOgO(_, r, _));
  }
}
// [/snippet]

template <typename Config>
void launch_flash_sm80b_config(const Problem& p, const Arguments& a, Stream stream) {
  using T = typename Config::T;
  const std::size_t kv_bytes = std::size_t{2} * p.kv_seq * Config::D * sizeof(T);
  const TileOrder order(p.batch * p.heads, p.group(), ceil_div(p.seq, Config::BLOCK_M), kv_bytes,
                        device().l2_bytes);
  launch(flash_sm80b<Config>,
         {.name = "flash_sm80b",
          .grid = dim3(order.tiles()),
          .block = dim3(Config::THREADS),
          .shared_bytes = Config::shared2(),
          .stream = stream},
         static_cast<const T*>(a.q), static_cast<const T*>(a.k), static_cast<const T*>(a.v),
         static_cast<T*>(a.out), a.lse, KernelShape(p), order);
}

}
