// The layouts that the sm_80 kernel computes with: how a tile lies in shared memory, and how the
// result of one product is seen as what the softmax and the next product want.
#pragma once

#include "09_cute/instructions.cuh"

namespace al::cute_attention {

using namespace cute;

// 8 rows x COLUMNS elements of 16 bits. Row r keeps its pieces of 16 bytes in another order, piece
// p at p ^ r, so that ldmatrix, which reads one piece of 8 rows at once, finds them in 8 different
// groups of banks. (Rows of 64 bytes: two to a line of banks, so p ^ (r / 2).)
// [snippet box]
template <int COLUMNS, int BITS = COLUMNS == 64 ? 3 : 2>  // of p and r
using SwizzledBox = decltype(composition(
    Swizzle<BITS, 3, 3>{}, Layout<Shape<_8, Int<COLUMNS>>, Stride<Int<COLUMNS>, _1>>{}));
// [/snippet]

// [snippet views]
// A C fragment ((2, 2), MMA_M, MMA_N) seen as the matrix it is to the softmax:
// (rows (2, MMA_M), columns (2, MMA_N)).
template <typename Layout>
__device__ constexpr auto as_rows_and_columns(const Layout& layout) {
  return make_layout(make_layout(get<0, 1>(layout), get<1>(layout)),
                     make_layout(get<0, 0>(layout), get<2>(layout)));
}

// The same fragment seen as the A operand of the next product: m16n8k16 wants of A, for 16 columns,
// just what two of its own results of 8 columns hold, in the same lanes.
template <typename Layout>
__device__ constexpr auto as_A_operand(const Layout& layout) {
  // [hole operand]
  const auto pairs = logical_divide(layout, Shape<Underscore, Underscore, _2>{});
  return make_layout(make_layout(get<0>(pairs), get<2, 0>(pairs)), get<1>(pairs), get<2, 1>(pairs));
  // [/hole]
}
// [/snippet]

}  // namespace al::cute_attention
