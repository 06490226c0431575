// How the elementwise losses walk over their (N, T) elements, and how they reduce them.
//
// A tile is a block of whole rows, dense and short enough for the first-level cache, over which
// loops run flat. Sums are kept per position in the tile, and only folded into columns once per
// run of tiles, so a reduction over columns costs no more than an elementwise addition. Work is
// split into chunks by the shape alone, so that results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/memory.h"
#include "cpu/parallel.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

struct Tiles {
  static constexpr std::int64_t capacity = 1024;  // elements of a tile
  static constexpr std::int64_t run = 32;         // tiles summed in Real before a fold
  static constexpr std::int64_t chunk_elements = 16384;
  static constexpr std::int64_t most_chunks = 256;

  std::int64_t rows, columns;
  std::int64_t tile_columns, column_blocks;
  std::int64_t tile_rows, chunk_rows, chunks;

  Tiles(std::int64_t rows, std::int64_t columns) : rows(rows), columns(columns) {
    tile_columns = std::min(std::max<std::int64_t>(columns, 1), capacity);
    column_blocks = (columns + tile_columns - 1) / tile_columns;
    tile_rows = capacity / tile_columns;
    // Multiples of 8 keep the loops over a tile free of a scalar remainder.
    if (tile_rows >= 8) tile_rows -= tile_rows % 8;
    const std::int64_t tiles = (rows + tile_rows - 1) / tile_rows;
    const std::int64_t least = std::max<std::int64_t>(chunk_elements / (tile_rows * tile_columns),
                                                      (tiles + most_chunks - 1) / most_chunks);
    chunk_rows = tile_rows * std::max<std::int64_t>(least, 1);
    chunks = (rows + chunk_rows - 1) / chunk_rows;
  }

  std::int64_t items() const { return chunks * column_blocks; }
  std::int64_t item_elements() const { return std::min(chunk_rows, rows) * tile_columns; }
  // The rows of an item's largest tile.
  std::int64_t first_rows() const { return std::min(tile_rows, rows); }

  // Calls body(row, rows, column, columns) for every tile of an item.
  template <class Body>
  void for_each_tile(std::int64_t item, const Body& body) const {
    const std::int64_t column = item % column_blocks * tile_columns;
    const std::int64_t width = std::min(tile_columns, columns - column);
    const std::int64_t begin = item / column_blocks * chunk_rows;
    const std::int64_t end = std::min(begin + chunk_rows, rows);
    for (std::int64_t row = begin; row < end; row += tile_rows)
      body(row, std::min(tile_rows, end - row), column, width);
  }
};

// Fills a tile by repeating one row.
template <class Real, class Value>
void repeat(Real* tile, std::int64_t rows, std::int64_t columns, const Value& value) {
  for (std::int64_t j = 0; j < columns; ++j) tile[j] = value(j);
  for (std::int64_t i = columns; i < rows * columns; ++i) tile[i] = tile[i - columns];
}

// Per-position sums over tiles of (value, whether it is missing), folded into columns in float64.
template <class Real>
class ColumnSums {
 public:
  // Clears the sums for tiles of `columns` columns and at most `elements` elements.
  void start(std::int64_t columns, std::int64_t elements) {
    columns_ = columns;
    clear(elements);
    std::fill_n(sum_, columns, 0.0);
    std::fill_n(absent_, columns, 0.0);
  }

  void add(const Real* values, const Real* missing, bool any_missing, std::int64_t count) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) values_[i] += values[i];
    if (any_missing) {
#pragma omp simd
      for (std::int64_t i = 0; i < count; ++i) missing_[i] += missing[i];
      any_missing_ = true;
    }
    used_ = std::max(used_, count);
    if (++tiles_ == Tiles::run) fold();
  }

  void fold() {
    for (std::int64_t i = 0; i < used_; i += columns_)
      for (std::int64_t j = 0; j < columns_; ++j) sum_[j] += values_[i + j];
    if (any_missing_)
      for (std::int64_t i = 0; i < used_; i += columns_)
        for (std::int64_t j = 0; j < columns_; ++j) absent_[j] += missing_[i + j];
    clear(used_);
  }

  const double* sum() const { return sum_; }
  const double* absent() const { return absent_; }

 private:
  void clear(std::int64_t elements) {
    std::fill_n(values_, elements, Real(0));
    std::fill_n(missing_, elements, Real(0));
    tiles_ = used_ = 0;
    any_missing_ = false;
  }

  Real values_[Tiles::capacity], missing_[Tiles::capacity];
  double sum_[Tiles::capacity], absent_[Tiles::capacity];
  std::int64_t columns_, tiles_, used_;
  bool any_missing_;
};

// Of every chunk and column, the sum of the losses and the number of missing labels.
class LossSums {
 public:
  LossSums(std::int64_t chunks, std::int64_t columns)
      : columns_(columns), data_(2 * chunks * columns) {}

  double* losses(std::int64_t chunk) { return data_.get() + 2 * chunk * columns_; }
  double* missing(std::int64_t chunk) { return losses(chunk) + columns_; }

 private:
  std::int64_t columns_;
  Scratch<double> data_;  // (chunks, 2, columns)
};

// Runs body(item, sums), which puts down an item's sums, and writes loss and scale from those of
// all chunks, in order.
template <class Real, class Args, class Body>
inline void reduce_loss(const Args& args, const Tiles& tiles, std::int64_t items,
                        std::int64_t columns, const Body& body) {
  LossSums sums(tiles.chunks, columns);
  parallel_for(items, args.threads, tiles.item_elements(),
               [&](std::int64_t item) { body(item, sums); });
  Real* loss = static_cast<Real*>(args.loss);
  Real* scale = static_cast<Real*>(args.scale);
  double all = 0, all_present = 0;
  for (std::int64_t j = 0; j < columns; ++j) {
    double sum = 0, present = double(args.rows);
    for (std::int64_t c = 0; c < tiles.chunks; ++c) {
      sum += sums.losses(c)[j];
      present -= sums.missing(c)[j];
    }
    all += sum;
    all_present += present;
    if (args.reduction == Reduction::task) {
      loss[j] = Real(present > 0 ? sum / present : 0);
      scale[j] = Real(present > 0 ? 1 / present : 0);
    }
  }
  if (args.reduction == Reduction::task) return;
  const bool mean = args.reduction == Reduction::mean;
  const double factor = mean ? (all_present > 0 ? 1 / all_present : 0) : 1;
  if (args.reduction != Reduction::none)
    loss[0] = Real(mean && all_present == 0 ? 0 : all * factor);
  std::fill_n(scale, columns, Real(factor));
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
