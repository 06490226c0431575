#include <limits>

#include "cpu/loss_tiles.h"
#include "cpu/parallel.h"
#include "multilabel.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

// The numbers of every task at every position of a tile.
template <class Real>
struct Columns {
  Real gamma_pos[Tiles::capacity], gamma_neg[Tiles::capacity];
  Real pos_weight[Tiles::capacity], neg_weight[Tiles::capacity], shift[Tiles::capacity];
};

template <class Real>
struct Buffers {
  Columns<Real> columns;
  Real logits[Tiles::capacity], targets[Tiles::capacity], weight[Tiles::capacity];
  Real label[Tiles::capacity], share[Tiles::capacity], missing[Tiles::capacity];
  Real coefficient[Tiles::capacity], value[Tiles::capacity];
  Real rest[Tiles::capacity];
};

// neg_factor: of the weights of negatives.
template <Power kind, class Real>
void repeat_columns(const MultilabelLoss& args, const Tiles& tiles, std::int64_t column,
                    std::int64_t columns, double neg_factor, Columns<Real>& to) {
  const auto fill = [&](const PerTask& from, Real* tile, const auto& change) {
    const Real* values = static_cast<const Real*>(from.values);
    repeat(tile, tiles.first_rows(), columns,
           [&](std::int64_t j) { return change(values ? values[column + j] : Real(from.same)); });
  };
  const auto same = [](Real value) { return value; };
  // A power of less than 0 has no loss.
  const auto power = [](Real gamma) {
    return gamma >= 0 ? gamma : std::numeric_limits<Real>::quiet_NaN();
  };
  if (kind == Power::any) {
    fill(args.gamma_pos, to.gamma_pos, power);
    fill(args.gamma_neg, to.gamma_neg, power);
  }
  fill(args.pos_weight, to.pos_weight, same);
  fill(args.neg_weight, to.neg_weight, [&](Real value) { return value * Real(neg_factor); });
  fill(args.shift, to.shift, same);
}

// What a tile's labels are like.
struct Labels {
  bool missing, soft;
};

// Reads the targets of a tile into labels, NaN where missing, and the elements' weights into
// shares.
template <class Real>
Labels load_labels(const MultilabelLoss& args, const MultilabelForm<Real>& form, std::int64_t row,
                   std::int64_t rows, std::int64_t column, std::int64_t columns,
                   Buffers<Real>& tile) {
  const std::int64_t count = rows * columns;
  const Real* y = load_tile(args.targets, row, column, rows, columns, tile.targets);
  const Real* weight = tile.weight;
  if (args.weight.data)
    weight = load_tile(args.weight, row, column, rows, columns, tile.weight);
  else
    std::fill_n(tile.weight, count, Real(1));
  Real absent = 0, between = 0;
#pragma omp simd reduction(+ : absent, between)
  for (std::int64_t i = 0; i < count; ++i) {
    const Real smooth = y[i] + form.smoothing * (Real(0.5) - y[i]);
    const Real label = weight[i] != 0 ? smooth : std::numeric_limits<Real>::quiet_NaN();
    const bool present = label == label;
    const bool soft = label > 0 && label < 1;
    tile.label[i] = label;
    tile.share[i] = weight[i];
    tile.missing[i] = present ? Real(0) : Real(1);
    absent += tile.missing[i];
    between += soft ? Real(1) : Real(0);
  }
  return {absent > 0, between > 0};
}

template <Power kind, bool clipped, class Real>
struct Loss {
  static FASTMTL_INLINE Real of(Real z, bool positive, Real gamma,
                                const MultilabelForm<Real>& form) {
    return multilabel<kind, clipped>(z, positive, gamma, form);
  }
};

template <Power kind, bool clipped, class Real>
struct Slope {
  static FASTMTL_INLINE Real of(Real z, bool positive, Real gamma,
                                const MultilabelForm<Real>& form) {
    const Real slope = multilabel_slope<kind, clipped>(z, positive, gamma, form);
    return positive ? -slope : slope;
  }
};

// The weighed losses or slopes, of the positive where a label is partly 1; 0 for NaN, and NaN for a
// label that is not from 0 to 1.
template <Power kind, class Element, class Real>
void evaluate(const Real* z, const Real* label, const Real* share, std::int64_t count,
              const MultilabelForm<Real>& form, const Columns<Real>& columns, Real* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const Real y = label[i];
    const bool positive = y > 0;
    Real gamma = positive ? form.gamma_pos : form.gamma_neg;
    if (kind == Power::any) {
      // Loaded in any case: a conditional load is slower than one that is not needed.
      const Real pos = columns.gamma_pos[i], neg = columns.gamma_neg[i];
      gamma = positive ? pos : neg;
    }
    const Real pos_weight = columns.pos_weight[i], neg_weight = columns.neg_weight[i];
    const Real factor = share[i] * (positive ? y * pos_weight : neg_weight);
    const Real weighed = factor * Element::of(z[i] + columns.shift[i], positive, gamma, form);
    const Real checked = y >= 0 && y <= 1 ? weighed : std::numeric_limits<Real>::quiet_NaN();
    out[i] = y == y ? checked : Real(0);
  }
}

