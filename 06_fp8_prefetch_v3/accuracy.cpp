#include "06_fp8_prefetch_v3/accuracy.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/buffer.hpp"
#include "common/parallel.hpp"
#include "common/reference.hpp"

namespace al::fp8 {
namespace {

// [snippet step]
// The mean square of what rounding x to the format costs: the error lies anywhere within half a
// step either side, which makes step² / 12. A step is 2^-3 (e4m3) or 2^-2 (e5m2) of the power of
// two below x, and no finer than that of the smallest normal number.
double rounding_variance(DType format, double x) {
  const bool e4m3 = format == DType::e4m3;
  const double magnitude = std::max(std::abs(x), e4m3 ? 0x1p-6 : 0x1p-14);
  const double power_below =  // a double less its mantissa
      std::bit_cast<double>(std::bit_cast<std::uint64_t>(magnitude) & 0x7ff0000000000000);
  const double step = power_below * (e4m3 ? 0x1p-3 : 0x1p-2);
  return x == 0 ? 0 : step * step / 12;
}
// [/snippet]

DeviceBuffer uploaded(DType dtype, const std::vector<float>& values, const char* name) {
  const std::vector<std::byte> bytes = encode(dtype, values);
  DeviceBuffer buffer(bytes.size(), name);
  buffer.write(bytes.data(), bytes.size());
  return buffer;
}

// `count` elements of dtype at `data`, which lies in `buffer`.
std::vector<float> downloaded(const DeviceBuffer& buffer, const void* data, DType dtype,
                              std::size_t count) {
  const std::size_t offset =
      static_cast<const std::byte*>(data) - static_cast<const std::byte*>(buffer.data());
  std::vector<std::byte> raw(count * bytes_of(dtype));
  buffer.read(raw.data(), raw.size(), offset);
  return decode(dtype, raw.data(), count);
}

// The reverse of tile_V.
std::vector<float> untiled(const std::vector<float>& tiles, const Problem& p, int key_groups) {
  std::vector<float> v(p.kv_elements());
  const int D = p.head_dim;
  const std::int64_t rows = std::int64_t{p.batch} * p.kv_heads * p.kv_seq;
  parallel_for(rows, 256, 0, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t bh = row / p.kv_seq, j = row % p.kv_seq, key = j % 16;
      const std::int64_t place = key % 8 / 2 * 4 + key / 8 * 2 + key % 2;
      for (int d = 0; d < D; ++d) {
        v[row * D + d] = tiles[((bh * key_groups + j / 16) * D + d) * 16 + place];
      }
    }
  });
  return v;
}

// What a row's rounding errors predict, squared and summed over its columns.
struct Predicted {
  double kernel = 0, total = 0;
};

// [snippet predict]
// Rounding errors are independent, so their squares add up. With p_j the weights of a row and o its
// exact result,
//
//   P:       p_j is off by δp_j                       O by Σ δp_j v_j
//   V:       v_j is off by δv_j                       O by Σ p_j δv_j
//   scores:  s_j is off by
//            δs_j = scale · Σ_d (δq_d k_jd + q_d δk_jd)   O by Σ p_j δs_j (v_j - o),
//            for the weight is p_j (1 + δs_j), and the weights still add up to 1
//
// `q`, `k`: as they were rounded, so rotated where they are.
Predicted predict_row(const Problem& p, const HostInputs& in8, const Setting& setting, int head,
                      int visible, const float* q, const float* k, const float* v) {
  const DType format = setting.how.format;
  const int D = p.head_dim, shared = head / p.group();
  const double sq = in8.q_scale[head], sk = in8.k_scale[shared], sv = in8.v_scale[shared];
  std::vector<double> weight(visible), score_variance(visible), o(D);
  double largest = -INFINITY, l = 0;
  for (int j = 0; j < visible; ++j) {
    double s = 0, variance = 0;
    for (int d = 0; d < D; ++d) {
      const double qd = q[d], kd = k[j * D + d];  // as stored: in units of sq and sk
      s += qd * kd;
      variance += rounding_variance(format, qd) * kd * kd + qd * qd * rounding_variance(format, kd);
    }
    const double factor = p.scale * sq * sk;
    weight[j] = s * factor;
    score_variance[j] = variance * factor * factor;
    largest = std::max(largest, weight[j]);
  }
  for (double& w : weight) l += w = std::exp(w - largest);
  for (int j = 0; j < visible; ++j) {
    for (int d = 0; d < D; ++d) o[d] += weight[j] / l * sv * v[j * D + d];
  }

  const double unit = setting.scale_P ? (format == DType::e4m3 ? 0x1p8 : 0x1p15) : 1;
  Predicted row;
  for (int j = 0; j < visible; ++j) {
    // The largest weight is a power of two and not rounded.
    const double dp =
        weight[j] == 1 ? 0 : rounding_variance(format, weight[j] * unit) / (unit * unit);
    const double pj = weight[j] / l;
    for (int d = 0; d < D; ++d) {
      const double vd = sv * v[j * D + d];
      row.kernel += dp / (l * l) * vd * vd;
      row.total += pj * pj *
                   (sv * sv * rounding_variance(format, v[j * D + d]) +
                    score_variance[j] * (vd - o[d]) * (vd - o[d]));
    }
  }
  row.total += row.kernel;
  return row;
}
// [/snippet]

