// The parts that an operator is given, as the kernels take them.

#pragma once

#include <algorithm>
#include <iterator>
#include <numeric>

#include "inputs.h"

namespace normwright {

// From rows (part, first position, length) in any order.
class PartsOf {
 public:
  PartsOf(const Channels& whole, const Tensor& given, std::int64_t parts) : whole_(whole) {
    STD_TORCH_CHECK(parts >= 0, "parts must be at least 0, but is ", parts);
    check_given("spans", given);
    ends_.resize(static_cast<std::size_t>(parts));
    STD_TORCH_CHECK(given.scalar_type() == ScalarType::Long && given.dim() == 2 && given.size(1) == 3,
                    "spans must be int64 rows of part, first position and length");
    const Tensor rows = given.is_contiguous() ? given : torch::stable::contiguous(given);
    const std::span<const Row> all{static_cast<const Row*>(rows.const_data_ptr()),
                                   static_cast<std::size_t>(rows.size(0))};
    const std::int64_t positions = whole.outer * whole.inner;
    for (const Row& row : all) {
      STD_TORCH_CHECK(row.part >= 0 && row.part < parts && row.span.first >= 0 && row.span.length >= 0 &&
                          row.span.length <= positions - row.span.first,
                      "a span must lie within the positions of x, and its part be one of those that there are");
      ++ends_[static_cast<std::size_t>(row.part)];
      covered_ += row.span.length;
    }
    STD_TORCH_CHECK(are_apart(all), "no two spans may overlap");
    std::partial_sum(ends_.begin(), ends_.end(), ends_.begin());
    spans_.resize(all.size());
    std::vector<std::int64_t> places = ends_;
    for (std::size_t i = all.size(); i-- > 0;) {
      spans_[static_cast<std::size_t>(--places[static_cast<std::size_t>(all[i].part)])] = all[i].span;
    }
  }

  Parts shape() const { return {whole_, std::ssize(ends_), spans_.data(), ends_.data()}; }
  // Whether every position lies in a part.
  bool cover_all() const { return covered_ == whole_.outer * whole_.inner; }

 private:
  struct Row {
    std::int64_t part;
    Span span;
  };
  // Most callers give them in order.
  static bool are_apart(std::span<const Row> rows) {
    std::vector<Span> spans;
    spans.reserve(rows.size());
    for (const Row& row : rows) {
      if (row.span.length) spans.push_back(row.span);
    }
    if (!std::ranges::is_sorted(spans, {}, &Span::first)) std::ranges::sort(spans, {}, &Span::first);
    const auto overlap = [](const Span& one, const Span& next) { return next.first - one.first < one.length; };
    return std::ranges::adjacent_find(spans, overlap) == spans.end();
  }
  Channels whole_;
  std::vector<Span> spans_;
  std::vector<std::int64_t> ends_;
  std::int64_t covered_ = 0;
};

}  // namespace normwright
