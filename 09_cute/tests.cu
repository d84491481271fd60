// Chapter 09 on a GPU or in the emulator: each kernel against the float64 oracle, and the order of
// tiles on the host.
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "09_cute/stage.hpp"
#include "09_cute/tile_order.cuh"
#include "common/buffer.hpp"
#include "common/tests/stage_checks.hpp"

using namespace al;

namespace {

constexpr DType kDTypes[] = {DType::fp16, DType::bf16};
constexpr int kHeadDims[] = {32, 64, 128, 256};

Problem problem(int heads, int kv_heads, int seq, int kv_seq, int head_dim, bool causal) {
  Problem p;
  p.heads = heads;
  p.kv_heads = kv_heads;
  p.seq = seq;
  p.kv_seq = kv_seq;
  p.head_dim = head_dim;
  p.causal = causal;
  p.scale = 1 / std::sqrt(double(head_dim));
  return p;
}

// The awkward shapes at head dims this stage has; and for each of those, several tiles both ways,
// ragged, with heads that share keys.
std::vector<Problem> shapes() {
  std::vector<Problem> all = awkward_shapes(Operation::attention);
  for (Problem& p : all) p.head_dim = std::max(p.head_dim, 32);
  for (const int head_dim : kHeadDims) {
    for (const bool causal : {false, true}) {
      all.push_back(problem(2, 1, 300, 395, head_dim, causal));
    }
  }
  return all;
}

bool runs(const Variant& variant, const Problem& p) {
  return refusal(variant, p, device()).empty();
}

std::vector<float> run(const Variant& variant, const Problem& p, const std::vector<float>& q,
                       const std::vector<float>& k, const std::vector<float>& v) {
  const auto on_device = [&](const std::vector<float>& x, const char* name) {
    const std::vector<std::byte> bytes = encode(p.dtype, x);
    DeviceBuffer buffer(bytes.size(), name);
    buffer.write(bytes.data(), bytes.size());
    return buffer;
  };
  const DeviceBuffer Q = on_device(q, "Q"), K = on_device(k, "K"), V = on_device(v, "V");
  DeviceBuffer O(p.out_bytes(), "O");
  O.poison();
  const std::vector<std::byte> zeros(variant.workspace ? variant.workspace(p) : 1);
  DeviceBuffer workspace(zeros.size(), "workspace");
  workspace.write(zeros.data(), zeros.size());
  variant.launch(
      p,
      {.q = Q.data(), .k = K.data(), .v = V.data(), .out = O.data(), .workspace = workspace.data()},
      nullptr);
  std::vector<std::byte> raw(p.out_bytes());
  O.read(raw.data(), raw.size());
  return decode(p.dtype, raw.data(), p.out_elements());
}

// What is refused depends on the device, so these tests name one.
DeviceInfo h200() {
  DeviceInfo info = device();
  info.sm = 90;
  info.shared_per_block = 227 * 1024;
  return info;
}

}  // namespace

TEST_CASE("every variant is right on every awkward shape, in fp16 and bf16") {
  for (const Variant& variant : stage_09_cute.variants) {
    for (Problem p : shapes()) {
      for (const DType dtype : kDTypes) {
        p.dtype = dtype;
        if (runs(variant, p)) check_variant(variant, p, Distribution::normal);
      }
    }
  }
}

TEST_CASE("spikes of 20 sigma and logits in the thousands stay within budget") {
  for (const Variant& variant : stage_09_cute.variants) {
    for (Problem p : shapes()) {
      p.scale = 10;
      if (runs(variant, p)) check_variant(variant, p, Distribution::outliers);
    }
  }
}

// The kernels take the maximum before they scale: with a negative scale it is the minimum that
// counts, and with scale 0 a masked score must not become 0 · -inf.
TEST_CASE("negative scales, and zero") {
  for (const Variant& variant : stage_09_cute.variants) {
    for (const double scale : {-0.5, 0.0}) {
      for (const int head_dim : kHeadDims) {
        Problem p = problem(1, 1, 70, 150, head_dim, true);
        p.scale = scale;
        if (runs(variant, p)) check_variant(variant, p, Distribution::normal);
      }
    }
  }
}

// More tiles than SMs, so that a block takes one after the other, and its buffers come round.
TEST_CASE("a block that takes several tiles of O") {
  for (const char* name : {"persistent", "flash_sm90"}) {
    const Variant& variant = find_variant(stage_09_cute, name);
    // The second: rows that see no key, and warpgroups without any row.
    for (const Problem& p :
         {problem(150, 75, 130, 140, 128, true), problem(150, 50, 200, 90, 64, true)}) {
      if (runs(variant, p)) check_variant(variant, p, Distribution::normal);
    }
  }
}

// Where there are many keys the tiles are others.
TEST_CASE("the tiles of long sequences") {
  for (const char* name : {"flash_sm90", "pack_gqa"}) {
    const Variant& variant = find_variant(stage_09_cute, name);
    for (const bool causal : {false, true}) {
      for (const DType dtype : kDTypes) {
        for (Problem p :
             {problem(2, 1, 250, 2100, 128, causal), problem(4, 1, 18, 8200, 256, causal)}) {
          p.dtype = dtype;
          if (causal) p.scale = -0.1;
          if (runs(variant, p)) check_variant(variant, p, Distribution::normal);
        }
      }
    }
  }
}

