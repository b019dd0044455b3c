#include "problem.h"

#include <algorithm>

#include "reference.h"

namespace normwright::fuzz {
namespace {

constexpr const char* kActivations[] = {"none", "relu", "leaky_relu", "silu", "gelu", "sigmoid", "tanh"};

// How the elements under a moment are drawn.
enum class Kind { ordinary, shifted, large, small, constant, outlier, outlier_first };

// 10³⁰ leaves the squares of a float32 input finite in double only; float16 ends at 65,504.
Real largest_scale(Dtype dtype) { return dtype == Dtype::float16 ? 1e4L : 1e30L; }
Real smallest_scale(Dtype dtype) { return dtype == Dtype::float16 ? 1e-3L : 1e-30L; }

// Elements come as  offset + deviation·(something of size 1).
struct Draw {
  Kind kind;
  Real offset, deviation;

  Draw(Random& random, Kind kind, Dtype dtype)
      : kind(kind), offset(random.normal()), deviation(random.magnitude(0.1, 10)) {
    const Real largest = largest_scale(dtype);
    if (kind == Kind::shifted) offset = deviation * random.magnitude(1, 1e6);
    if (kind == Kind::large) offset *= largest, deviation *= largest / 10;
    if (kind == Kind::small) offset *= smallest_scale(dtype), deviation *= smallest_scale(dtype);
    if (dtype == Dtype::float16) offset = std::clamp(offset, Real{-30000}, Real{30000});
  }

