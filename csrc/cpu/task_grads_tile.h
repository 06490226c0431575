// Tiles of inner products between rows, for matrices of which half is wanted.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cpu/memory.h"
#include "cpu/vector.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

// A tile of accumulators fills the registers, but for the vectors that are multiplied.
constexpr int tile_rows = vector_bytes == 64 ? 4 : 3;
constexpr int tile_columns = vector_bytes == 64 ? 6 : 4;

constexpr std::int64_t panel_rows = 12;  // packed rows that stay in the L1 cache
static_assert(panel_rows % tile_columns == 0 && panel_rows % tile_rows == 0,
              "a panel is whole tiles");

template <class Real>
constexpr std::int64_t packed_columns = 2048 / sizeof(Real);

// How many packed rows there have to be for tiles that begin anywhere in `rows` of them.
inline std::int64_t padded_rows(std::int64_t rows) { return rows + tile_rows + tile_columns; }

// Columns [begin, end) of `matrix` as Real, zero beyond the edges.
template <class Real>
inline void pack_rows(const void* matrix,  // (rows, columns) dtype
                      DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t begin,
                      std::int64_t end, Real* packed) {  // (padded_rows, packed_columns)
  constexpr std::int64_t length = packed_columns<Real>;
  const std::int64_t count = end - begin;
  for (std::int64_t n = 0; n < rows; ++n) {
    Real* row = packed + n * length;
    const Real* values = load(at(matrix, dtype, n * columns + begin), dtype, count, row);
    if (values != row) std::memcpy(row, values, std::size_t(count) * sizeof(Real));
    std::fill(row + count, row + length, Real(0));
  }
  std::fill(packed + rows * length, packed + padded_rows(rows) * length, Real(0));
}

// How many rows of a lower triangle, from its tip, hold `part` of `parts` of its area.
inline std::int64_t lower_rows(std::int64_t rows, std::int64_t part, std::int64_t parts) {
  return std::int64_t(double(rows) * std::sqrt(double(part) / double(parts)) + 0.5);
}

// The columns that a tile has to go through of `count` packed ones.
template <class Real>
inline std::int64_t whole_vectors(std::int64_t count) {
  return (count + Lanes<Real>::width - 1) / Lanes<Real>::width * Lanes<Real>::width;
}

// Calls body(r, c, products) with sum_k a[r, k] * b[c, k] of every row and column of a tile, in a
// vector whose lanes are yet to be added up.
template <class Real, class Body>
inline void multiply_tile(const Real* a,       // (tile_rows, packed_columns)
                          const Real* b,       // (tile_columns, packed_columns)
                          std::int64_t depth,  // whole vectors
                          const Body& body) {
  using Vector = typename Lanes<Real>::Vector;
  constexpr std::int64_t length = packed_columns<Real>;
  Vector sums[tile_rows][tile_columns] = {};
  for (std::int64_t k = 0; k < depth; k += Lanes<Real>::width) {
    Vector left[tile_rows];
    for (int r = 0; r < tile_rows; ++r) left[r] = load_vector(a + r * length + k);
    for (int c = 0; c < tile_columns; ++c) {
      const Vector right = load_vector(b + c * length + k);
      for (int r = 0; r < tile_rows; ++r) sums[r][c] += left[r] * right;
    }
  }
  for (int r = 0; r < tile_rows; ++r)
    for (int c = 0; c < tile_columns; ++c) body(r, c, sums[r][c]);
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
