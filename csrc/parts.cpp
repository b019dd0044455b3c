// Parts: moments over some positions of each channel, by the kernels of channels.cpp with a table of what counts.

#include "columns.h"
#include "family.h"
#include "schedule.h"
#include "slabs.h"

namespace normwright::NORMWRIGHT_ISA {

namespace {

// Those of one part.
struct Spans {
  const Span* list;
  std::int64_t count;
  std::int64_t positions = 0;

  Spans(const Parts& shape, std::int64_t index) {
    const std::int64_t first = index ? shape.ends[index - 1] : 0;
    list = shape.spans + first;
    count = shape.ends[index] - first;
    for (std::int64_t i = 0; i < count; ++i) positions += list[i].length;
  }
};

// Short runs are taken together, as rows of columns.h, where all of a sample counts or nothing.
bool takes_rows(const Channels& whole, const Spans& part) {
  if (whole.inner >= kLongRun) return false;
  for (std::int64_t i = 0; i < part.count; ++i) {
    if (part.list[i].first % whole.inner || part.list[i].length % whole.inner) return false;
  }
  return true;
}

// What a part's spans are to slabs.h: a run for each sample that a span has a share in.
struct Runs {
  Scratch<Span> table;
  std::int64_t count = 0;

  Runs(const Channels& whole, const Spans& part) : table(most_runs(whole, part)) {
    for (std::int64_t i = 0; i < part.count; ++i) {
      const std::int64_t end = part.list[i].first + part.list[i].length;
      for (std::int64_t position = part.list[i].first; position < end;) {
        const std::int64_t sample = position / whole.inner, within = position % whole.inner;
        const std::int64_t length = least(whole.inner - within, end - position);
        table[count++] = {sample * whole.channels * whole.inner + within, length};
        position += length;
      }
    }
  }
  // From one run to the next, on the average.
  std::int64_t stride() const { return count > 1 ? (table[count - 1].first - table[0].first) / (count - 1) : 0; }

 private:
  static std::int64_t most_runs(const Channels& whole, const Spans& part) {
    std::int64_t runs = 0;
    for (std::int64_t i = 0; i < part.count; ++i) runs += part.list[i].length / whole.inner + 2;
    return runs;
  }
};

Slabs slabs_of(const Channels& whole, const Spans& part, const Runs& runs) {
  return {whole.channels, runs.count, whole.inner, whole.inner, runs.stride(), whole.channels, false, true,
          runs.table.get(), part.positions};
}

// What they are to columns.h: ranges of rows, joined where one follows another.
struct Ranges {
  Scratch<Span> table;
  std::int64_t count = 0, longest = 0;

  Ranges(const Channels& whole, const Spans& part) : table(part.count) {
    for (std::int64_t i = 0; i < part.count; ++i) {
      const Span rows{part.list[i].first / whole.inner, part.list[i].length / whole.inner};
      if (rows.length == 0) continue;
      const bool follows = count && table[count - 1].first + table[count - 1].length == rows.first;
      if (follows) {
        table[count - 1].length += rows.length;
      } else {
        table[count++] = rows;
      }
      longest = most(longest, table[count - 1].length);
    }
  }
};

Columns columns_of(const Channels& whole, const Spans& part, const Ranges& ranges) {
  return {1, part.positions / whole.inner, whole.channels, whole.inner, whole.channels, true,
          ranges.table.get(), ranges.count, ranges.longest};
}

void forward(const Channels& whole, const Spans& part, const Forward& call, const Parallel& parallel) {
  if (part.positions * whole.channels == 0) return without_elements(call, whole.channels);
  if (takes_rows(whole, part)) {
    const Ranges ranges(whole, part);
    return columns_forward(columns_of(whole, part, ranges), call, MomentsOf::batch, parallel);
  }
  const Runs runs(whole, part);
  slabs_forward(slabs_of(whole, part, runs), call, MomentsOf::batch, parallel);
}

void backward(const Channels& whole, const Spans& part, const Backward& call, const Parallel& parallel) {
  if (part.positions * whole.channels == 0) return without_elements(call, whole.channels);
  if (takes_rows(whole, part)) {
    const Ranges ranges(whole, part);
    return columns_backward(columns_of(whole, part, ranges), call, MomentsOf::batch, parallel);
  }
  const Runs runs(whole, part);
  slabs_backward(slabs_of(whole, part, runs), call, MomentsOf::batch, parallel);
}

// Calls act(part, its index, who works on it): each thread takes some of the parts where there are enough of them and none
// is too large; else all threads take one part after the other.
template <class Act>
void for_each_part(const Parts& shape, const Parallel& parallel, const Act& act) {
  std::int64_t largest = 0, positions = 0;
  for (std::int64_t p = 0; p < shape.parts; ++p) {
    const Spans part(shape, p);
    largest = most(largest, part.positions);
    positions += part.positions;
  }
  if (shape.parts < 2 * parallel.threads || largest * parallel.threads > positions) {
    for (std::int64_t p = 0; p < shape.parts; ++p) act(Spans(shape, p), p, parallel);
    return;
  }
  Parallel alone = parallel;
  alone.threads = 1;
  for_each_index(threads_for(parallel, positions * shape.whole.channels), shape.parts, Order::forwards,
                 [&](std::int64_t p) { act(Spans(shape, p), p, alone); });
}

}  // namespace

void parts_forward(const Parts& shape, const Forward& call, const Parallel& parallel) {
  for_each_part(shape, parallel, [&](const Spans& part, std::int64_t index, const Parallel& threads) {
    Forward own = call;
    for (double** values : {&own.mean, &own.rstd, &own.variance}) {
      if (*values) *values += index * shape.whole.channels;
    }
    forward(shape.whole, part, own, threads);
  });
}

// The gradient of each parameter is summed over the parts, in order.
void parts_backward(const Parts& shape, const Backward& call, const Parallel& parallel) {
  const std::int64_t channels = shape.whole.channels;
  const Scratch<double> dweight(call.dweight ? shape.parts * channels : 0);
  const Scratch<double> dbias(call.dbias ? shape.parts * channels : 0);
  for_each_part(shape, parallel, [&](const Spans& part, std::int64_t index, const Parallel& threads) {
    Backward own = call;
    own.mean += index * channels;
    own.rstd += index * channels;
    if (call.dweight) own.dweight = dweight.get() + index * channels;
    if (call.dbias) own.dbias = dbias.get() + index * channels;
    backward(shape.whole, part, own, threads);
  });
  const auto gather = [&](double* gradient, const Scratch<double>& of_parts) {
    for (std::int64_t c = 0; gradient && c < channels; ++c) {
      gradient[c] = 0;
      for (std::int64_t p = 0; p < shape.parts; ++p) gradient[c] += of_parts[p * channels + c];
    }
  };
  gather(call.dweight, dweight);
  gather(call.dbias, dbias);
}

}  // namespace normwright::NORMWRIGHT_ISA
