#include "check.h"

#include <cstring>
#include <sstream>
#include <utility>

#include "memory.h"
#include "reference.h"
#include "threads.h"

namespace normwright::fuzz {
namespace {

// Of a parameter's gradient, of mean or rstd.
constexpr Dtype kWide = Dtype::float64;

// The outputs of one run, in the order in which they are compared.
enum Output { kY, kMean, kRstd, kVariance, kMask, kDx, kDresidual, kDweight, kDbias, kDalpha, kOutputs };
// What an output is filled with before a run: something that no kernel would write, so that an element left out shows.
constexpr std::byte kFilling{0x5b};

constexpr const char* kOutputNames[] = {"y",  "mean",      "rstd",    "variance", "mask",
                                        "dx", "dresidual", "dweight", "dbias",    "dalpha"};

// Its arrays are moved by some elements, so that every alignment has its turn.
class Run {
 public:
  Run(const Problem& problem, Random& random) : problem_(problem), random_(random) {}

  void call(const Kernels& kernels, Schedule schedule) {
    const Parallel parallel = parallel_for(schedule);
    const auto& of = problem_.shape.of;
    if (problem_.function == Function::channel_moments) {
      double* const mean = static_cast<double*>(output(kMean, kWide, problem_.shape.moments()));
      double* const m2 = static_cast<double*>(output(kVariance, kWide, problem_.shape.moments()));
      kernels.channel_moments(std::get<Channels>(of), problem_.dtype, input(problem_.x), mean, m2, parallel);
    } else if (problem_.function == Function::channel_tanh) {
      kernels.channel_tanh(std::get<Channels>(of), tanh_call(), parallel);
    } else if (problem_.function == Function::channel_tanh_backward) {
      kernels.channel_tanh_backward(std::get<Channels>(of), tanh_backward_call(), parallel);
    } else if (problem_.backward()) {
      const Backward call = backward_call();
      switch (problem_.function) {
        case Function::rows_backward:
          return kernels.rows_backward(std::get<Rows>(of), call, parallel);
        case Function::groups_backward:
          return kernels.groups_backward(std::get<Groups>(of), call, parallel);
        case Function::parts_backward:
          return kernels.parts_backward(std::get<CutChannels>(of).parts(), call, parallel);
        case Function::channels_backward:
          return kernels.channels_backward(std::get<Channels>(of), call, parallel);
        default:
          return kernels.channel_affine_backward(std::get<Channels>(of), call, parallel);
      }
    } else {
      const Forward call = forward_call();
      switch (problem_.function) {
        case Function::rows_forward:
          return kernels.rows_forward(std::get<Rows>(of), call, parallel);
        case Function::groups_forward:
          return kernels.groups_forward(std::get<Groups>(of), call, parallel);
        case Function::parts_forward:
          return kernels.parts_forward(std::get<CutChannels>(of).parts(), call, parallel);
        case Function::channels_forward:
          return kernels.channels_forward(std::get<Channels>(of), call, parallel);
        default:
          return kernels.channel_affine(std::get<Channels>(of), call, parallel);
      }
    }
  }

  bool has(Output which) const { return outputs_[which].data() != nullptr; }
  const std::byte* data(Output which) const { return outputs_[which].data(); }
  std::size_t bytes(Output which) const { return outputs_[which].bytes(); }

  // A write past an array, or into an input, that nothing else has noticed.
  std::string strayed() const {
    for (int which = 0; which < kOutputs; ++which) {
      if (!outputs_[which].edges_intact()) return std::string("wrote past ") + kOutputNames[which];
    }
    for (const auto& [memory, original] : inputs_) {
      if (!memory.edges_intact()) return "wrote past an input";
      const bool any = original && !original->empty();
      if (any && std::memcmp(memory.data(), original->data(), original->size()) != 0) return "wrote into an input";
    }
    return "";
  }

 private:
  Memory array(std::int64_t bytes, std::int64_t element) {
    const std::int64_t gap = random_.chance(0.5) ? 0 : random_.below(17) * element;
    return Memory(static_cast<std::size_t>(bytes), static_cast<std::size_t>(gap));
  }

  const void* input(const std::vector<std::byte>& bytes, std::int64_t element) {
    Memory memory = array(static_cast<std::int64_t>(bytes.size()), element);
    if (!bytes.empty()) std::memcpy(memory.data(), bytes.data(), bytes.size());
    inputs_.emplace_back(std::move(memory), &bytes);
    return inputs_.back().first.data();
  }
  const void* input(const Values& values) { return input(values.bytes(), bytes_of(values.dtype())); }
  const void* input(const std::optional<Values>& values) { return values ? input(*values) : nullptr; }

