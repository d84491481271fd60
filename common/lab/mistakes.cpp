#include "common/lab/mistakes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace al::lab {

std::vector<NamedMistake> usual_mistakes(const Case& c, const Rules& rules, int block_m,
                                         int block_n) {
  const Problem& p = c.problem;
  const bool from_qk = reads(p.operation, Tensor::q), to_O = reads(p.operation, Tensor::v);
  const bool softmax = p.operation != Operation::scores && p.operation != Operation::pv;
  const bool causal = p.causal || rules.causal;
  std::vector<NamedMistake> all;
  const auto add = [&](bool possible, std::string sentence, Mistake mistake) {
    if (possible) all.push_back({std::move(sentence), mistake});
  };

  if (from_qk) {
    add(true, "without the scale: the scores are Q K^T alone", {.scale_power = 0});
    add(true, "with the scale multiplied in twice", {.scale_power = 2});
    const double usual = 1 / std::sqrt(double(p.head_dim));
    add(p.scale > 0 && p.scale != 1 && p.scale != usual,
        "with 1/sqrt(D) for a scale, where the problem asks for another: Problem::scale",
        {.scale_power = std::log(usual) / std::log(p.scale)});
    add(p.seq == p.kv_seq && p.heads == p.kv_heads,
        "with Q and K changed over: element (i, j) is q_j k_i", {.swapped = true});
    for (const int d : {16, 32, 64}) {
      if (d >= p.head_dim) continue;
      add(true,
          fmt::format("with only the first {} of the {} products of each score summed up", d,
                      p.head_dim),
          {.d_end = d});
      add(true,
          fmt::format("with only the last {} of the {} products of each score summed up", d,
                      p.head_dim),
          {.d_begin = p.head_dim - d});
      if (2 * d < p.head_dim) {
        add(true,
            fmt::format("without the last {} of the {} products of each score", d, p.head_dim),
            {.d_end = p.head_dim - d});
      }
    }
    add(true, fmt::format("without the last of the {} products of each score", p.head_dim),
        {.d_end = p.head_dim - 1});
    add(true, fmt::format("without the first of the {} products of each score", p.head_dim),
        {.d_begin = 1});
  }
  if (p.group() > 1 && (from_qk || to_O)) {
    add(true, "where query head h reads key/value head h % Hkv (it is h / (Hq / Hkv))",
        {.kv_head = Mistake::KVHead::modulo});
    add(true, "where every query head reads key/value head 0", {.kv_head = Mistake::KVHead::first});
    add(true, "where query head h reads key/value head h, though there are fewer of those",
        {.kv_head = Mistake::KVHead::own});
  }
  if (p.operation != Operation::scores) {
    add(causal, "without the causal mask", {.no_mask = true});
    add(causal && p.seq != p.kv_seq,
        "with the mask aligned top-left: query i sees keys j <= i (it is j <= i + Nkv - Nq)",
        {.top_left = true});
    add(causal, "with the mask one key too far: each query sees the key after its own",
        {.mask_shift = 1});
    add(causal, "with the mask one key too near: a query does not see its own key",
        {.mask_shift = -1});
    add(causal && block_m > block_n && block_n > 0,
        fmt::format("with a mask in a block's last tile of keys alone: its {} queries have their "
                    "diagonals in {} tiles",
                    block_m, block_m / std::max(block_n, 1)),
        {.one_masked_tile = block_m});
    const int tile = block_n > 0 ? block_n : 32;
    if (p.kv_seq > tile) {
      const int whole = p.kv_seq / tile * tile, last = (p.kv_seq - 1) / tile * tile;
      add(true, fmt::format("without the last tile of keys, {} to {}", last, p.kv_seq - 1),
          {.keys_end = last});
      add(whole != last && whole > 0, "without the keys of the last, partial tile",
          {.keys_end = whole});
      add(true, fmt::format("of the first {} keys alone", tile), {.keys_end = tile});
      add(true, fmt::format("without the first {} keys", tile), {.keys_begin = tile});
    }
    add(p.kv_seq > 1, "without the last key", {.keys_end = p.kv_seq - 1});
    add(p.kv_seq > 1, "without key 0", {.keys_begin = 1});
  }
  if (softmax) {
    add(true, "without the division by the row's sum l", {.no_division = true});
    add(true, "divided by the row's sum l twice", {.twice_divided = true});
    add(true, "with 2^s in place of e^s (2^x needs x = s log2(e))", {.base_two = true});
    if (block_n > 0) {
      add(to_O,
          "where O keeps its size when a later tile has a larger maximum: it must shrink by "
          "exp(m - m'), a normalised O too",
          {.keep_O = true});
      add(true,
          "where l keeps its size when a later tile has a larger maximum: it must be rescaled",
          {.keep_l = true});
      add(true, "where neither O nor l is rescaled when a later tile has a larger maximum",
          {.keep_O = true, .keep_l = true});
      const bool tiles = to_O && p.kv_seq > block_n;
      add(tiles, "where a normalised O is kept whole when a tile's terms are added to it",
          {.keep = Mistake::Keep::all});
      add(tiles, "where a normalised O shrinks by alpha alone, though l / l' changes too",
          {.keep = Mistake::Keep::alpha});
      add(causal && block_m > 1,
          "of a kernel that asks a tile's last row, which sees most, whether the tile is masked",
          {.ask_last_row = block_m});
      add(to_O && p.kv_seq > block_n,
          "where every chunk of keys counts the same, however much its keys weigh: they are merged "
          "by their LSEs",
          {.tiles_alike = true});
      add(p.kv_seq % block_n != 0,
          "where the places past the last key count as keys with the score 0 (they must be -inf)",
          {.padded_to = block_n});
    }
  }
  if (to_O) {
    add(block_n > 0 && p.kv_seq > block_n,
        "where a tile's weights are multiplied by the V of the tile before", {.V_before = true});
    add(true, "where the weight of key j is multiplied by row j + 1 of V", {.V_next_row = true});
  }
  const bool factors = is_fp8(p.dtype) && from_qk && to_O;
  add(factors, "without the factors of Q, K and V",
      {.no_q_scale = true, .no_k_scale = true, .no_v_scale = true});
  add(factors, "without the factor of Q", {.no_q_scale = true});
  add(factors, "without the factor of K", {.no_k_scale = true});
  add(factors, "without the factors of Q and K", {.no_q_scale = true, .no_k_scale = true});
  add(factors, "without the factor of V", {.no_v_scale = true});
  add(factors && p.heads > 1, "with the factors of head 0 for every head",
      {.scales_of_head_0 = true});
  add(from_qk && c.k_transposed, "where K is read as [Nkv, D]; it is [D, Nkv]", {.K_layout = true});
  add(to_O && c.v_transposed, "where V is read as [Nkv, D]; it is [D, Nkv]", {.V_layout = true});
  add(to_O && c.v_transposed && rules.window > 0,
      "where V is read as [Nkv, D], though it is [D, Nkv], and without the window",
      {.V_layout = true, .no_window = true});
  add(to_O && !c.v_transposed, "where V is read as [D, Nkv]; it is [Nkv, D]", {.V_layout = true});
  add(causal && rules.window > 0, "without any mask: neither causal nor the window",
      {.no_mask = true, .no_window = true});
  const bool sink = std::isfinite(rules.sink);
  if ((rules.soft_cap > 0) + (rules.alibi > 0) + (rules.window > 0) + (rules.prefix > 0) +
          (rules.chunk > 0) + (rules.half_life > 0) + rules.distance + sink + c.k_transposed +
          c.v_transposed >
      1) {
    add(true, "without anything that this variant asks for",
        {.K_layout = c.k_transposed,
         .V_layout = c.v_transposed,
         .no_prefix = true,
         .no_window = true,
         .no_chunk = true,
         .no_cap = true,
         .no_decay = true,
         .distance = rules.distance ? Mistake::Distance::product : Mistake::Distance::right,
         .sinks = 0,
         .alibi = 0});
  }
  add(rules.soft_cap > 0, "without the soft cap", {.no_cap = true});
  add(rules.alibi > 0, "without the ALiBi bias", {.alibi = 0});
  add(rules.alibi > 0, "with the ALiBi bias added, though it is subtracted", {.alibi = -1});
  add(rules.alibi > 0,
      "with the ALiBi bias multiplied by the scale: it is subtracted after the scale",
      {.alibi = p.scale});
  add(rules.window > 0, "without the window", {.no_window = true});
  add(rules.window > 0, "with a window one key too wide", {.window_shift = 1});
  add(rules.window > 0, "with a window one key too narrow", {.window_shift = -1});
  add(rules.chunk > 0, "without the chunks", {.no_chunk = true});
  add(rules.half_life > 0, "without the decay", {.no_decay = true});
  add(rules.distance, "with the product q · k in place of the distance",
      {.distance = Mistake::Distance::product});
  add(rules.distance, "with the distance added, though it is subtracted",
      {.distance = Mistake::Distance::plus});
  add(sink, "without the sink", {.sinks = 0});
  add(sink, "with exp(sink) added to l: l has had the row's maximum subtracted, so exp(sink - m)",
      {.sink_unscaled = true});
  add(sink && block_n > 0 && p.kv_seq > block_n, "with the sink counted once in every tile of keys",
      {.sinks = double((p.kv_seq + block_n - 1) / std::max(block_n, 1))});
  add(rules.prefix > 0, "where the prefix is hidden like any other key", {.no_prefix = true});
  return all;
}

}  // namespace al::lab
