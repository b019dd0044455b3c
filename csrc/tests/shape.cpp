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

CutChannels::CutChannels(Channels whole, std::vector<Span> spans, std::vector<std::int64_t> ends)
    : whole(whole), spans(std::move(spans)), ends(std::move(ends)) {
  part_of_position.assign(static_cast<std::size_t>(whole.outer * whole.inner), kNowhere);
  for (std::size_t part = 0, i = 0; part < this->ends.size(); ++part) {
    for (; i < static_cast<std::size_t>(this->ends[part]); ++i) {
      const auto begin = part_of_position.begin() + this->spans[i].first;
      std::fill(begin, begin + this->spans[i].length, static_cast<std::int64_t>(part));
    }
  }
}

std::int64_t Shape::elements() const {
  return std::visit(Overloaded{
                        [](const Rows& s) { return s.rows * s.length; },
                        [](const Channels& s) { return s.outer * s.channels * s.inner; },
                        [](const CutChannels& s) { return Shape(s.whole).elements(); },
                        [](const Groups& s) { return s.samples * s.space * s.channels; },
                    },
                    of);
}

std::int64_t Shape::moments() const {
  return std::visit(Overloaded{
                        [](const Rows& s) { return s.rows; },
                        [](const Channels& s) { return s.channels; },
                        [](const CutChannels& s) { return s.whole.channels * s.parts().parts; },
                        [](const Groups& s) { return s.samples * s.groups; },
                    },
                    of);
}

std::int64_t Shape::parameters() const {
  return std::visit(Overloaded{
                        [](const Rows& s) { return s.sets * (s.length / s.segment); },
                        [](const Channels& s) { return s.channels; },
                        [](const CutChannels& s) { return s.whole.channels; },
                        [](const Groups& s) { return s.channels; },
                    },
                    of);
}

std::int64_t Shape::moment_of(std::int64_t element) const {
  return std::visit(Overloaded{
                        [=](const Rows& s) { return element / s.length; },
                        [=](const Channels& s) { return element / s.inner % s.channels; },
                        [=](const CutChannels& s) {
                          const std::int64_t sample = element / (s.whole.channels * s.whole.inner);
                          const std::int64_t position = sample * s.whole.inner + element % s.whole.inner;
                          const std::int64_t part = s.part_of_position[static_cast<std::size_t>(position)];
                          const std::int64_t channel = element / s.whole.inner % s.whole.channels;
                          return part == kNowhere ? kNowhere : part * s.whole.channels + channel;
                        },
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
                        [=](const CutChannels& s) { return Shape(s.whole).parameter_of(element); },
                        [=](const Groups& s) { return element % s.channels; },
                    },
                    of);
}

bool Shape::centered() const {
  return std::visit(Overloaded{
                        [](const Rows& s) { return s.center; },
                        [](const Channels&) { return true; },
                        [](const Groups& s) { return s.center; },
                        [](const CutChannels&) { return true; },
                    },
                    of);
}

std::int64_t Shape::mask_run_length() const {
  return std::visit(Overloaded{
                        [](const CutChannels&) { return std::int64_t{0}; },
                        [](const auto& s) { return mask_run(s); },
                    },
                    of);
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
                        [](const CutChannels&) { return std::int64_t{1}; },
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
                        [](CutChannels s) { return Shape(std::move(s)); },
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
          [](const CutChannels& s) {
            return Shape(s.whole).name() + numbered("parts", s.parts().parts) +
                   numbered("spans", static_cast<std::int64_t>(s.spans.size()));
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

// Short runs, and more parameters than a thread keeps gradients of: several threads take a set each.
Shape rows_of_many_parameters(Random& random, bool center) {
  const std::int64_t sets = 2 + random.below(8), segment = 1 + random.below(kLongRun - 1);
  const std::int64_t length = (8192 / (sets * segment) + 1 + random.below(16)) * segment;
  return Shape(Rows{(4 + random.below(4)) * sets, length, sets, segment, center});
}

}  // namespace

Shape random_rows(Random& random, std::int64_t most) {
  const bool center = random.chance(0.7);
  if (most >= 100'000 && random.chance(0.1)) return rows_of_many_parameters(random, center);
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

// Spans of every kind: whole batches of samples, samples in turn, what counts of padded sequences, and any; some parts
// may have none, and some positions may be in none.
Shape random_parts(Random& random, std::int64_t most) {
  const Channels whole = std::get<Channels>(random_channels(random, most).of);
  const std::int64_t positions = whole.outer * whole.inner;
  const std::int64_t parts = 1 + (random.chance(0.4) ? 0 : random.below(random.chance(0.8) ? 4 : 40));
  std::vector<std::vector<Span>> of_parts(static_cast<std::size_t>(parts));
  const bool whole_samples = random.chance(0.5), gaps = random.chance(0.4), in_turn = random.chance(0.5);
  const std::int64_t unit = whole_samples && whole.inner ? whole.inner : 1;
  const std::int64_t usual = random_length(random, positions / unit) * unit;
  std::int64_t part = 0;
  for (std::int64_t first = 0; first < positions;) {
    const std::int64_t wanted = random.chance(0.7) ? usual : random_length(random, positions / unit) * unit;
    const std::int64_t length = std::min(wanted, positions - first);
    if (!gaps || random.chance(0.6)) of_parts[static_cast<std::size_t>(part)].push_back({first, length});
    if (random.chance(0.05)) of_parts[static_cast<std::size_t>(part)].push_back({first + length, 0});
    first += length;
    part = in_turn ? (part + 1) % parts : std::min(part + 1, parts - 1);
  }
  std::vector<Span> spans;
  std::vector<std::int64_t> ends;
  for (std::vector<Span>& own : of_parts) {
    if (random.chance(0.1)) std::reverse(own.begin(), own.end());
    spans.insert(spans.end(), own.begin(), own.end());
    ends.push_back(static_cast<std::int64_t>(spans.size()));
  }
  return Shape(CutChannels(whole, std::move(spans), std::move(ends)));
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