  void* output(Output which, Dtype dtype, std::int64_t count) {
    outputs_[which] = array(count * bytes_of(dtype), bytes_of(dtype));
    std::memset(outputs_[which].data(), std::to_integer<int>(kFilling), outputs_[which].bytes());
    return outputs_[which].data();
  }
  void* output_if(bool wanted, Output which, Dtype dtype, std::int64_t count) {
    return wanted ? output(which, dtype, count) : nullptr;
  }

  Forward forward_call() {
    const Shape& shape = problem_.shape;
    Forward call{};
    call.dtype = problem_.dtype;
    call.activation = problem_.activation;
    call.eps = problem_.eps;
    call.stream = problem_.stream;
    call.residual = input(problem_.residual);
    call.weight = input(problem_.weight);
    call.bias = input(problem_.bias);
    call.y = output(kY, problem_.dtype, shape.elements());
    if (problem_.in_place) {
      if (!problem_.x.bytes().empty()) std::memcpy(call.y, problem_.x.bytes().data(), problem_.x.bytes().size());
      call.x = call.y;
    } else {
      call.x = input(problem_.x);
    }
    if (problem_.known_moments()) {
      // Not const in the struct, since the others write them.
      call.mean = static_cast<double*>(const_cast<void*>(input(problem_.mean)));
      call.rstd = static_cast<double*>(const_cast<void*>(input(problem_.rstd)));
    } else {
      call.mean = static_cast<double*>(output_if(shape.centered(), kMean, kWide, shape.moments()));
      call.rstd = static_cast<double*>(output(kRstd, kWide, shape.moments()));
    }
    call.variance = static_cast<double*>(output_if(problem_.wants_variance, kVariance, kWide, shape.moments()));
    if (problem_.wants_mask) {
      outputs_[kMask] = array(shape.mask_bytes(), 1);
      std::memset(outputs_[kMask].data(), std::to_integer<int>(kFilling), outputs_[kMask].bytes());
      call.mask = reinterpret_cast<std::uint8_t*>(outputs_[kMask].data());
    }
    return call;
  }

  Backward backward_call() {
    const Shape& shape = problem_.shape;
    Backward call{};
    call.dtype = problem_.dtype;
    call.activation = problem_.activation;
    call.stream = problem_.stream;
    call.dy = input(problem_.dy);
    call.x = input(problem_.x);
    call.weight = input(problem_.weight);
    call.bias = input(problem_.bias);
    if (shape.centered()) call.mean = static_cast<const double*>(input(problem_.mean));
    call.rstd = static_cast<const double*>(input(problem_.rstd));
    if (problem_.mask) {
      call.mask = static_cast<const std::uint8_t*>(input(*problem_.mask, 1));
      // Not to be read: an array without elements, before a page that may not be touched.
      inputs_.emplace_back(Memory(0, 0), nullptr);
      if (problem_.residual) call.residual = inputs_.back().first.data();
    } else {
      call.residual = input(problem_.residual);
    }
    call.dx = output_if(problem_.wants_dx, kDx, problem_.dtype, shape.elements());
    call.dresidual = output_if(problem_.wants_dresidual, kDresidual, problem_.dtype, shape.elements());
    call.dweight = static_cast<double*>(output_if(problem_.wants_dweight, kDweight, kWide, shape.parameters()));
    call.dbias = static_cast<double*>(output_if(problem_.wants_dbias, kDbias, kWide, shape.parameters()));
    return call;
  }

  TanhForward tanh_call() {
    const void* const x = input(problem_.x);
    void* const y = output(kY, problem_.dtype, problem_.shape.elements());
    return {problem_.dtype, problem_.alpha, x, input(problem_.weight), input(problem_.bias), y, problem_.stream};
  }

  TanhBackward tanh_backward_call() {
    const std::int64_t parameters = problem_.shape.parameters();
    TanhBackward call{};
    call.dtype = problem_.dtype;
    call.alpha = problem_.alpha;
    call.stream = problem_.stream;
    call.dy = input(problem_.dy);
    call.x = input(problem_.x);
    call.weight = input(problem_.weight);
    call.dx = output_if(problem_.wants_dx, kDx, problem_.dtype, problem_.shape.elements());
    call.dalpha = static_cast<double*>(output_if(problem_.wants_dalpha, kDalpha, kWide, 1));
    call.dweight = static_cast<double*>(output_if(problem_.wants_dweight, kDweight, kWide, parameters));
    call.dbias = static_cast<double*>(output_if(problem_.wants_dbias, kDbias, kWide, parameters));
    return call;
  }

