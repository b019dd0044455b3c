// What the kernels need to know of PyTorch's tensors: their memory order, and memory for results.

#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "kernels.h"
#include "pages.h"

namespace normwright {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

inline std::span<const std::int64_t> sizes_of(const Tensor& t) {
  std::int64_t* sizes;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(t.get(), &sizes));
  return {sizes, static_cast<std::size_t>(t.dim())};
}

inline std::span<const std::int64_t> strides_of(const Tensor& t) {
  std::int64_t* strides;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(t.get(), &strides));
  return {strides, static_cast<std::size_t>(t.dim())};
}

inline std::int64_t product(std::span<const std::int64_t> sizes) {
  std::int64_t result = 1;
  for (const std::int64_t size : sizes) result *= size;
  return result;
}

// Of a tensor that checks.h let pass.
inline Dtype dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Double:
      return Dtype::float64;
    case ScalarType::BFloat16:
      return Dtype::bfloat16;
    case ScalarType::Half:
      return Dtype::float16;
    default:
      return Dtype::float32;
  }
}

inline ScalarType compute_type(Dtype dtype) {
  return dtype == Dtype::float64 ? ScalarType::Double : ScalarType::Float;
}

// ---- Memory order

// Whether the axes, from the slowest to the quickest, fill memory without a gap. An axis of one element may
// have any stride. `block` is what the quickest axis steps over.
inline bool is_dense(const Tensor& t, std::span<const std::int64_t> order, std::int64_t block = 1) {
  const auto sizes = sizes_of(t), strides = strides_of(t);
  for (std::size_t i = order.size(); i-- > 0;) {
    const auto axis = static_cast<std::size_t>(order[i]);
    if (sizes[axis] != 1 && strides[axis] != block) return false;
    block *= sizes[axis];
  }
  return true;
}

inline std::vector<std::int64_t> axes(std::int64_t first, std::int64_t last) {
  std::vector<std::int64_t> result;
  for (std::int64_t axis = first; axis < last; ++axis) result.push_back(axis);
  return result;
}

inline bool is_channels_last(const Tensor& t) {
  if (t.dim() < 3) return false;
  std::vector<std::int64_t> order = axes(0, t.dim());
  order.erase(order.begin() + 1);
  order.push_back(1);
  return is_dense(t, order);
}

// Whether t lies in memory with these strides.
inline bool has_strides(const Tensor& t, std::span<const std::int64_t> strides) {
  const auto sizes = sizes_of(t), own = strides_of(t);
  for (std::size_t axis = 0; axis < sizes.size(); ++axis) {
    if (sizes[axis] != 1 && own[axis] != strides[axis]) return false;
  }
  return true;
}

// Whether two tensors of one shape lie in memory alike.
inline bool same_memory(const Tensor& a, const Tensor& b) { return has_strides(a, strides_of(b)); }

// Whether two dense tensors have no memory in common.
inline bool are_apart(const Tensor& a, const Tensor& b) {
  const auto begin = [](const Tensor& t) { return reinterpret_cast<std::uintptr_t>(t.const_data_ptr()); };
  const auto end = [&](const Tensor& t) {
    return begin(t) + static_cast<std::uintptr_t>(t.numel()) * t.element_size();
  };
  return end(a) <= begin(b) || end(b) <= begin(a);
}

// Whether two dense tensors of one size are the same memory, or have none in common.
inline bool same_or_apart(const Tensor& a, const Tensor& b) {
  return a.const_data_ptr() == b.const_data_ptr() || are_apart(a, b);
}

// ---- Memory

inline Tensor empty_strided(std::span<const std::int64_t> sizes, std::span<const std::int64_t> strides,
                            ScalarType dtype) {
  AtenTensorHandle handle;
  std::int32_t type = 0;
  switch (dtype) {
    case ScalarType::Double:
      type = aoti_torch_dtype_float64();
      break;
    case ScalarType::BFloat16:
      type = aoti_torch_dtype_bfloat16();
      break;
    case ScalarType::Half:
      type = aoti_torch_dtype_float16();
      break;
    case ScalarType::Byte:
      type = aoti_torch_dtype_uint8();
      break;
    default:
      type = aoti_torch_dtype_float32();
  }
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<std::int64_t>(sizes.size()), sizes.data(),
                                                  strides.data(), type, aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

inline Tensor empty(std::span<const std::int64_t> sizes, ScalarType dtype) {
  std::vector<std::int64_t> strides(sizes.size());
  std::int64_t step = 1;
  for (std::size_t axis = sizes.size(); axis-- > 0;) {
    strides[axis] = step;
    step *= sizes[axis] > 1 ? sizes[axis] : 1;
  }
  return empty_strided(sizes, strides, dtype);
}

// Memory like that of `model`, ready to be written: see pages.h. `stream` stays true only if all of it is to be
// stored around the cache.
inline Tensor result_like(const Tensor& model, bool& stream) {
  Tensor result = empty_strided(sizes_of(model), strides_of(model), model.scalar_type());
  const auto bytes = static_cast<std::size_t>(result.numel()) * result.element_size();
  if (!prepare(result.mutable_data_ptr(), bytes)) stream = false;
  return result;
}

inline void fill_with_zeros(const Tensor& t) {
  std::memset(t.mutable_data_ptr(), 0, static_cast<std::size_t>(t.numel()) * t.element_size());
}

// `value` where it has the dtype and the strides of `torch.empty_like(x)`, else a copy that has.
inline Tensor in_the_likeness_of(const Tensor& x, const Tensor& value) {
  Tensor model = torch::stable::empty_like(x);
  if (model.scalar_type() == value.scalar_type() && same_memory(model, value)) return value;
  return torch::stable::copy_(model, value);
}

inline Tensor converted(const Tensor& t, ScalarType dtype) {
  return t.scalar_type() == dtype ? t : torch::stable::to(t, dtype);
}

// A vector of parameters or of moments, contiguous and in `dtype`.
inline MaybeTensor vector_of(const MaybeTensor& t, ScalarType dtype) {
  if (!t) return std::nullopt;
  const Tensor same = converted(*t, dtype);
  return same.is_contiguous() ? same : torch::stable::contiguous(same);
}

// The elements of a vector, in double.
inline std::vector<double> doubles_of(const Tensor& t) {
  std::vector<double> values(static_cast<std::size_t>(t.numel()));
  const Tensor vector = *vector_of(t, t.scalar_type() == ScalarType::Float ? ScalarType::Float : ScalarType::Double);
  if (vector.scalar_type() == ScalarType::Float) {
    std::copy_n(static_cast<const float*>(vector.const_data_ptr()), values.size(), values.begin());
  } else {
    std::copy_n(static_cast<const double*>(vector.const_data_ptr()), values.size(), values.begin());
  }
  return values;
}

template <class Value = void>
const Value* data(const MaybeTensor& t) {
  return t ? static_cast<const Value*>(t->const_data_ptr()) : nullptr;
}

// x in the dtype that it and the residual are computed in, where that is another than x's.
inline Tensor with_room_for(const Tensor& x, const MaybeTensor& residual) {
  if (!residual || residual->scalar_type() == x.scalar_type()) return x;
  const bool wide = x.scalar_type() == ScalarType::Double || residual->scalar_type() == ScalarType::Double;
  return converted(x, wide ? ScalarType::Double : ScalarType::Float);
}

}  // namespace normwright
