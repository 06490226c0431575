#include <limits>

#include "cpu/loss_tiles.h"
#include "cpu/parallel.h"
#include "math.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

template <class Real>
struct Buffers {
  Real logits[Tiles::capacity], targets[Tiles::capacity], mask[Tiles::capacity];
  Real weight[Tiles::capacity], coefficient[Tiles::capacity];
  Real value[Tiles::capacity], missing[Tiles::capacity];
};

// Targets of a tile with NaN where the mask says missing.
template <class Real>
const Real* load_targets(const FocalLoss& args, std::int64_t row, std::int64_t rows,
                         std::int64_t column, std::int64_t columns, Buffers<Real>& tile) {
  const Real* y = load_tile(args.targets, row, column, rows, columns, tile.targets);
  if (!args.mask.data) return y;
  const Real* mask = load_tile(args.mask, row, column, rows, columns, tile.mask);
#pragma omp simd
  for (std::int64_t i = 0; i < rows * columns; ++i)
    tile.targets[i] = mask[i] != 0 ? y[i] : std::numeric_limits<Real>::quiet_NaN();
  return tile.targets;
}

template <class Real>
void repeat_pos_weight(const FocalLoss& args, const Tiles& tiles, std::int64_t column,
                       std::int64_t columns, Buffers<Real>& tile) {
  const Real* weight = static_cast<const Real*>(args.pos_weight);
  repeat(tile.weight, tiles.first_rows(), columns,
         [&](std::int64_t j) { return weight ? weight[column + j] : Real(1); });
}

template <Gamma kind, class Real>
bool losses(const Real* z, const Real* y, Real gamma, std::int64_t count, Buffers<Real>& tile) {
  Real absent = 0;
#pragma omp simd reduction(+ : absent)
  for (std::int64_t i = 0; i < count; ++i) {
    const bool positive = y[i] == 1;
    const Real loss = focal<kind>(positive ? z[i] : -z[i], gamma);
    // Loaded in any case: a conditional load is slower than one that is not needed.
    const Real weight = tile.weight[i];
    const Real weighed = positive ? loss * weight : loss;
    const Real checked = positive || y[i] == 0 ? weighed : std::numeric_limits<Real>::quiet_NaN();
    const bool present = y[i] == y[i];
    tile.value[i] = present ? checked : Real(0);
    tile.missing[i] = present ? Real(0) : Real(1);
    absent += tile.missing[i];
  }
  return absent > 0;
}

template <Gamma kind, class Real>
void slopes(const Real* z, const Real* y, const Real* coefficient, Real gamma, std::int64_t count,
            const Real* weight, Real* grad) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const bool positive = y[i] == 1;
    const Real slope = coefficient[i] * focal_slope<kind>(positive ? z[i] : -z[i], gamma);
    const Real factor = weight[i];
    const Real weighed = positive ? slope * factor : -slope;
    const Real checked = positive || y[i] == 0 ? weighed : std::numeric_limits<Real>::quiet_NaN();
    grad[i] = y[i] == y[i] ? checked : Real(0);
  }
}

template <Gamma kind, class Real>
void forward(const FocalLossForward& args) {
  const Tiles tiles(args.rows, args.tasks);
  Real* loss = static_cast<Real*>(args.loss);
  reduce_loss<Real>(args, tiles, tiles.items(), args.tasks, [&](std::int64_t item, LossSums& all) {
    Buffers<Real> tile;
    ColumnSums<Real> sums;
    const std::int64_t column = item % tiles.column_blocks * tiles.tile_columns;
    const std::int64_t columns = std::min(tiles.tile_columns, args.tasks - column);
    repeat_pos_weight(args, tiles, column, columns, tile);
    sums.start(columns, tiles.first_rows() * columns);
    tiles.for_each_tile(item, [&](auto row, auto rows, auto, auto) {
      const std::int64_t count = rows * columns;
      const Real* z = load_tile(args.logits, row, column, rows, columns, tile.logits);
      const Real* y = load_targets(args, row, rows, column, columns, tile);
      const bool missing = losses<kind>(z, y, Real(args.gamma), count, tile);
      if (args.reduction == Reduction::none) {
        for (std::int64_t r = 0; r < rows; ++r)
          std::copy_n(tile.value + r * columns, columns, loss + (row + r) * args.tasks + column);
      } else {
        sums.add(tile.value, tile.missing, missing, count);
      }
    });
    sums.fold();
    const std::int64_t chunk = item / tiles.column_blocks;
    std::copy_n(sums.sum(), columns, all.losses(chunk) + column);
    std::copy_n(sums.absent(), columns, all.missing(chunk) + column);
  });
}

template <Gamma kind, class Real>
void backward(const FocalLossBackward& args) {
  const Tiles tiles(args.rows, args.tasks);
  const DType dtype = args.logits.dtype;
  const Real* scale = static_cast<const Real*>(args.scale);
  const Matrix& grad = args.grad_loss;
  const bool reduced = grad.row_stride == 0;
  parallel_for(tiles.items(), args.threads, tiles.item_elements(), [&](std::int64_t item) {
    Buffers<Real> tile;
    const std::int64_t column = item % tiles.column_blocks * tiles.tile_columns;
    const std::int64_t columns = std::min(tiles.tile_columns, args.tasks - column);
    repeat_pos_weight(args, tiles, column, columns, tile);
    if (reduced) {
      const Real* upstream = static_cast<const Real*>(grad.data);
      repeat(tile.coefficient, tiles.first_rows(), columns, [&](std::int64_t j) {
        return upstream[(column + j) * grad.column_stride] * scale[column + j];
      });
    }
    tiles.for_each_tile(item, [&](auto row, auto rows, auto, auto) {
      const std::int64_t count = rows * columns;
      const Real* z = load_tile(args.logits, row, column, rows, columns, tile.logits);
      const Real* y = load_targets(args, row, rows, column, columns, tile);
      const Real* coefficient = reduced
                                    ? tile.coefficient
                                    : load_tile(grad, row, column, rows, columns, tile.coefficient);
      void* target = at(args.grad_logits, dtype, row * args.tasks + column);
      const bool direct = dtype == dtype_of<Real>() && columns == args.tasks;
      Real* out = direct ? static_cast<Real*>(target) : tile.value;
      slopes<kind>(z, y, coefficient, Real(args.gamma), count, tile.weight, out);
      if (direct) return;
      for (std::int64_t r = 0; r < rows; ++r)
        store(out + r * columns, at(target, dtype, r * args.tasks), dtype, columns);
    });
  });
}

}  // namespace

void focal_loss_forward(const FocalLossForward& args) {
  with_accumulated(args.logits.dtype, [&](auto real) {
    with_gamma(gamma_kind(args.gamma), [&](auto kind) { forward<kind(), decltype(real)>(args); });
  });
}

void focal_loss_backward(const FocalLossBackward& args) {
  with_accumulated(args.logits.dtype, [&](auto real) {
    with_gamma(gamma_kind(args.gamma), [&](auto kind) { backward<kind(), decltype(real)>(args); });
  });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
