// What the shapes of kernels.h mean, element by element, written without regard to how a kernel goes about it.

#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "../kernels.h"
#include "random.h"

namespace normwright::fuzz {

class Shape {
 public:
  Shape() = default;
  explicit Shape(std::variant<Rows, Channels, Groups> of) : of(of) {}

  std::int64_t elements() const;
  std::int64_t moments() const;
  std::int64_t parameters() const;
  std::int64_t moment_of(std::int64_t element) const;
  std::int64_t parameter_of(std::int64_t element) const;
  bool centered() const;

  std::int64_t mask_bytes() const;
  // The bit of an element: in byte / 8, at byte % 8.
  std::int64_t mask_bit(std::int64_t element) const;

  // Samples do not depend on each other in rows and groups, and are an equal part each of every array.
  std::int64_t samples() const;
  Shape of_one_sample() const;

  std::string name() const;

  std::variant<Rows, Channels, Groups> of;

 private:
  std::int64_t mask_run_length() const;
};

// Of about `most` elements at most.
Shape random_rows(Random& random, std::int64_t most);
Shape random_channels(Random& random, std::int64_t most);
Shape random_groups(Random& random, std::int64_t most);

}  // namespace normwright::fuzz