// As above, with what a label that is partly 1 has of a negative.
template <Power kind, class Element, class Real>
void evaluate(const Real* z, bool soft, std::int64_t count, const MultilabelForm<Real>& form,
              Buffers<Real>& tile, Real* out) {
  evaluate<kind, Element>(z, tile.label, tile.share, count, form, tile.columns, out);
  if (!soft) return;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) {
    const bool between = tile.label[i] > 0 && tile.label[i] < 1;
    tile.share[i] *= 1 - tile.label[i];
    tile.label[i] = between ? Real(0) : std::numeric_limits<Real>::quiet_NaN();
  }
  evaluate<kind, Element>(z, tile.label, tile.share, count, form, tile.columns, tile.rest);
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) out[i] += tile.rest[i];
}

template <Power kind, bool clipped, class Real>
void forward(const MultilabelLossForward& args) {
  const Tiles tiles(args.rows, args.tasks);
  const MultilabelForm<Real> form(args);
  Real* loss = static_cast<Real*>(args.loss);
  reduce_loss<Real>(args, tiles, tiles.items(), args.tasks, [&](std::int64_t item, LossSums& all) {
    Buffers<Real> tile;
    ColumnSums<Real> sums;
    const std::int64_t column = item % tiles.column_blocks * tiles.tile_columns;
    const std::int64_t columns = std::min(tiles.tile_columns, args.tasks - column);
    repeat_columns<kind>(args, tiles, column, columns, 1 / args.neg_scale, tile.columns);
    sums.start(columns, tiles.first_rows() * columns);
    tiles.for_each_tile(item, [&](auto row, auto rows, auto, auto) {
      const std::int64_t count = rows * columns;
      const Real* z = load_tile(args.logits, row, column, rows, columns, tile.logits);
      const Labels labels = load_labels(args, form, row, rows, column, columns, tile);
      evaluate<kind, Loss<kind, clipped, Real>>(z, labels.soft, count, form, tile, tile.value);
      if (args.reduction == Reduction::none) {
        for (std::int64_t r = 0; r < rows; ++r)
          std::copy_n(tile.value + r * columns, columns, loss + (row + r) * args.tasks + column);
      } else {
        sums.add(tile.value, tile.missing, labels.missing, count);
      }
    });
    sums.fold();
    const std::int64_t chunk = item / tiles.column_blocks;
    std::copy_n(sums.sum(), columns, all.losses(chunk) + column);
    std::copy_n(sums.absent(), columns, all.missing(chunk) + column);
  });
}

template <Power kind, bool clipped, class Real>
void backward(const MultilabelLossBackward& args) {
  const Tiles tiles(args.rows, args.tasks);
  const MultilabelForm<Real> form(args);
  const DType dtype = args.logits.dtype;
  const Real* scale = static_cast<const Real*>(args.scale);
  const Matrix& grad = args.grad_loss;
  const bool reduced = grad.row_stride == 0;
  parallel_for(tiles.items(), args.threads, tiles.item_elements(), [&](std::int64_t item) {
    Buffers<Real> tile;
    const std::int64_t column = item % tiles.column_blocks * tiles.tile_columns;
    const std::int64_t columns = std::min(tiles.tile_columns, args.tasks - column);
    repeat_columns<kind>(args, tiles, column, columns, 1, tile.columns);
    if (reduced) {
      const Real* upstream = static_cast<const Real*>(grad.data);
      repeat(tile.coefficient, tiles.first_rows(), columns, [&](std::int64_t j) {
        return upstream[(column + j) * grad.column_stride] * scale[column + j];
      });
    }
    tiles.for_each_tile(item, [&](auto row, auto rows, auto, auto) {
      const std::int64_t count = rows * columns;
      const Real* z = load_tile(args.logits, row, column, rows, columns, tile.logits);
      const Labels labels = load_labels(args, form, row, rows, column, columns, tile);
      const Real* coefficient = reduced
                                    ? tile.coefficient
                                    : load_tile(grad, row, column, rows, columns, tile.coefficient);
#pragma omp simd
      for (std::int64_t i = 0; i < count; ++i) tile.share[i] *= coefficient[i];
      void* target = at(args.grad_logits, dtype, row * args.tasks + column);
      const bool direct = dtype == dtype_of<Real>() && columns == args.tasks;
      Real* out = direct ? static_cast<Real*>(target) : tile.value;
      evaluate<kind, Slope<kind, clipped, Real>>(z, labels.soft, count, form, tile, out);
      if (direct) return;
      for (std::int64_t r = 0; r < rows; ++r)
        store(out + r * columns, at(target, dtype, r * args.tasks), dtype, columns);
    });
  });
}

// Calls body(Real{}, kind, clipped) with the loop that the arguments need.
template <class Body>
void with_loop(const MultilabelLoss& args, const Body& body) {
  with_accumulated(args.logits.dtype, [&](auto real) {
    with_form(args, [&](auto kind, auto clipped) { body(real, kind, clipped); });
  });
}

}  // namespace

void multilabel_loss_forward(const MultilabelLossForward& args) {
  with_loop(args, [&](auto real, auto kind, auto clipped) {
    forward<kind(), clipped(), decltype(real)>(args);
  });
}

void multilabel_loss_backward(const MultilabelLossBackward& args) {
  with_loop(args, [&](auto real, auto kind, auto clipped) {
    backward<kind(), clipped(), decltype(real)>(args);
  });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
