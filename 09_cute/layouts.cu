// Prints the layouts of the sm_80 kernel: who holds what, in shared memory and in registers.
// Runs on the host; no GPU, no emulator. What it prints is layouts.out, which a test compares and
// the README quotes.
#include <cstdio>
#include <vector>

#include "09_cute/flash_sm80.cuh"

using namespace al::cute_attention;
using namespace cute;

namespace {

using Config = Sm80Best<half_t, 64>;

void begin(const char* snippet) { std::printf("# [snippet %s]\n", snippet); }
void end() { std::printf("# [/snippet]\n\n"); }

template <typename T>
void show(const char* name, const T& layout) {
  std::printf("%-28s ", name);
  print(layout);
  std::printf("\n");
}

// A layout is a function from coordinates to offsets: offset = sum of coordinate · stride.
void layouts() {
  begin("layout");
  const auto rows = make_layout(Shape<_2, _4>{}, LayoutRight{});
  const auto nested = Layout<Shape<_2, Shape<_2, _2>>, Stride<_2, Stride<_1, _4>>>{};
  std::printf("row-major [2, 4]: ");
  print_layout(rows);
  std::printf("columns in two levels: ");
  print_layout(nested);
  end();
}

// Where a box of 8 rows x 128 bytes keeps its pieces of 16 bytes, and what ldmatrix's 8 rows meet.
void swizzle() {
  begin("swizzle");
  const auto plain = Layout<Shape<_8, _64>, Stride<_64, _1>>{};
  const typename Config::Box box;
  show("without", plain);
  show("Config::Box", box);
  std::printf("\nbanks of the 16-byte piece, by row and column of the tile\n");
  std::printf("            without                               with the swizzle\n");
  for (int r = 0; r < 8; ++r) {
    std::printf("row %d ", r);
    for (int piece = 0; piece < 8; ++piece) std::printf("%4d", plain(r, 8 * piece) / 2 % 32);
    std::printf("   |");
    for (int piece = 0; piece < 8; ++piece) std::printf("%4d", box(r, 8 * piece) / 2 % 32);
    std::printf("\n");
  }
  end();
}

// Which lane, and which of its values, holds each element of an instruction's matrix.
template <typename ThreadValue>
void who(const char* name, const ThreadValue& layout, int rows, int columns) {
  std::printf("%s [%d, %d]: lane.value\n", name, rows, columns);
  std::vector<int> lane(rows * columns), value(rows * columns);
  for (int t = 0; t < size<0>(layout); ++t) {
    for (int v = 0; v < size<1>(layout); ++v) {
      lane[layout(t, v)] = t;  // the layouts of an atom count column by column
      value[layout(t, v)] = v;
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) {
      const int x = c * rows + r;
      std::printf(" %2d.%d", lane[x], value[x]);
    }
    std::printf("\n");
  }
}

void mma() {
  using Traits = MMA_Traits<MmaOp<half_t>>;
  begin("mma_C");
  show("C: (lane, value)", typename Traits::CLayout{});
  who("C", typename Traits::CLayout{}, 16, 8);
  end();
  begin("mma_A");
  show("A: (lane, value)", typename Traits::ALayout{});
  who("A", typename Traits::ALayout{}, 16, 16);
  end();
  begin("mma_B");
  show("B: (lane, value)", typename Traits::BLayout{});
  who("B", typename Traits::BLayout{}, 8, 16);
  end();
}

// The tiles of a block: 4 warps, and the fragments of one thread.
void fragments() {
  begin("fragments");
  typename Config::Mma mma;
  std::printf("BLOCK_M = %d, BLOCK_N = %d, D = %d, %d warps\n", Config::BLOCK_M, Config::BLOCK_N,
              Config::D, Config::WARPS);
  const auto thread = mma.get_thread_slice(0);
  const auto S = partition_shape_C(mma, Shape<Int<Config::BLOCK_M>, Int<Config::BLOCK_N>>{});
  const auto O = partition_shape_C(mma, Shape<Int<Config::BLOCK_M>, Int<Config::D>>{});
  const auto Q = partition_shape_A(mma, Shape<Int<Config::BLOCK_M>, Int<Config::D>>{});
  const auto K = partition_shape_B(mma, Shape<Int<Config::BLOCK_N>, Int<Config::D>>{});
  const auto V = partition_shape_B(mma, Shape<Int<Config::D>, Int<Config::BLOCK_N>>{});
  show("S (values, M, N)", S);
  show("O (values, M, D)", O);
  show("Q (values, M, D / 16)", Q);
  show("K (values, N, D / 16)", K);
  show("V (values, D, N / 16)", V);
  const auto where =
      thread.partition_C(make_identity_tensor(Shape<Int<Config::BLOCK_M>, Int<Config::BLOCK_N>>{}));
  std::printf("\nthread 0's first elements of S, (row, column):");
  for (int m = 0; m < 2; ++m) {
    std::printf("\n  M = %d:", m);
    for (int n = 0; n < 2; ++n) {
      for (int v = 0; v < 4; ++v) {
        const auto at = where(v, m, n);
        std::printf(" (%d,%d)", int(get<0>(at)), int(get<1>(at)));
      }
    }
  }
  std::printf("\n");
  end();
}

// The result of S = Q Kᵀ as the operand of P V: the same registers, read through another layout.
bool relayout() {
  begin("relayout");
  const auto C = make_layout(Shape<Shape<_2, _2>, _2, _16>{});  // of 32 rows x 128 keys
  const auto A = as_A_operand(C);
  show("as C (values, M, N)", C);
  show("as rows and columns", as_rows_and_columns(C));
  show("as A (values, M, N / 16)", A);

  // Element i of a thread's registers: where C says it is in [16, 16], and where A says.
  using Traits = MMA_Traits<MmaOp<half_t>>;
  const auto one_C = make_layout(Shape<Shape<_2, _2>, _1, _2>{});
  const auto one_A = as_A_operand(one_C);
  int same = 0;
  for (int lane = 0; lane < 32; ++lane) {
    for (int v = 0; v < 8; ++v) {
      const int i = one_A(v, 0, 0);  // the register behind value v of A
      const int from_C = typename Traits::CLayout{}(lane, i % 4) + i / 4 * 16 * 8;  // 8 columns on
      same += typename Traits::ALayout{}(lane, v) == from_C;
    }
  }
  std::printf("32 lanes x 8 values: %d are the same element either way\n", same);
  end();
  return same == 256;
}

// Which thread brings which piece of a tile of K into shared memory.
void copies() {
  begin("copy");
  const typename Config::Load load;
  const auto layout = load.get_layoutS_TV();  // (thread, value) → element of the tile
  show("Load: (thread, value)", layout);
  const auto at = [&](int t, int& row, int& column) {
    const auto thread = load.get_thread_slice(t);
    const auto where = thread.partition_S(make_identity_tensor(Shape<_16, _64>{}));
    row = get<0>(where(0, 0, 0)), column = get<1>(where(0, 0, 0));
  };
  for (const int t : {0, 1, 7, 8, 127}) {
    int row, column;
    at(t, row, column);
    std::printf("thread %3d: row %2d, columns %2d … %2d, then every 16 rows\n", t, row, column,
                column + 7);
  }
  end();
}

// Which tile of O each block computes: 5 heads of 3 tiles, of which L2 holds the keys of 2.
void order() {
  begin("tile_order");
  const TileOrder order(5, 1, 3, 1000, 4000);
  for (int i = 0; i < order.tiles(); ++i) {
    const OutputTile tile = order(i);
    std::printf("%s%d.%d", i % 6 == 0 ? (i ? "\n" : "") : "  ", tile.bh, tile.m);
  }
  std::printf("\n");
  end();
}

}  // namespace

int main() {
  layouts();
  swizzle();
  mma();
  fragments();
  copies();
  order();
  return relayout() ? 0 : 1;
}
