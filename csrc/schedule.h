// Who works on what, and when.
//
// The work is blocks, whose moments are independent, each cut into pieces by shape alone. A block goes
// through `partial` for every piece, then `finish`, then `apply` for every piece. Where there are enough
// blocks for the threads, a thread takes a block from end to end, so that `apply` finds in the cache what
// `partial` has read; otherwise all threads sweep over the pieces of all blocks, twice. Either way `apply`
// goes backwards, since what was read last is the likeliest to be cached still. The bits are the same.

#pragma once

#include <cstddef>
#include <new>
#include <vector>

#include "kernels.h"
#include "pack.h"

namespace normwright::NORMWRIGHT_ISA {

// Work on fewer elements than this costs less than waking a thread.
constexpr std::int64_t kWorthThreads = 1 << 15;

// What a thread may count on of the cache that is its own.
constexpr std::int64_t kSecondCache = std::int64_t{1} << 20;

inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline std::int64_t most(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
inline std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Memory for a call. The contents are not set. (Not a class of the standard library: the linker could take
// its code, built for one instruction set, for all.)
template <class Value>
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(std::int64_t count)
      : values_(static_cast<Value*>(::operator new(static_cast<std::size_t>(count) * sizeof(Value), kAlignment))) {}
  Scratch(Scratch&& other) noexcept : values_(other.values_) { other.values_ = nullptr; }
  Scratch& operator=(Scratch&& other) noexcept {
    Value* const values = values_;
    values_ = other.values_;
    other.values_ = values;
    return *this;
  }
  ~Scratch() {
    if (values_) ::operator delete(values_, kAlignment);
  }

  Value* get() const { return values_; }
  Value& operator[](std::int64_t i) const { return values_[i]; }

 private:
  static constexpr std::align_val_t kAlignment{64};  // of a pack, so that none is in two lines of the cache
  Value* values_ = nullptr;
};

// The same for a block, which has thousands of likes: what is small needs no allocation, and no clearing either.
template <class Value>
class BlockScratch {
 public:
  explicit BlockScratch(std::int64_t count) : large_(count > kSmall ? Scratch<Value>(count) : Scratch<Value>()) {}

  Value& operator[](std::int64_t i) { return large_.get() ? large_[i] : reinterpret_cast<Value*>(small_)[i]; }
  const Value& operator[](std::int64_t i) const {
    return large_.get() ? large_[i] : reinterpret_cast<const Value*>(small_)[i];
  }

 private:
  static constexpr std::int64_t kSmall = 32;
  Scratch<Value> large_;
  alignas(Value) unsigned char small_[kSmall * sizeof(Value)];
};

enum class Order { forwards, backwards };

// Calls function(i) for every i below count; each thread takes a range.
template <class Function>
inline void for_each_index(const Parallel& parallel, std::int64_t count, Order order, const Function& function) {
  struct Context {
    std::int64_t count, ranges;
    Order order;
    const Function* function;
  };
  Context context{count, least(count, parallel.threads), order, &function};
  const auto range = [](void* opaque, std::int64_t k) {
    const Context& c = *static_cast<const Context*>(opaque);
    const std::int64_t low = k * c.count / c.ranges, high = (k + 1) * c.count / c.ranges;
    if (c.order == Order::forwards) {
      for (std::int64_t i = low; i < high; ++i) (*c.function)(i);
    } else {
      for (std::int64_t i = high; i-- > low;) (*c.function)(i);
    }
    end_streaming();
  };
  if (context.ranges == 1) {
    range(&context, 0);
  } else if (context.ranges > 1) {
    parallel.run(context.ranges, range, &context);
  }
}

// Parallel, or one thread where the work is too small for more.
inline Parallel threads_for(const Parallel& parallel, std::int64_t elements) {
  Parallel result = parallel;
  if (elements < kWorthThreads) result.threads = 1;
  return result;
}

// `make(b)` returns block b.
template <class Make>
inline void run_blocks(const Parallel& parallel, std::int64_t blocks, std::int64_t pieces, const Make& make) {
  if (pieces == 1 || parallel.threads == 1 || blocks >= 2 * parallel.threads) {
    for_each_index(parallel, blocks, Order::forwards, [&](std::int64_t b) {
      auto block = make(b);
      for (std::int64_t piece = 0; piece < pieces; ++piece) block.partial(piece);
      block.finish();
      for (std::int64_t piece = pieces; piece-- > 0;) block.apply(piece);
    });
    return;
  }
  std::vector<decltype(make(0))> all;
  all.reserve(static_cast<std::size_t>(blocks));
  for (std::int64_t b = 0; b < blocks; ++b) all.push_back(make(b));
  const auto block = [&](std::int64_t i) -> auto& { return all[static_cast<std::size_t>(i)]; };
  const std::int64_t tasks = blocks * pieces;
  for_each_index(parallel, tasks, Order::forwards, [&](std::int64_t i) { block(i / pieces).partial(i % pieces); });
  for_each_index(parallel, blocks, Order::forwards, [&](std::int64_t b) { block(b).finish(); });
  for_each_index(parallel, tasks, Order::backwards, [&](std::int64_t i) { block(i / pieces).apply(i % pieces); });
}

}  // namespace normwright::NORMWRIGHT_ISA
