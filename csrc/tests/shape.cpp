#include "shape.h"

#include <algorithm>

namespace normwright::fuzz {
namespace {

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};

std::string numbered(const char* name, std::int64_t value) {
  return std::string(" ") + name + "=" + std::to_string(value);
}

}  // namespace

std::int64_t Shape::elements() const {
  return std::visit(Overloaded{
                        [](const Rows& s) { return s.rows * s.length; },
                        [](const Channels& s) { return s.outer * s.channels * s.inner; },
                        [](const Groups& s) { return s.samples * s.space * s.channels; },
                    },
                    of);
}

std::int64_t Shape::moments() const {
  return std::visit(Overloaded{
                        [](const Rows& s) { return s.rows; },
                        [](const Channels& s) { return s.channels; },
                        [](const Groups& s) { return s.samples * s.groups; },
                    },
                    of);
}

std::int64_t Shape::parameters() const {
  return std::visit(Overloaded{
                        [](const Rows& s) { return s.sets * (s.length / s.segment); },
                        [](const Channels& s) { return s.channels; },
                        [](const Groups& s) { return s.channels; },
                    },
                    of);
}

std::int64_t Shape::moment_of(std::int64_t element) const {
  return std::visit(Overloaded{
                        [=](const Rows& s) { return element / s.length; },
                        [=](const Channels& s) { return element / s.inner % s.channels; },
                        [=](const Groups& s) {
                          const std::int64_t sample = element / (s.space * s.channels);
                          return sample * s.groups + element % s.channels / (s.channels / s.groups);
                        },
                    },
                    of);
}

std::int64_t Shape::parameter_of(std::int64_t element) const {
  return std::visit(Overloaded{
                        [=](const Rows& s) {
                          const std::int64_t set = element / s.length % s.sets;
                          return set * (s.length / s.segment) + element % s.length / s.segment;
                        },
                        [=](const Channels& s) { return element / s.inner % s.channels; },
                        [=](const Groups& s) { return element % s.channels; },
                    },
                    of);
}

bool Shape::centered() const {
  return std::visit(Overloaded{
                        [](const Rows& s) { return s.center; },
                        [](const Channels&) { return true; },
                        [](const Groups& s) { return s.center; },
                    },
                    of);
}

std::int64_t Shape::mask_run_length() const {
  return std::visit([](const auto& s) { return mask_run(s); }, of);
}

std::int64_t Shape::mask_bytes() const {
  const std::int64_t run = mask_run_length();
  return run ? elements() / run * ((run + 7) / 8) : 0;
}

std::int64_t Shape::mask_bit(std::int64_t element) const {
  const std::int64_t run = mask_run_length();
  return element / run * ((run + 7) / 8) * 8 + element % run;
}

std::int64_t Shape::samples() const {
  return std::visit(Overloaded{
                        [](const Rows& s) { return s.rows % s.sets ? 1 : s.rows / s.sets; },
                        [](const Channels&) { return std::int64_t{1}; },
                        [](const Groups& s) { return s.samples; },
                    },
                    of);
}

Shape Shape::of_one_sample() const {
  return std::visit(Overloaded{
                        [](Rows s) {
                          s.rows = s.sets;
                          return Shape(s);
                        },
                        [](Channels s) { return Shape(s); },
                        [](Groups s) {
                          s.samples = 1;
                          return Shape(s);
                        },
                    },
                    of);
}

std::string Shape::name() const {
  return std::visit(
      Overloaded{
          [](const Rows& s) {
            return "rows" + numbered("rows", s.rows) + numbered("length", s.length) + numbered("sets", s.sets) +
                   numbered("segment", s.segment) + (s.center ? "" : " not centred");
          },
          [](const Channels& s) {
            return "channels" + numbered("outer", s.outer) + numbered("channels", s.channels) +
                   numbered("inner", s.inner);
          },
          [](const Groups& s) {
            return "groups" + numbered("samples", s.samples) + numbered("space", s.space) +
                   numbered("channels", s.channels) + numbered("groups", s.groups) +
                   (s.center ? "" : " not centred");
          },
      },
      of);
}

namespace {

// From 1 to `most`: often around a multiple of a pack, of a byte of the mask or of kLongRun, or very small.
std::int64_t random_length(Random& random, std::int64_t most) {
  most = std::max<std::int64_t>(most, 1);
  std::int64_t length;
  if (random.chance(0.25)) {
    length = 1 + random.below(9);
  } else if (random.chance(0.5)) {
    const std::int64_t step = random.one_of<std::int64_t>({8, 16, 32, kLongRun, 512, 1 << 14});
    length = step * (1 + random.below(4)) + random.below(5) - 2;
  } else {
    length = static_cast<std::int64_t>(random.magnitude(1, static_cast<double>(most) + 1));
  }
  return std::clamp<std::int64_t>(length, 1, most);
}

std::int64_t sometimes_zero(Random& random, std::int64_t length) { return random.chance(0.01) ? 0 : length; }

}  // namespace

Shape random_rows(Random& random, std::int64_t most) {
  const bool center = random.chance(0.7);
  if (random.chance(0.5)) {  // layer and RMS norm
    const std::int64_t length = random_length(random, most);
    const std::int64_t rows = random_length(random, most / length);
    return Shape(Rows{sometimes_zero(random, rows), sometimes_zero(random, length), 1, 1, center});
  }
  // Group, instance and filter response norm, contiguous.
  const std::int64_t segment = random_length(random, most);
  const std::int64_t most_segments = random.chance(0.4) ? 1 : std::min<std::int64_t>(most / segment, 64);
  const std::int64_t segments = random_length(random, most_segments);
  const std::int64_t sets = random_length(random, std::min<std::int64_t>(most / (segment * segments), 64));
  const std::int64_t samples = random_length(random, std::min<std::int64_t>(most / (segment * segments * sets), 64));
  return Shape(Rows{sometimes_zero(random, samples) * sets, segment * segments, sets, segment, center});
}

Shape random_channels(Random& random, std::int64_t most) {
  std::int64_t channels, inner;
  if (random.chance(0.2)) {  // few channels, much space
    channels = 1 + random.below(4);
    inner = random_length(random, most / channels);
  } else {
    inner = random.chance(0.4) ? 1 : random_length(random, most);
    channels = random_length(random, std::min<std::int64_t>(most / inner, 4096));
  }
  const std::int64_t outer = random_length(random, most / (channels * inner));
  return Shape(Channels{sometimes_zero(random, outer), channels, sometimes_zero(random, inner)});
}

Shape random_groups(Random& random, std::int64_t most) {
  const std::int64_t groups = random_length(random, std::min<std::int64_t>(most, 64));
  const std::int64_t each = random.chance(0.3) ? 1 : random_length(random, std::min<std::int64_t>(most / groups, 64));
  const std::int64_t channels = groups * each;
  const std::int64_t space = random_length(random, most / channels);
  const std::int64_t samples = random_length(random, std::min<std::int64_t>(most / (channels * space), 16));
  const bool center = random.chance(0.7);
  return Shape(Groups{sometimes_zero(random, samples), sometimes_zero(random, space), channels, groups, center});
}

}  // namespace normwright::fuzz