  const Problem& problem_;
  Random& random_;
  Memory outputs_[kOutputs];
  std::vector<std::pair<Memory, const std::vector<std::byte>*>> inputs_;
};

std::string complaint(Output which, std::int64_t i, Real got, const Estimate& expected) {
  std::ostringstream text;
  text.precision(17);
  text << kOutputNames[which] << "[" << i << "] is " << got << ", must be " << expected.value << " within "
       << expected.error;
  return text.str();
}

// Elements that no moment is taken over are looked at elsewhere.
std::string compare_elements(const Problem& problem, const Run& run, Output which, const Estimates& expected) {
  if (!run.has(which)) return "";
  for (std::int64_t i = 0; i < problem.shape.elements(); ++i) {
    if (problem.shape.moment_of(i) == kNowhere) continue;
    const Real got = read(problem.dtype, run.data(which), i);
    const Estimate& estimate = expected[static_cast<std::size_t>(i)];
    if (!acceptable(problem.dtype, got, estimate)) return complaint(which, i, got, estimate);
  }
  return "";
}

std::string compare(const Run& run, Output which, Dtype dtype, const Estimates& expected) {
  if (!run.has(which)) return "";
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(expected.size()); ++i) {
    const Real got = read(dtype, run.data(which), i);
    const Estimate& estimate = expected[static_cast<std::size_t>(i)];
    if (!acceptable(dtype, got, estimate)) return complaint(which, i, got, estimate);
  }
  return "";
}

Reals reals_of(const void* values, std::int64_t count) {
  Reals result;
  for (std::int64_t i = 0; i < count; ++i) result.push_back(read(kWide, values, i));
  return result;
}

std::string compare_moments(const Problem& problem, const Run& run) {
  const MomentsOfX found = moments_of(problem.shape, problem.x);
  const bool raw = problem.function == Function::channel_moments;  // m2 is where the variance is otherwise
  Estimates mean, rstd, variance;
  for (std::size_t m = 0; m < found.mean.size(); ++m) {
    const Real divisor = raw ? 1 : found.count[m];
    mean.push_back({found.mean[m], found.mean_error[m]});
    rstd.push_back(rstd_of(found, m, static_cast<Real>(problem.eps)));
    variance.push_back({found.m2[m] / divisor, found.m2_error[m] / divisor});
    if (raw && found.count[m] == 0) mean.back() = variance.back() = {0, 0};
  }
  std::string wrong = compare(run, kMean, kWide, mean);
  if (wrong.empty()) wrong = compare(run, kVariance, kWide, variance);
  if (wrong.empty()) wrong = compare(run, kRstd, kWide, rstd);
  return wrong;
}

// From the moments that the kernel found, so that their error, which has been looked at, counts once.
std::string compare_forward(const Problem& problem, const Run& run) {
  const Shape& shape = problem.shape;
  const Reals mean = problem.known_moments() ? reals_of(problem.mean.bytes().data(), shape.moments())
                     : shape.centered()      ? reals_of(run.data(kMean), shape.moments())
                                             : Reals(static_cast<std::size_t>(shape.moments()));
  const Reals rstd = reals_of(problem.known_moments() ? problem.rstd.bytes().data() : run.data(kRstd), shape.moments());
  const Real u = unit_of(problem.dtype);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    if (shape.moment_of(i) == kNowhere) continue;
    const Estimate z = before_activation(problem, mean, rstd, i);
    const Estimate y = activated(problem.activation, z.value, z.error, u);
    const Real got = read(problem.dtype, run.data(kY), i);
    if (!acceptable(problem.dtype, got, y)) return complaint(kY, i, got, y);
    if (!run.has(kMask)) continue;
    const std::int64_t bit = shape.mask_bit(i);
    const bool set = std::to_integer<unsigned>(run.data(kMask)[bit / 8]) >> (bit % 8) & 1;
    if (set != slope_is_one(problem.activation, z.value) && !(std::abs(z.value) <= z.error)) {
      return complaint(kMask, i, set, z);
    }
  }
  return "";
}

std::string compare_tanh(const Problem& problem, const Run& run) {
  if (!problem.backward()) return compare(run, kY, problem.dtype, squashed(problem));
  const TanhGradients gradients = tanh_gradients_of(problem);
  std::string wrong = compare(run, kDx, problem.dtype, gradients.dx);
  if (wrong.empty()) wrong = compare(run, kDweight, kWide, gradients.dweight);
  if (wrong.empty()) wrong = compare(run, kDbias, kWide, gradients.dbias);
  if (wrong.empty()) wrong = compare(run, kDalpha, kWide, {gradients.dalpha});
  return wrong;
}

