// Strips of a gradient, as many columns as a block of accumulators has, and their products with a
// triangle.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "cpu/memory.h"
#include "cpu/range.h"
#include "cpu/vector.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

template <class Real>
constexpr std::int64_t strip_columns = Lanes<Real>::block_columns;

// Columns [begin, end) of the first rows of `matrix` as Real, multiplied by `scale`, and zeros
// beyond the columns.
template <class Real>
inline void pack_strip(const void* matrix,  // (N, columns) dtype
                       DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t begin,
                       std::int64_t end, Real scale,
                       Real* strip) {  // (rows, strip_columns)
  const std::int64_t count = end - begin;
  for (std::int64_t n = 0; n < rows; ++n) {
    Real* row = strip + n * strip_columns<Real>;
    const Real* values = load(at(matrix, dtype, n * columns + begin), dtype, count, row);
    if (values != row) std::memcpy(row, values, std::size_t(count) * sizeof(Real));
    std::fill(row + count, row + strip_columns<Real>, Real(0));
  }
  multiply_all(strip, rows * strip_columns<Real>, scale);
}

// Calls body(r, v, products) with sum over m < end of weights[first + r, m] * strip[m] for every
// vector v of every row r from `first` on; beyond row `end` with the last row's once more.
template <class Real, class Body>
inline void multiply_strip(const Real* weights,  // (N, N), 0 above the diagonal
                           std::int64_t stride, std::int64_t first, std::int64_t end,
                           const Real* strip, const Body& body) {
  using Vector = typename Lanes<Real>::Vector;
  const Real* lines[block_rows];
  for (int r = 0; r < block_rows; ++r) lines[r] = weights + std::min(first + r, end - 1) * stride;
  const std::int64_t depth = std::min<std::int64_t>(first + block_rows, end);
  Vector sums[block_rows][block_vectors] = {};
  for (std::int64_t m = 0; m < depth; ++m) {
    Vector values[block_vectors];
    for (int v = 0; v < block_vectors; ++v)
      values[v] = load_vector(strip + m * strip_columns<Real> + v * Lanes<Real>::width);
    for (int r = 0; r < block_rows; ++r)
      for (int v = 0; v < block_vectors; ++v) sums[r][v] += lines[r][m] * values[v];
  }
  for (int r = 0; r < block_rows; ++r)
    for (int v = 0; v < block_vectors; ++v) body(r, v, sums[r][v]);
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
