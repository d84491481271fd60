// The emulator's trace: what is written down of a block is what its kernel did, whatever the order
// of its threads.
#include <doctest/doctest.h>

#include <string>

#include "common/emulator/trace.hpp"
#include "common/launch.cuh"
#include "common/tests/emulator_checks.hpp"

namespace al {
namespace {

// Two warps; each lane writes down a column of a tile (all 32 lanes to one bank), then, after a
// barrier, reads across, adds its neighbour's value and stores.
__global__ void collide(const float* in, float* out) {
  SharedArena shared;
  auto& tile = shared.take<float[64][32]>("tile");
  const int t = threadIdx.x;
  tile[t][0] = in[64 * blockIdx.x + t];  // [collide]
  __syncthreads();
  const float x = tile[t / 32 * 32][0];
  out[64 * blockIdx.x + t] = x + __shfl_xor_sync(0xffffffff, x, 1);
}

__global__ void many_phases(float* out) {
  for (int i = 0; i < 100; ++i) __syncthreads();
  out[threadIdx.x] = 1;
}

struct Traced {
  Traced(std::int64_t block, int thread) { emulator::trace_wish() = {block, thread}; }
  ~Traced() {
    emulator::trace_wish() = {};
    emulator::take_traces();
  }
};

void run_collide(int blocks) {
  Array<float> in(iota<float>(64 * blocks), "in"), out(64 * blocks, "out");
  launch(collide, {"collide", dim3(blocks), dim3(64), shared_bytes<float[64][32]>()}, in.data(),
         out.data());
}

// The text between `from` and the next `to` after it.
std::string between(const std::string& text, const std::string& from, const std::string& to) {
  const std::size_t begin = text.find(from);
  if (begin == text.npos) return "";
  return text.substr(begin, text.find(to, begin) - begin);
}

TEST_CASE("a trace tells who touches which bytes, in which phase" NEEDS_HOOKS) {
  under_seeds([] {
    const Traced traced(1, 33);  // lane 1 of warp 1
    run_collide(3);
    const std::vector<std::string> traces = emulator::take_traces();
    REQUIRE(traces.size() == 1);
    const std::string& text = traces[0];
    CAPTURE(text);
    CHECK(text.find(R"("kernel":"collide","grid":[3,1,1],"threads":[64,1,1],"block":[1,0,0],)"
                    R"("thread":[33,0,0],"warp":1,"lane":1,)") != text.npos);
    CHECK(text.find(R"("shared":[{"array":"tile","offset":)") != text.npos);

    const std::string first =
        between(text, R"({"ended_by":"the barrier at)", R"({"ended_by":"the end)");
    // The whole block moves 64 floats; of the traced warp each lane is listed, from its own place.
    CHECK(first.find(R"({"space":"global","array":"in","read":256,"written":0})") != text.npos);
    CHECK(first.find(R"({"space":"shared","array":"tile","read":0,"written":256})") != text.npos);
    CHECK(first.find(
              R"("global_requests":2,"global_sectors":8,"shared_requests":2,"shared_passes":64)") !=
          text.npos);
    const std::string load = between(first, R"({"what":"load")", "}]");
    CHECK(load.find(R"("array":"in","bytes":4,"line":")" + line("collide") + R"(","times":1)") !=
          text.npos);
    CHECK(load.find(R"("offsets":[384,388,392,)") != text.npos);
    CHECK(load.find(R"("sectors":4)") != text.npos);
    const std::string store = between(first, R"({"what":"store")", "}]");
    CHECK(store.find(R"("offsets":[4096,4224,4352,)") != text.npos);
    CHECK(store.find(R"("passes":32)") != text.npos);

    const std::string second = text.substr(text.find(R"({"ended_by":"the end)"));
    CHECK(second.find(R"("what":"__shfl_xor_sync")") != text.npos);
    CHECK(second.find(R"("from":[1,0,3,2,)") != text.npos);
    CHECK(second.find(R"("written":256)") != text.npos);
    CHECK(between(second, R"({"what":"load")", "}]").find(R"("passes":1)") != text.npos);
    CHECK(text.ends_with(R"("cut":null})"));
  });
}

TEST_CASE("a trace is bounded, and says so" NEEDS_HOOKS) {
  const Traced traced(0, 0);
  Array<float> out(32, "out");
  launch(many_phases, {"many_phases", dim3(1), dim3(32), 0}, out.data());
  const std::vector<std::string> traces = emulator::take_traces();
  REQUIRE(traces.size() == 1);
  CHECK(traces[0].ends_with(R"("cut":"the first 64 phases are here, 37 more followed"})"));
}

TEST_CASE("launches that have this block and thread are traced, so many of them" NEEDS_HOOKS) {
  {
    const Traced traced(2, 0);
    run_collide(2);  // has no block 2
    CHECK(emulator::take_traces().empty());
    run_collide(3);
    run_collide(4);
    CHECK(emulator::take_traces().size() == 2);
    for (std::size_t i = 0; i < emulator::kTracedLaunches + 2; ++i) run_collide(3);
    CHECK(emulator::take_traces().size() == emulator::kTracedLaunches);
  }
  {
    const Traced traced(0, 64);  // has no thread 64
    run_collide(1);
    CHECK(emulator::take_traces().empty());
  }
  run_collide(1);  // nobody asked
  CHECK(emulator::take_traces().empty());
}

}  // namespace
}  // namespace al