Errors compare_rows(const Problem& p, const ReferenceRows& exact, const std::vector<float>& O,
                    const std::vector<Predicted>& predicted, double Predicted::*which) {
  Errors errors;
  const int D = p.head_dim;
  double error_squares = 0, exact_squares = 0, predicted_squares = 0;
  for (std::size_t r = 0; r < exact.rows.size(); ++r) {
    double error = 0, size = 0;
    for (int d = 0; d < D; ++d) {
      const double wanted = exact.exact[r * D + d];
      const double off = O[exact.rows[r] * D + d] - wanted;
      error += off * off;
      size += wanted * wanted;
      errors.max_abs = std::max(errors.max_abs, std::abs(off));
    }
    error_squares += error;
    exact_squares += size;
    // O itself is fp16: a last rounding, to within 2^-11.
    const double expected = predicted[r].*which + size * 0x1p-22 / 3;
    predicted_squares += expected;
    if (size > 0) errors.worst_row = std::max(errors.worst_row, std::sqrt(error / size));
    if (expected > 0)
      errors.worst_ratio = std::max(errors.worst_ratio, std::sqrt(error / expected));
  }
  errors.whole = std::sqrt(error_squares / exact_squares);
  errors.predicted = std::sqrt(predicted_squares / exact_squares);
  return errors;
}

}  // namespace

std::vector<Accuracy> measure_accuracy(const Problem& p, Distribution data,
                                       std::span<const Setting> settings) {
  const HostInputs in16 = make_inputs(p, data, 1);
  const DeviceBuffer q = uploaded(p.dtype, in16.q, "Q"), k = uploaded(p.dtype, in16.k, "K"),
                     v = uploaded(p.dtype, in16.v, "V");
  DeviceBuffer O_device(p.out_bytes(), "O");
  const std::vector<std::int64_t> rows = rows_to_check(p);
  const ReferenceRows exact16 = reference(p, in16, rows);

  const int key_groups = key_groups_of_best(p);
  DeviceBuffer workspace(Tensors8::bytes(p, key_groups), "workspace");
  const Tensors8 x(p, key_groups, workspace.data());
  const auto measure = [&](const Setting& setting) {
    const DType format = setting.how.format;
    O_device.poison();
    launch_quantise(p, setting.how, {.q = q.data(), .k = k.data(), .v = v.data()}, x, key_groups,
                    nullptr);
    launch_best(p,
                {.dtype = format,
                 .q = x.q,
                 .k = x.k,
                 .v = x.v_tiles,
                 .scales = {x.q_scale, x.k_scale, x.v_scale},
                 .key_groups = key_groups,
                 .out_dtype = p.out_dtype(),
                 .out = O_device.data(),
                 .lse = nullptr,
                 .scale_P = setting.scale_P},
                nullptr);
    synchronize();
    const std::vector<float> O =
        downloaded(O_device, O_device.data(), p.out_dtype(), p.out_elements());

    Problem p8 = p;
    p8.dtype = format;
    HostInputs in8;
    in8.q = downloaded(workspace, x.q, format, p.q_elements());
    in8.k = downloaded(workspace, x.k, format, p.kv_elements());
    in8.v = untiled(downloaded(workspace, x.v_tiles, format,
                               std::size_t(p.batch) * p.kv_heads * key_groups * 16 * p.head_dim),
                    p, key_groups);
    in8.q_scale = downloaded(workspace, x.q_scale, DType::fp32, p.heads);
    in8.k_scale = downloaded(workspace, x.k_scale, DType::fp32, p.kv_heads);
    in8.v_scale = downloaded(workspace, x.v_scale, DType::fp32, p.kv_heads);

    const ReferenceRows exact8 = reference(p8, in8, rows);
    std::vector<Predicted> predicted(rows.size());
    parallel_for(std::ssize(rows), 4, 0, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t bh = rows[r] / p.seq, keys = bh / p.group() * p.kv_seq * p.head_dim;
        const int visible = p.visible_keys(static_cast<int>(rows[r] % p.seq));
        predicted[r] = predict_row(p, in8, setting, static_cast<int>(bh % p.heads), visible,
                                   in8.q.data() + rows[r] * p.head_dim, in8.k.data() + keys,
                                   in8.v.data() + keys);
      }
    });
    return Accuracy{compare_rows(p, exact8, O, predicted, &Predicted::kernel),
                    compare_rows(p, exact16, O, predicted, &Predicted::total)};
  };

  std::vector<Accuracy> accuracies;
  for (const Setting& setting : settings) accuracies.push_back(measure(setting));
  return accuracies;
}

}  // namespace al::fp8