  Real element(Random& random, std::int64_t place) const {
    if (kind == Kind::constant) return offset;
    if (kind == Kind::outlier_first && place == 0) return offset + 1000 * deviation;
    if (kind == Kind::outlier && random.chance(0.01)) return offset + 1000 * deviation;
    return offset + deviation * random.normal();
  }
};

Values random_x(Random& random, const Shape& shape, Dtype dtype) {
  Values x(dtype, shape.elements());
  const std::initializer_list<Kind> kinds = {Kind::ordinary, Kind::ordinary, Kind::ordinary, Kind::shifted,
                                             Kind::shifted,  Kind::large,    Kind::small,    Kind::constant,
                                             Kind::outlier,  Kind::outlier_first};
  const Kind kind = random.one_of(kinds);
  const bool mixed = random.chance(0.3);
  std::vector<Draw> draws;
  for (std::int64_t m = 0; m < shape.moments(); ++m) {
    draws.emplace_back(random, mixed ? random.one_of(kinds) : kind, dtype);
  }
  std::vector<std::int64_t> places(draws.size());
  for (std::int64_t i = 0; i < x.count(); ++i) {
    const std::int64_t moment = shape.moment_of(i);
    if (moment == kNowhere) {
      x.set(i, std::numeric_limits<Real>::quiet_NaN());
      continue;
    }
    const auto m = static_cast<std::size_t>(moment);
    x.set(i, draws[m].element(random, places[m]++));
  }
  return x;
}

Values random_values(Random& random, Dtype dtype, std::int64_t count, Real offset, Real deviation) {
  Values values(dtype, count);
  for (std::int64_t i = 0; i < count; ++i) values.set(i, offset + deviation * random.normal());
  return values;
}

// NaN or infinity somewhere.
void poison(Random& random, Values& values) {
  if (values.count() == 0) return;
  constexpr Real kInfinity = std::numeric_limits<Real>::infinity();
  const Real value = random.one_of<Real>({std::numeric_limits<Real>::quiet_NaN(), kInfinity, -kInfinity});
  values.set(random.below(values.count()), value);
}

Shape random_shape(Random& random, Function function, std::int64_t most) {
  switch (function) {
    case Function::rows_forward:
    case Function::rows_backward:
      return random_rows(random, most);
    case Function::groups_forward:
    case Function::groups_backward:
      return random_groups(random, most);
    case Function::parts_forward:
    case Function::parts_backward:
      return random_parts(random, most);
    default:
      return random_channels(random, most);
  }
}

// Those of x for a backward; something near them where they are known from elsewhere.
void draw_moments(Random& random, Problem& problem) {
  const MomentsOfX found = moments_of(problem.shape, problem.x);
  const std::int64_t moments = problem.shape.moments();
  problem.mean = Values(Dtype::float64, moments);
  problem.rstd = Values(Dtype::float64, moments);
  for (std::int64_t m = 0; m < moments; ++m) {
    const auto i = static_cast<std::size_t>(m);
    Real mean = found.mean[i], variance = found.m2[i] / found.count[i];
    if (problem.known_moments()) {
      mean += std::sqrt(variance) * random.normal();
      variance *= static_cast<Real>(random.magnitude(0.5, 2));
    }
    problem.mean.set(m, mean);
    problem.rstd.set(m, 1 / std::sqrt(variance + static_cast<Real>(problem.eps)));
  }
}

// A float, as the kernels may round it to one.
double random_alpha(Random& random) {
  const double special = random.one_of({0.0, 1e-30, 1e30, static_cast<double>(std::numeric_limits<float>::infinity())});
  const double ordinary = random.magnitude(0.01, 10) * random.one_of({-1, 1});
  return static_cast<double>(static_cast<float>(random.chance(0.1) ? special : ordinary));
}

}  // namespace

const char* name_of(Function function) {
  constexpr const char* kNames[] = {"rows_forward",    "rows_backward",   "channels_forward",
                                    "channels_backward", "channel_affine", "channel_affine_backward",
                                    "channel_moments", "parts_forward",   "parts_backward",
                                    "groups_forward",  "groups_backward", "channel_tanh",
                                    "channel_tanh_backward"};
  return kNames[static_cast<int>(function)];
}

bool Problem::backward() const {
  return function == Function::rows_backward || function == Function::channels_backward ||
         function == Function::channel_affine_backward || function == Function::parts_backward ||
         function == Function::groups_backward || function == Function::channel_tanh_backward;
}

bool Problem::known_moments() const {
  return function == Function::channel_affine || function == Function::channel_affine_backward;
}

bool Problem::without_moments() const {
  return function == Function::channel_tanh || function == Function::channel_tanh_backward;
}

std::string Problem::name() const {
  std::string text = std::string(name_of(function)) + ": " + shape.name() + " " + name_of(dtype);
  if (function == Function::channel_moments) return text;
  if (without_moments()) {
    text += " alpha=" + std::to_string(alpha);
  } else {
    text += std::string(" ") + kActivations[static_cast<int>(activation)] + " eps=" + std::to_string(eps);
  }
  const auto flag = [&](bool set, const char* word) {
    if (set) text += std::string(" ") + word;
  };
  flag(residual.has_value(), "residual");
  flag(weight.has_value(), "weight");
  flag(bias.has_value(), "bias");
  flag(stream, "stream");
  if (backward()) {
    flag(mask.has_value(), "mask");
    flag(wants_dx, "dx");
    flag(wants_dresidual, "dresidual");
    flag(wants_dweight, "dweight");
    flag(wants_dbias, "dbias");
    flag(without_moments() && wants_dalpha, "dalpha");
  } else {
    flag(wants_mask, "mask");
    flag(wants_variance, "variance");
    flag(in_place, "in place");
  }
  return text;
}

Problem sample_of(const Problem& problem, std::int64_t index) {
  const std::int64_t samples = problem.shape.samples();
  Problem sample = problem;
  sample.shape = problem.shape.of_one_sample();
  for (Values* values : {&sample.x, &sample.dy, &sample.mean, &sample.rstd}) *values = values->part(index, samples);
  if (sample.residual) sample.residual = sample.residual->part(index, samples);
  if (sample.mask) {
    const auto size = static_cast<std::ptrdiff_t>(problem.mask->size()) / samples;
    sample.mask->assign(problem.mask->begin() + index * size, problem.mask->begin() + (index + 1) * size);
  }
  return sample;
}

Problem random_problem(std::uint64_t seed, std::int64_t most) {
  Random random(seed);
  Problem problem;
  problem.function = static_cast<Function>(random.below(kFunctions));
  // Most small, since these are the quickest; from 2¹⁵ elements on the kernels use threads.
  const bool small = random.chance(0.8);
  problem.shape = random_shape(random, problem.function, small ? std::min<std::int64_t>(most, 4000) : most);
  problem.dtype = random.one_of({Dtype::float32, Dtype::float64, Dtype::bfloat16, Dtype::float16});
  problem.activation = static_cast<Activation>(random.below(7));
  if (random.chance(0.2)) problem.activation = Activation::relu;
  problem.eps = random.one_of({1e-5, 1e-3, 1e-12});
  problem.stream = random.chance(0.3);
  problem.in_place = random.chance(0.3);

  const Shape& shape = problem.shape;
  const bool parts = std::holds_alternative<CutChannels>(shape.of);  // of which there are no masks
  const bool has_mask = random.chance(0.5) && !parts && (problem.activation == Activation::relu ||
                                               problem.activation == Activation::leaky_relu);
  problem.x = random_x(random, shape, problem.dtype);
  if (random.chance(0.1)) poison(random, problem.x);
  if (random.chance(0.5)) {
    problem.residual = random_values(random, problem.dtype, shape.elements(), 0, random.magnitude(0.1, 1000));
    if (random.chance(0.1)) poison(random, *problem.residual);
  }
  const Dtype parameter = problem.dtype == Dtype::float64 ? Dtype::float64 : Dtype::float32;
  if (random.chance(0.7)) {
    const Real scale = random.magnitude(0.01, 100);
    problem.weight = random_values(random, parameter, shape.parameters(), scale, scale);
    if (random.chance(0.2) && shape.parameters()) problem.weight->set(random.below(shape.parameters()), 0);
  }
  if (random.chance(0.7)) problem.bias = random_values(random, parameter, shape.parameters(), 0, 1);

  problem.wants_mask = has_mask && !problem.backward();
  const bool has_variance = problem.function == Function::channels_forward || problem.function == Function::parts_forward;
  problem.wants_variance = has_variance && random.chance(0.5);
  problem.wants_dx = random.chance(0.8);
  problem.wants_dresidual = random.chance(0.5);
  problem.wants_dweight = random.chance(0.7);
  problem.wants_dbias = random.chance(0.7);
  if (!problem.without_moments() && (problem.known_moments() || problem.backward())) draw_moments(random, problem);
  if (problem.backward()) {
    problem.dy = random_values(random, problem.dtype, shape.elements(), 0, random.magnitude(0.001, 1000));
    if (random.chance(0.1)) poison(random, problem.dy);
    if (has_mask) {  // of nobody's making: what it says is what counts
      problem.mask.emplace(static_cast<std::size_t>(shape.mask_bytes()));
      for (std::byte& bits : *problem.mask) bits = static_cast<std::byte>(random.below(256));
    }
  }
  problem.wants_dalpha = random.chance(0.7);
  if (problem.without_moments()) {
    problem.residual.reset();
    problem.in_place = problem.wants_mask = false;
    problem.mask.reset();
    problem.alpha = random_alpha(random);
  }
  return problem;
}

}  // namespace normwright::fuzz
