// What the shapes of kernels.h mean, element by element, written without regard to how a kernel goes about it.

#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../kernels.h"
#include "random.h"

namespace normwright::fuzz {

// Parts with the arrays that they point to.
struct CutChannels {
  Channels whole;
  std::vector<Span> spans;
  std::vector<std::int64_t> ends;
  std::vector<std::int64_t> part_of_position;  // kNowhere where no span is

  CutChannels(Channels whole, std::vector<Span> spans, std::vector<std::int64_t> ends);
  Parts parts() const { return {whole, static_cast<std::int64_t>(ends.size()), spans.data(), ends.data()}; }
};

constexpr std::int64_t kNowhere = -1;

class Shape {
 public:
  using Of = std::variant<Rows, Channels, Groups, CutChannels>;

  Shape() = default;
  explicit Shape(Of of) : of(std::move(of)) {}

  std::int64_t elements() const;
  std::int64_t moments() const;
  std::int64_t parameters() const;
  std::int64_t moment_of(std::int64_t element) const;  // kNowhere where it is of none
  std::int64_t parameter_of(std::int64_t element) const;
  bool centered() const;

  std::int64_t mask_bytes() const;
  // The bit of an element: in byte / 8, at byte % 8.
  std::int64_t mask_bit(std::int64_t element) const;

  // Samples do not depend on each other in rows and groups, and are an equal part each of every array.
  std::int64_t samples() const;
  Shape of_one_sample() const;

  std::string name() const;

  Of of;

 private:
  std::int64_t mask_run_length() const;
};

// Of about `most` elements at most.
Shape random_rows(Random& random, std::int64_t most);
Shape random_channels(Random& random, std::int64_t most);
Shape random_parts(Random& random, std::int64_t most);
Shape random_groups(Random& random, std::int64_t most);

}  // namespace normwright::fuzz
