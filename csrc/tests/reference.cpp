#include "reference.h"

#include <algorithm>
#include <cstddef>

namespace normwright::fuzz {
namespace {

// Statistics and parameters' gradients are summed in double, whatever the dtype.
constexpr Real kDouble = 0x1p-53L;

// A sum of n terms in any order is off by at most n·u·Σ|term|; a few more roundings are in the terms.
Real summing(Real n) { return (n + 8) * kDouble; }

// The roundings, in the type that elements are computed in, on the longest way from x to z or to dx: of
// x − mean, rstd, weight and their products, of the two sums that follow, and of constants that take in the
// rest of the mean. Each is of a value no larger than the sum of the magnitudes of the terms.
constexpr Real kRoundings = 8;

Real at(const std::optional<Values>& values, std::int64_t i, Real none) { return values ? (*values)[i] : none; }

}  // namespace

MomentsOfX moments_of(const Shape& shape, const Values& x) {
  const auto moments = static_cast<std::size_t>(shape.moments());
  MomentsOfX result{Reals(moments), Reals(moments), Reals(moments), Reals(moments), Reals(moments)};
  // Calls visit(moment, x of one of its elements).
  const auto for_each = [&](auto&& visit) {
    for (std::int64_t i = 0; i < x.count(); ++i) {
      const std::int64_t m = shape.moment_of(i);
      if (m != kNowhere) visit(static_cast<std::size_t>(m), x[i]);
    }
  };
  const bool centered = shape.centered();

  // Shifted by an element, so that a constant has deviations of exactly 0.
  Reals shift(moments), total(moments), farthest(moments), distance(moments), shifted_squares(moments);
  std::vector<bool> met(moments), finite(moments, true);
  for_each([&](std::size_t m, Real value) {
    if (!met[m]) shift[m] = value;
    met[m] = true;
    ++result.count[m];
    if (!std::isfinite(value)) finite[m] = false;
    if (centered) total[m] += value - shift[m];
  });
  for (std::size_t m = 0; m < moments && centered; ++m) result.mean[m] = shift[m] + total[m] / result.count[m];
  for_each([&](std::size_t m, Real value) {
    const Real t = value - result.mean[m];
    result.m2[m] += t * t;
    distance[m] += std::abs(t);
    farthest[m] = std::max(farthest[m], std::abs(t));
  });
  for (std::size_t m = 0; m < moments; ++m) {
    const Real count = result.count[m];
    if (centered && !finite[m]) result.mean[m] = result.m2[m] = std::numeric_limits<Real>::quiet_NaN();
    if (!centered) {
      result.m2_error[m] = summing(count) * result.m2[m];
      continue;
    }
    // The kernels sum x − s, s being an element; what is merged into the mean is no larger than the largest x.
    const Real largest = std::abs(result.mean[m]) + farthest[m];
    const Real mean_error = 3 * kDouble * largest + summing(count) * (distance[m] / count + farthest[m]);
    // Σ(x − s)² − (Σ(x − s))²/m: neither is larger than the first. s is an element, or, where x is double, the
    // mean, as exactly as it is known.
    const Real off = x.dtype() == Dtype::float64 ? mean_error : farthest[m];
    const Real squares = result.m2[m] + count * off * off;
    // Moments are merged by the differences of their means, each of which is off.
    const Real merging = 2 * mean_error * std::sqrt(count * result.m2[m]) + count * mean_error * mean_error;
    result.mean_error[m] = mean_error;
    result.m2_error[m] = 3 * summing(count) * squares + merging;
  }
  return result;
}

Estimate rstd_of(const MomentsOfX& moments, std::size_t m, Real eps) {
  const Real variance = moments.m2[m] / moments.count[m], error = moments.m2_error[m] / moments.count[m];
  const Real rstd = 1 / std::sqrt(variance + eps);
  const Real most = 1 / std::sqrt(std::max(variance - error, Real{0}) + eps);
  const Real least = 1 / std::sqrt(variance + error + eps);
  return {rstd, std::max(most - rstd, rstd - least) + 4 * kDouble * rstd};
}

Estimate before_activation(const Problem& problem, const Reals& mean, const Reals& rstd, std::int64_t i) {
  const Real u = unit_of(problem.dtype);
  const auto m = static_cast<std::size_t>(problem.shape.moment_of(i));
  const std::int64_t p = problem.shape.parameter_of(i);
  const Real weight = at(problem.weight, p, 1), bias = at(problem.bias, p, 0), residual = at(problem.residual, i, 0);
  const Real t = problem.x[i] - mean[m];
  // The mean is subtracted in two parts, the second at most u of it.
  const Real size = (std::abs(t) + u * std::abs(mean[m])) * rstd[m] * std::abs(weight);
  const Real error = kRoundings * u * (size + std::abs(bias) + std::abs(residual));
  return {t * rstd[m] * weight + bias + residual, error + least_normal_of(problem.dtype) * (1 + std::abs(t) * rstd[m])};
}

namespace {

// dz, without the mask that there may be.
Estimate gradient_of_z(const Problem& problem, const Reals& mean, const Reals& rstd, std::int64_t i) {
  const Real u = unit_of(problem.dtype), dy = problem.dy[i];
  if (problem.mask) {
    const std::int64_t bit = problem.shape.mask_bit(i);
    const auto byte = std::to_integer<unsigned>((*problem.mask)[static_cast<std::size_t>(bit / 8)]);
    return through_slope(problem.activation, dy, byte >> (bit % 8) & 1, u);
  }
  const Estimate z = before_activation(problem, mean, rstd, i);
  return through_activation(problem.activation, dy, z.value, z.error, u);
}

// Rows with a parameter for each element or short segment add up to four terms of a parameter's gradient, and of the sum
// that the mean's share of dx is, in the type of the elements; these are summed in double then.
Real roundings_of_four(const Shape& shape, Real u) {
  const Rows* const rows = std::get_if<Rows>(&shape.of);
  return rows && rows->segment < kLongRun ? 3 * u : 0;
}

// A sum of terms that are known to within an error each, taken in double.
struct Sum {
  Real value = 0, of_errors = 0, of_sizes = 0, count = 0;