TEST_CASE("query heads that share keys are packed: every row finds its head and its mask") {
  const Variant& variant = find_variant(stage_09_cute, "pack_gqa");
  struct Shape {
    int heads, kv_heads, seq, kv_seq, head_dim;
  };
  for (const Shape s : {Shape{8, 2, 33, 395, 64},
                        {16, 2, 70, 40, 128},
                        {64, 1, 5, 300, 64},
                        {32, 1, 3, 200, 256},
                        {8, 4, 150, 150, 128}}) {
    for (const bool causal : {false, true}) {
      for (const DType dtype : kDTypes) {
        Problem p = problem(s.heads, s.kv_heads, s.seq, s.kv_seq, s.head_dim, causal);
        p.batch = 2;
        p.dtype = dtype;
        if (runs(variant, p)) check_variant(variant, p, Distribution::normal);
      }
    }
  }
  const DeviceInfo hopper = h200();
  const Problem three = problem(3, 1, 64, 64, 64, true), one = problem(2, 2, 64, 64, 64, true);
  CHECK(variant.refuse(three, hopper).find("here 3") != std::string::npos);
  CHECK(variant.refuse(one, hopper).find("nothing to pack") != std::string::npos);
  const auto taken = [&hopper](const Problem& p) {
    return std::string(stage_09_cute.variants[stage_09_cute.best(p, hopper)].name);
  };
  CHECK(taken(problem(8, 1, 100, 4096, 128, true)) == "pack_gqa");
  CHECK(taken(problem(8, 1, 192, 4096, 128, true)) == "flash_sm90");
  CHECK(taken(problem(8, 8, 100, 4096, 128, true)) == "flash_sm90");
}

// V is NaN, and in another run infinite, at the last keys. The tensor cores multiply them by the
// zeros in P of rows that must not see them: these rows have to come out as if nothing had been.
TEST_CASE("what a row does not see does not leak, not even as 0 * NaN") {
  for (const Variant& variant : stage_09_cute.variants) {
    for (const int head_dim : kHeadDims) {
      for (const DType dtype : kDTypes) {
        for (const bool infinite : {false, true}) {
          // Packed, the second head's rows lie between the first one's.
          const int heads = variant.name == std::string("pack_gqa") ? 2 : 1;
          Problem p = problem(heads, 1, 200, 210, head_dim, true);
          p.dtype = dtype;
          if (!runs(variant, p)) continue;
          INFO(std::string(variant.name) << " on " << to_string(p));
          HostInputs in = make_inputs(p, Distribution::normal, 5);
          const std::vector<float> clean = run(variant, p, in.q, in.k, in.v);
          const int first_bad = p.kv_seq - 13, bad_column = 3;
          for (int j = first_bad; j < p.kv_seq; ++j) {
            in.v[j * head_dim + bad_column] = infinite ? std::numeric_limits<float>::infinity()
                                                       : std::numeric_limits<float>::quiet_NaN();
          }
          const std::vector<float> O = run(variant, p, in.q, in.k, in.v);
          int leaked = 0, lost = 0;
          for (int i = 0; i < heads * p.seq; ++i) {
            for (int d = 0; d < head_dim; ++d) {
              const int x = i * head_dim + d;
              if (d == bad_column && p.visible_keys(i % p.seq) > first_bad) {
                lost += std::isfinite(O[x]);
              } else {
                leaked += !(std::abs(O[x] - clean[x]) < 0.02f);  // by another order of sums
              }
            }
          }
          CHECK(leaked == 0);
          CHECK(lost == 0);
        }
      }
    }
  }
}

TEST_CASE("every tile has its turn once, the longest first in each group of heads") {
  using cute_attention::OutputTile;
  using cute_attention::TileOrder;
  for (const int heads : {1, 5, 12}) {
    for (const int group : {1, 4}) {
      for (const int tiles_m : {1, 7}) {
        for (const std::size_t l2_bytes : {0, 4000, 1 << 20}) {
          const TileOrder order(heads * group, group, tiles_m, 1000, l2_bytes);
          std::set<std::pair<int, int>> seen;
          OutputTile last{.bh = 0, .m = tiles_m};
          int rising = 0;  // how often a longer tile comes after a shorter one
          for (int i = 0; i < order.tiles(); ++i) {
            const OutputTile tile = order(i);
            CHECK(tile.bh >= 0);
            CHECK(tile.bh < heads * group);
            seen.insert({tile.bh, tile.m});
            rising += tile.m > last.m;
            last = tile;
          }
          CHECK(int(seen.size()) == heads * group * tiles_m);
          const int groups = (heads * group + order.at_once - 1) / order.at_once;
          CHECK(rising == (tiles_m > 1 ? groups - 1 : 0));
        }
      }
    }
  }
}

TEST_CASE("what the stage does not do is refused by name") {
  const Variant& variant = find_variant(stage_09_cute, "flash_sm80");
  DeviceInfo turing;
  turing.sm = 75;
  DeviceInfo small = device();
  small.shared_per_block = 99 * 1024;  // as sm_86 and sm_89
  Problem p = problem(1, 1, 64, 64, 256, true);
  CHECK(variant.refuse(p, small).find("128 KiB") != std::string::npos);
  CHECK(variant.refuse(p, h200()) == "");
  p.head_dim = 64;
  CHECK(variant.refuse(p, small) == "");
  CHECK(variant.refuse(p, turing).find("sm_75") != std::string::npos);
  p.dtype = DType::fp32;
  CHECK(variant.refuse(p, device()).find("fp32") != std::string::npos);
  p.dtype = DType::fp16;
  p.head_dim = 16;
  CHECK(variant.refuse(p, device()).find("32, 64, 128 and 256") != std::string::npos);
  p.head_dim = 64;
  p.operation = Operation::scores;
  CHECK(variant.refuse(p, device()).find("only") != std::string::npos);
}
