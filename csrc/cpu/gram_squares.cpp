// Quadratic forms of per-task gradients in the Gram matrix of a layer's inputs.
#include <algorithm>
#include <cstring>

#include "cpu/memory.h"
#include "cpu/parallel.h"
#include "cpu/table.h"
#include "cpu/vector.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

constexpr int tile_rows = vector_bytes == 64 ? 4 : 3;
constexpr int tile_columns = vector_bytes == 64 ? 6 : 4;
constexpr std::int64_t panel = 24;  // rows of d that stay in the L1 cache
static_assert(panel % tile_columns == 0 && panel % tile_rows == 0, "a panel is whole tiles");

template <class Real>
constexpr std::int64_t row_length = 1024 / sizeof(Real);  // of d, packed

// total += sum over a tile of weights[n, m] * a[n] * b[m], by lanes.
template <class Real>
inline void add_tile(const Real* a,        // (tile_rows, depth)
                     const Real* b,        // (tile_columns, depth)
                     std::int64_t depth,   // a multiple of the vectors' width
                     const Real* weights,  // (tile_rows, tile_columns)
                     std::int64_t stride,  // between rows of the weights
                     std::int64_t rows,    // of the weights that exist; d has zeros beyond
                     std::int64_t columns, typename Lanes<Real>::Vector& total) {
  using Vector = typename Lanes<Real>::Vector;
  constexpr std::int64_t length = row_length<Real>;
  Vector dots[tile_rows][tile_columns] = {};
  for (std::int64_t k = 0; k < depth; k += Lanes<Real>::width) {
    Vector left[tile_rows];
    for (int r = 0; r < tile_rows; ++r) left[r] = load_vector(a + r * length + k);
    for (int c = 0; c < tile_columns; ++c) {
      const Vector right = load_vector(b + c * length + k);
      for (int r = 0; r < tile_rows; ++r) dots[r][c] += left[r] * right;
    }
  }
  for (int r = 0; r < tile_rows; ++r)
    for (int c = 0; c < tile_columns; ++c) {
      const std::int64_t n = std::min<std::int64_t>(r, rows - 1);
      const std::int64_t m = std::min<std::int64_t>(c, columns - 1);
      total += weights[n * stride + m] * dots[r][c];
    }
}

// Columns [begin, end) of all rows of d as Real, zero beyond either edge.
template <class Real>
void pack(const GramSquares& args, std::int64_t task, std::int64_t begin, std::int64_t end,
          std::int64_t padded, Real* packed) {
  constexpr std::int64_t length = row_length<Real>;
  const std::int64_t count = end - begin;
  for (std::int64_t n = 0; n < args.samples; ++n) {
    const std::int64_t first = (task * args.samples + n) * args.outputs + begin;
    Real* row = packed + n * length;
    const Real* values = load(at(args.grads, args.dtype, first), args.dtype, count, row);
    if (values != row) std::memcpy(row, values, std::size_t(count) * sizeof(Real));
    std::fill(row + count, row + length, Real(0));
  }
  std::fill(packed + args.samples * length, packed + padded * length, Real(0));
}

template <class Real>
double lower_triangle(const Real* packed, const Real* weights, std::int64_t samples,
                      std::int64_t depth) {
  using Vector = typename Lanes<Real>::Vector;
  constexpr std::int64_t length = row_length<Real>, width = Lanes<Real>::width;
  double sums[width] = {};
  for (std::int64_t first = 0; first < samples; first += panel) {
    const std::int64_t last = std::min(first + panel, samples);
    for (std::int64_t n = first / tile_rows * tile_rows; n < samples; n += tile_rows) {
      Vector total = {};
      for (std::int64_t m = first; m < std::min(last, n + tile_rows); m += tile_columns)
        add_tile(packed + n * length, packed + m * length, depth, weights + n * samples + m,
                 samples, samples - n, samples - m, total);
      for (std::int64_t i = 0; i < width; ++i) sums[i] += double(total[i]);
    }
  }
  double sum = 0;
  for (std::int64_t i = 0; i < width; ++i) sum += sums[i];
  return sum;
}

template <class Real>
void squares(const GramSquares& args) {
  constexpr std::int64_t length = row_length<Real>, width = Lanes<Real>::width;
  const std::int64_t blocks = (args.outputs + length - 1) / length;
  const std::int64_t padded = args.samples + tile_rows + tile_columns;
  const std::int64_t items = args.tasks * blocks;
  Scratch<double> partial(items);
  parallel_for(items, args.threads, args.samples * args.samples * 4, [&](std::int64_t item) {
    const std::int64_t task = item / blocks, begin = item % blocks * length;
    const std::int64_t end = std::min(begin + length, args.outputs);
    Scratch<Real> packed(padded * length);
    pack(args, task, begin, end, padded, packed.get());
    const Real* weights = static_cast<const Real*>(args.weights) + task * args.task_stride;
    const std::int64_t depth = (end - begin + width - 1) / width * width;
    partial[item] = lower_triangle(packed.get(), weights, args.samples, depth);
  });
  Real* out = static_cast<Real*>(args.out);
  for (std::int64_t t = 0; t < args.tasks; ++t) {
    double sum = 0;
    for (std::int64_t b = 0; b < blocks; ++b) sum += partial[t * blocks + b];
    out[t] = Real(sum);
  }
}

}  // namespace

void gram_squares(const GramSquares& args) {
  with_accumulated(args.dtype, [&](auto real) { squares<decltype(real)>(args); });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
