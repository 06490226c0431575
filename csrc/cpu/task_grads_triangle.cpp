// Half of the Gram matrix of a layer's inputs.
#include "cpu/parallel.h"
#include "cpu/range.h"
#include "cpu/task_grads_tile.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

// Where a part of the columns of a lower triangle begins.
std::int64_t part_begin(std::int64_t samples, std::int64_t index, std::int64_t parts) {
  const std::int64_t column = samples - lower_rows(samples, parts - index, parts);
  return index == parts ? samples : column / tile_columns * tile_columns;
}

// Adds the products of one block of columns of the inputs to columns [first, last) of out.
template <class Real>
void add_products(const Real* packed,  // (padded_rows, packed_columns)
                  std::int64_t samples, std::int64_t depth, std::int64_t first, std::int64_t last,
                  Real* out) {  // (N, N)
  constexpr std::int64_t length = packed_columns<Real>;
  for (std::int64_t n = first / tile_rows * tile_rows; n < samples; n += tile_rows)
    for (std::int64_t m = first; m < std::min(last, n + tile_rows); m += tile_columns)
      multiply_tile(packed + n * length, packed + m * length, depth,
                    [&](std::int64_t r, std::int64_t c, typename Lanes<Real>::Vector products) {
                      const std::int64_t row = n + r, column = m + c;
                      if (row >= samples || column >= last || column > row) return;
                      const Real sum = sum_lanes<Real>(products);
                      out[row * samples + column] += row == column ? sum / 2 : sum;
                    });
}

// The inputs' blocks of columns, divided by the scales, which are found here.
template <class Real>
void pack(const TaskGradsTriangle& args, std::int64_t blocks,
          Real* packed) {  // (matrices, blocks, padded_rows, packed_columns)
  constexpr std::int64_t length = packed_columns<Real>;
  const std::int64_t samples = args.samples, features = args.features;
  const std::int64_t items = args.matrices * blocks, size = padded_rows(samples) * length;
  Scratch<Real> largest(items);
  parallel_for(items, args.threads, samples * length / 32, [&](std::int64_t item) {
    const std::int64_t matrix = item / blocks, begin = item % blocks * length;
    pack_rows(at(args.inputs, args.dtype, matrix * samples * features), args.dtype, samples,
              features, begin, std::min(begin + length, features), packed + item * size);
    largest[item] = largest_size(packed + item * size, samples * length);
  });
  Real* scales = static_cast<Real*>(args.scale);
  for (std::int64_t matrix = 0; matrix < args.matrices; ++matrix) {
    const Real* sizes = largest.get() + matrix * blocks;
    scales[matrix] = scale_of(largest_size(sizes, blocks));
    divide_all(packed + matrix * blocks * size, blocks * size, scales[matrix]);
  }
}

template <class Real>
void triangle(const TaskGradsTriangle& args) {
  constexpr std::int64_t length = packed_columns<Real>;
  const std::int64_t samples = args.samples, features = args.features;
  const std::int64_t blocks = (features + length - 1) / length;
  const std::int64_t block_size = padded_rows(samples) * length;
  Scratch<Real> packed(args.matrices * blocks * block_size);
  pack(args, blocks, packed.get());
  const std::int64_t parts = args.threads;
  const std::int64_t cost = samples * samples * features / (64 * parts) + 1;
  parallel_for(args.matrices * parts, args.threads, cost, [&](std::int64_t item) {
    const std::int64_t matrix = item / parts, part = item % parts;
    const std::int64_t begin = part_begin(samples, part, parts);
    const std::int64_t end = part_begin(samples, part + 1, parts);
    Real* out = static_cast<Real*>(args.out) + matrix * samples * samples;
    for (std::int64_t n = 0; n < samples; ++n)
      std::fill(out + n * samples + begin, out + n * samples + end, Real(0));
    for (std::int64_t first = begin; first < end; first += panel_rows)
      for (std::int64_t b = 0; b < blocks; ++b)
        add_products(packed.get() + (matrix * blocks + b) * block_size, samples,
                     whole_vectors<Real>(std::min(length, features - b * length)), first,
                     std::min(first + panel_rows, end), out);
  });
}

}  // namespace

void task_grads_triangle(const TaskGradsTriangle& args) {
  with_accumulated(args.dtype, [&](auto real) { triangle<decltype(real)>(args); });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