  void add(Real term, Real error) {
    value += term;
    of_errors += error;
    of_sizes += std::abs(term);
    ++count;
  }
  Real error() const { return of_errors + summing(count) * of_sizes; }
  Estimate estimate() const { return {value, error()}; }
};

}  // namespace

Gradients gradients_of(const Problem& problem) {
  const Shape& shape = problem.shape;
  const auto elements = static_cast<std::size_t>(shape.elements());
  const auto moments = static_cast<std::size_t>(shape.moments());
  const auto parameters = static_cast<std::size_t>(shape.parameters());
  const Real u = unit_of(problem.dtype), least = least_normal_of(problem.dtype);
  Reals mean(moments), rstd(moments);
  for (std::size_t m = 0; m < moments; ++m) {
    if (shape.centered()) mean[m] = problem.mean[static_cast<std::int64_t>(m)];
    rstd[m] = problem.rstd[static_cast<std::int64_t>(m)];
  }

  struct Element {
    std::size_t moment, parameter;
    bool counts;
    Real x_hat, size, weight;  // size: of x̂, with the rest of the mean
    Estimate dz;
  };
  const auto element = [&](std::size_t i) {
    const auto index = static_cast<std::int64_t>(i);
    Element e{};
    e.counts = shape.moment_of(index) != kNowhere;
    if (!e.counts) return e;
    e.moment = static_cast<std::size_t>(shape.moment_of(index));
    e.parameter = static_cast<std::size_t>(shape.parameter_of(index));
    const Real t = problem.x[index] - mean[e.moment];
    e.x_hat = t * rstd[e.moment];
    e.size = (std::abs(t) + u * std::abs(mean[e.moment])) * rstd[e.moment];
    e.weight = at(problem.weight, static_cast<std::int64_t>(e.parameter), 1);
    e.dz = gradient_of_z(problem, mean, rstd, index);
    return e;
  };
  // What x̂ loses on the way into a product.
  const auto product_error = [&](const Element& e, Real dz, Real dz_error) {
    return dz_error * e.size + kRoundings * u * std::abs(dz) * e.size;
  };

  std::vector<Sum> dweight(parameters), dbias(parameters), g_sum(moments), g_x_sum(moments);
  const Real rounded = roundings_of_four(shape, u);
  std::vector<Element> all(elements);
  Reals count(moments);
  for (std::size_t i = 0; i < elements; ++i) {
    const Element& e = all[i] = element(i);
    if (!e.counts) continue;
    ++count[e.moment];
    const Real dz = e.dz.value, dz_x = dz * e.x_hat;
    dweight[e.parameter].add(dz_x, product_error(e, dz, e.dz.error) + rounded * std::abs(dz) * e.size);
    dbias[e.parameter].add(dz, e.dz.error + rounded * std::abs(dz));
    if (problem.known_moments()) continue;
    const Real g = e.dz.value * e.weight, g_error = e.dz.error * std::abs(e.weight) + 2 * u * std::abs(g);
    if (shape.centered()) g_sum[e.moment].add(g, g_error + rounded * std::abs(g));
    g_x_sum[e.moment].add(g * e.x_hat, product_error(e, g, g_error));
  }

  Gradients result;
  for (std::size_t p = 0; p < parameters; ++p) {
    result.dweight.push_back(dweight[p].estimate());
    result.dbias.push_back(dbias[p].estimate());
  }
  for (const Element& e : all) {
    result.dresidual.push_back(e.dz);
    if (!e.counts) {
      result.dx.push_back({});
      continue;
    }
    const Real r = rstd[e.moment], g = e.dz.value * e.weight;
    const Real m = count[e.moment];
    const Real g_mean = g_sum[e.moment].value / m, g_x_mean = g_x_sum[e.moment].value / m;
    const Real sizes = std::abs(g) + std::abs(g_mean) + e.size * std::abs(g_x_mean);
    const Real errors = e.dz.error * std::abs(e.weight) + g_sum[e.moment].error() / m +
                        e.size * g_x_sum[e.moment].error() / m;
    // Below the least normal number a factor loses all its digits, whatever it is multiplied with.
    const Real underflow = kRoundings * least * (1 + std::abs(e.dz.value) + e.size);
    result.dx.push_back({r * (g - g_mean - e.x_hat * g_x_mean), r * (kRoundings * u * sizes + errors) + underflow});
  }
  return result;
}

namespace {

// alpha·x is rounded once, by u of itself, of which tanh passes on at most u of its own value: z·tanh'(z) ≤ tanh(z).
Estimate tanh_at(const Problem& problem, std::int64_t i) {
  const Real u = unit_of(problem.dtype), z = static_cast<Real>(problem.alpha) * problem.x[i];
  Estimate t = activated(Activation::tanh, z, 0, u);
  t.error += u * std::abs(t.value) + least_normal_of(problem.dtype);
  return t;
}

}  // namespace

Estimates squashed(const Problem& problem) {
  const Real u = unit_of(problem.dtype), least = least_normal_of(problem.dtype);
  Estimates y;
  for (std::int64_t i = 0; i < problem.shape.elements(); ++i) {
    const std::int64_t p = problem.shape.parameter_of(i);
    const Real weight = at(problem.weight, p, 1), bias = at(problem.bias, p, 0);
    const Estimate t = tanh_at(problem, i);
    const Real size = std::abs(t.value * weight) + std::abs(bias);
    y.push_back({t.value * weight + bias, std::abs(weight) * t.error + 2 * u * size + least});
  }
  return y;
}

TanhGradients tanh_gradients_of(const Problem& problem) {
  const Shape& shape = problem.shape;
  const Real u = unit_of(problem.dtype), least = least_normal_of(problem.dtype);
  const Real alpha = static_cast<Real>(problem.alpha);
  // Rows of short runs are added up four at a time in the type of the elements.
  const Real together = std::get<Channels>(shape.of).inner < kLongRun ? 4 * u : 0;
  std::vector<Sum> dweight(static_cast<std::size_t>(shape.parameters())), dbias = dweight;
  Sum dalpha;
  TanhGradients result;
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    const auto p = static_cast<std::size_t>(shape.parameter_of(i));
    const Real x = problem.x[i], dy = problem.dy[i], weight = at(problem.weight, shape.parameter_of(i), 1);
    const Estimate t = tanh_at(problem, i);
    // 1 − t² with a rounding; dy times that with another.
    const Real cosh = std::cosh(alpha * x), slope = 1 / (cosh * cosh);
    const Real dz = dy * slope, dz_error = std::abs(dy) * (2 * std::abs(t.value) * t.error + u) + u * std::abs(dz) + least;
    const Real dx = dz * alpha * weight;
    const Real dx_error = std::abs(alpha * weight) * dz_error + 2 * u * std::abs(dx) + least * (1 + std::abs(dz));
    result.dx.push_back({dx, dx_error});
    dweight[p].add(dy * t.value, std::abs(dy) * t.error + together * std::abs(dy * t.value));
    dbias[p].add(dy, together * std::abs(dy));
    dalpha.add(weight * dz * x, std::abs(weight * x) * dz_error);
  }
  for (std::size_t p = 0; p < dweight.size(); ++p) {
    result.dweight.push_back(dweight[p].estimate());
    result.dbias.push_back(dbias[p].estimate());
  }
  result.dalpha = dalpha.estimate();
  return result;
}

}  // namespace normwright::fuzz
