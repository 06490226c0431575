// Matrix products of a few rows with a matrix that stays in cache, as recurrences need them.
//
// The right-hand matrix is packed once, in panels as wide as a block of accumulators. A block takes
// up to `block_rows` rows by one panel. The left-hand rows lie in chunks of 64 columns, (chunks,
// rows, 64), so that all addresses of a block are one pointer plus constants.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/memory.h"
#include "cpu/vector.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

constexpr std::int64_t chunk_columns = 64;

// Rows in chunks: `segments` times `width` columns, each segment beginning a chunk of its own.
template <class Real>
class ChunkedRows {
 public:
  ChunkedRows(std::int64_t rows, std::int64_t segments, std::int64_t width)
      : segments_(segments),
        width_(width),
        stride_(rows * chunk_columns),
        chunks_((width + chunk_columns - 1) / chunk_columns),
        data_(segments * chunks_ * stride_) {}

  // 64 columns, or as many as there are, of `row` from chunk `chunk` of `segment` on.
  Real* at(std::int64_t segment, std::int64_t chunk, std::int64_t row) {
    return data_.get() + (segment * chunks_ + chunk) * stride_ + row * chunk_columns;
  }
  std::int64_t segments() const { return segments_; }
  std::int64_t width() const { return width_; }
  std::int64_t stride() const { return stride_; }  // from one chunk to the next
  std::int64_t chunks() const { return chunks_; }  // in a segment

 private:
  std::int64_t segments_, width_, stride_, chunks_;
  Scratch<Real> data_;
};

// A (K, N) matrix in panels (N / panel, K, panel), filled up with zeros.
template <class Real>
class PackedMatrix {
 public:
  static constexpr std::int64_t panel = Lanes<Real>::block_columns;

  PackedMatrix(std::int64_t rows, std::int64_t columns)
      : rows_(rows), columns_(columns), data_(padded_columns() * rows) {}

  // Takes element (k, n) from source[k * row_stride + n * column_stride].
  void pack(const Real* source, std::int64_t row_stride, std::int64_t column_stride) {
    Real* to = data_.get();
    for (std::int64_t begin = 0; begin < columns_; begin += panel) {
      const std::int64_t count = std::min(panel, columns_ - begin);
      for (std::int64_t k = 0; k < rows_; ++k, to += panel) {
        const Real* from = source + k * row_stride + begin * column_stride;
        for (std::int64_t n = 0; n < count; ++n) to[n] = from[n * column_stride];
        std::fill(to + count, to + panel, Real(0));
      }
    }
  }

  std::int64_t padded_columns() const { return (columns_ + panel - 1) / panel * panel; }
  const Real* panel_at(std::int64_t column) { return data_.get() + column * rows_; }

 private:
  std::int64_t rows_, columns_;
  Scratch<Real> data_;
};

// c[i, 0:panel] += sum_k a[i, k] * b[k, 0:panel] for `rows` rows.
template <int rows, class Real>
inline void multiply_block(const Real* a, std::int64_t a_stride, std::int64_t segments,
                           std::int64_t width, const Real* b, Real* c, std::int64_t c_stride) {
  constexpr std::int64_t lanes = Lanes<Real>::width, panel = Lanes<Real>::block_columns;
  using Vector = typename Lanes<Real>::Vector;
  Vector sum[rows][block_vectors];
  for (int i = 0; i < rows; ++i)
    for (int v = 0; v < block_vectors; ++v) sum[i][v] = load_vector(c + i * c_stride + v * lanes);
  for (std::int64_t segment = 0; segment < segments; ++segment) {
    for (std::int64_t begin = 0; begin < width; begin += chunk_columns, a += a_stride) {
      const std::int64_t count = std::min(chunk_columns, width - begin);
      for (std::int64_t k = 0; k < count; ++k, b += panel) {
        Vector values[block_vectors];
        for (int v = 0; v < block_vectors; ++v) values[v] = load_vector(b + v * lanes);
#pragma GCC unroll 12
        for (int i = 0; i < rows; ++i) {
          const Real x = a[i * chunk_columns + k];
          for (int v = 0; v < block_vectors; ++v) sum[i][v] += x * values[v];
        }
      }
    }
  }
  for (int i = 0; i < rows; ++i)
    for (int v = 0; v < block_vectors; ++v) store_vector(sum[i][v], c + i * c_stride + v * lanes);
}

template <class Real, int rows = block_rows, class... Args>
inline void multiply_rows(int count, const Args&... args) {
  if (count == rows) return multiply_block<rows, Real>(args...);
  if constexpr (rows > 1) multiply_rows<Real, rows - 1>(count, args...);
}

// c (+)= a b for the first `rows` rows; c (rows, padded columns of b) holds what is added to.
template <class Real>
inline void multiply(ChunkedRows<Real>& a, std::int64_t rows, PackedMatrix<Real>& b, Real* c) {
  const std::int64_t columns = b.padded_columns();
  const std::int64_t blocks = (rows + block_rows - 1) / block_rows;
  for (std::int64_t column = 0; column < columns; column += PackedMatrix<Real>::panel) {
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t begin = rows * block / blocks, end = rows * (block + 1) / blocks;
      multiply_rows<Real>(int(end - begin), a.at(0, 0, begin), a.stride(), a.segments(), a.width(),
                          b.panel_at(column), c + begin * columns + column, columns);
    }
  }
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
