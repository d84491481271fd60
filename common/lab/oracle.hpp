// The answer in float64 by a lab's rules, and the answers that the usual mistakes give.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/data.hpp"
#include "common/lab/job.hpp"

namespace al::lab {

// What one usual mistake does to the computation. Each field is one mistake; by default there is
// none.
struct Mistake {
  double scale_power = 1;  // scores are multiplied by scale^this: 0 none, 2 twice
  int mask_shift = 0;      // keys that a query sees too many or too few
  bool no_mask = false;    // causal forgotten
  bool top_left = false;   // query i sees keys j <= i, whatever Nkv - Nq
  enum class KVHead { right, modulo, own, first } kv_head = KVHead::right;
  bool swapped = false;        // S_ij = q_j k_i
  int d_begin = 0, d_end = 0;  // only these of D are summed up; 0, 0: all
  bool base_two = false;       // 2^s in place of e^s
  bool no_division = false, twice_divided = false;
  bool keep_O = false, keep_l = false;  // not made smaller when a later tile has a larger maximum
  // O kept normalised, and multiplied by something else than alpha l / l' when a tile comes.
  enum class Keep { right, all, alpha } keep = Keep::right;
  int ask_last_row = 0;  // > 0: so many queries a block mask a tile only where the last hides some
  bool tiles_alike = false;  // O is the mean of what each tile of keys gives alone
  bool V_before = false;     // weights of a tile times V of the tile before
  bool V_next_row = false;   // weight j times row j + 1 of V
  bool K_layout = false;     // K read as [Nkv, D] where it is [D, Nkv], or the other way round
  bool V_layout = false;     // so V
  int keys_begin = 0, keys_end = -1;  // only these keys are taken in; -1: all
  int one_masked_tile = 0;            // > 0: so many queries a block mask their last tile alone
  int padded_to = 0;                  // > 0: keys up to a multiple of this count with the score 0
  bool no_prefix = false, no_window = false, no_chunk = false, no_cap = false, no_decay = false;
  enum class Distance { right, product, plus } distance = Distance::right;
  double sinks = 1;  // the sink is counted so many times
  bool sink_unscaled =
      false;         // exp(sink) is added to an l in which the maximum has been subtracted
  double alibi = 1;  // the bias is multiplied by this: 0 none, -1 the wrong sign
  int window_shift = 0;
  // The factors of 8-bit tensors: left out, or those of head 0 for every head.
  bool no_q_scale = false, no_k_scale = false, no_v_scale = false, scales_of_head_0 = false;
};

struct Answer {
  int columns = 0;
  std::vector<double> values;     // [rows, columns]
  std::vector<char> counts;       // [rows, columns]: is this element part of the result?
  std::vector<double> lse;        // [rows]; empty where there is none
  std::vector<double> row_scale;  // [rows]: what an error is measured against, as in reference.hpp
};

// All rows of the case; `Real` float gives the plain implementation, whose error sets the budget.
template <typename Real>
Answer answer(const Case& c, const HostInputs& inputs, const Rules& rules, int block_n,
              const Mistake& mistake = {});

}  // namespace al::lab