std::string compare_with_reference(const Problem& problem, const Run& run) {
  if (problem.without_moments()) return compare_tanh(problem, run);
  if (problem.backward()) {
    const Gradients gradients = gradients_of(problem);
    std::string wrong = compare_elements(problem, run, kDresidual, gradients.dresidual);
    if (wrong.empty()) wrong = compare(run, kDweight, kWide, gradients.dweight);
    if (wrong.empty()) wrong = compare(run, kDbias, kWide, gradients.dbias);
    if (wrong.empty()) wrong = compare_elements(problem, run, kDx, gradients.dx);
    return wrong;
  }
  std::string wrong = problem.known_moments() ? "" : compare_moments(problem, run);
  if (wrong.empty() && problem.function != Function::channel_moments) wrong = compare_forward(problem, run);
  return wrong;
}

// What is in no part is left as it was.
std::string compare_untouched(const Problem& problem, const Run& run) {
  const auto size = static_cast<std::size_t>(bytes_of(problem.dtype));
  const std::vector<std::byte> filling(size, kFilling);
  for (std::int64_t i = 0; i < problem.shape.elements(); ++i) {
    if (problem.shape.moment_of(i) != kNowhere) continue;
    for (const Output which : {kY, kDx, kDresidual}) {
      const std::size_t place = static_cast<std::size_t>(i) * size;
      const bool in_place = which == kY && problem.in_place;
      const std::byte* const before = in_place ? problem.x.bytes().data() + place : filling.data();
      if (run.has(which) && std::memcmp(run.data(which) + place, before, size) != 0) {
        return std::string("wrote to ") + kOutputNames[which] + "[" + std::to_string(i) + "], which is in no part";
      }
    }
  }
  return "";
}

// Bits of a mask past the end of a run mean nothing.
bool same_mask(const Shape& shape, const std::uint8_t* a, const std::uint8_t* b) {
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    const std::int64_t bit = shape.mask_bit(i);
    if ((a[bit / 8] ^ b[bit / 8]) >> (bit % 8) & 1) return false;
  }
  return true;
}

// But for the bits of a NaN, which depend on the order of a product's factors.
bool same_numbers(Dtype dtype, const std::byte* a, const std::byte* b, std::size_t bytes) {
  if (bytes == 0 || std::memcmp(a, b, bytes) == 0) return true;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(bytes) / bytes_of(dtype); ++i) {
    const Real of_a = read(dtype, a, i), of_b = read(dtype, b, i);
    const bool same = std::isnan(of_a) ? std::isnan(of_b) : of_a == of_b && std::signbit(of_a) == std::signbit(of_b);
    if (!same) return false;
  }
  return true;
}

// `part` is all of `whole` again, or one sample of it.
std::string compare_bits(const Problem& problem, const Run& whole, const Run& part,
                         std::optional<std::int64_t> sample = {}) {
  for (int which = 0; which < kOutputs; ++which) {
    const auto output = static_cast<Output>(which);
    const bool of_all_samples = output == kDweight || output == kDbias;
    if (!whole.has(output) || (sample && of_all_samples)) continue;
    const std::size_t bytes = part.bytes(output);
    const std::byte* const a = whole.data(output) + static_cast<std::size_t>(sample.value_or(0)) * bytes;
    const bool elementwise = output == kY || output == kDx || output == kDresidual;
    const bool same = output == kMask ? same_mask(problem.shape, reinterpret_cast<const std::uint8_t*>(a),
                                                  reinterpret_cast<const std::uint8_t*>(part.data(output)))
                                      : same_numbers(elementwise ? problem.dtype : kWide, a, part.data(output), bytes);
    if (!same) return std::string("the bits of ") + kOutputNames[which] + " differ";
  }
  return "";
}

}  // namespace

std::string check(const Kernels& kernels, const Problem& problem, std::uint64_t seed) {
  Random random(seed ^ 0x5eed);
  Run first(problem, random);
  first.call(kernels, {1, 0});
  std::string wrong = first.strayed();
  if (wrong.empty()) wrong = compare_untouched(problem, first);
  if (wrong.empty()) wrong = compare_with_reference(problem, first);
  if (!wrong.empty()) return wrong;
  for (int i = 0; i < 2; ++i) {
    const Schedule schedule{random.one_of({1, 2, 3, 5}), random.bits()};
    Run again(problem, random);
    again.call(kernels, schedule);
    wrong = again.strayed();
    if (wrong.empty()) wrong = compare_bits(problem, first, again);
    if (!wrong.empty()) return wrong + " with " + std::to_string(schedule.threads) + " threads, or other alignments";
  }
  if (problem.shape.samples() > 1) {
    const std::int64_t index = random.below(problem.shape.samples());
    const Problem sample = sample_of(problem, index);
    Run alone(sample, random);
    alone.call(kernels, {1, 0});
    wrong = compare_bits(sample, first, alone, index);
    if (!wrong.empty()) return wrong + " where sample " + std::to_string(index) + " is by itself";
  }
  return "";
}

}  // namespace normwright::fuzz
