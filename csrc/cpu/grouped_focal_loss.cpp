#include <limits>
#include <numeric>

#include "cpu/loss_tiles.h"
#include "cpu/parallel.h"
#include "math.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

constexpr std::int64_t tile_rows = 64;

// One group over the rows of a tile: the logits column by column, so that every loop over rows is
// a vector loop however few classes there are.
template <class Real>
struct GroupTile {
  Real* logits;  // (C, rows)
  std::int64_t rows, classes;
  Real label[tile_rows];   // NaN where no class
  Real weight[tile_rows];  // class weight of the label
  Real margin[tile_rows];  // z_label - others
  Real others[tile_rows];  // logsumexp of the other logits
  bool missing[tile_rows];
};

template <class Real>
void load_group(const GroupedFocalLoss& args, std::int64_t group, std::int64_t offset,
                std::int64_t row, GroupTile<Real>& tile) {
  const Matrix& logits = args.logits;
  const void* source =
      at(logits.data, logits.dtype, row * logits.row_stride + offset * logits.column_stride);
  with_type(logits.dtype, [&](auto element) {
    using T = decltype(element);
    const T* from = static_cast<const T*>(source);
    for (std::int64_t r = 0; r < tile.rows; ++r)
      for (std::int64_t k = 0; k < tile.classes; ++k)
        tile.logits[k * tile_rows + r] =
            widen<Real>(from[r * logits.row_stride + k * logits.column_stride]);
  });
  const std::int64_t* labels = static_cast<const std::int64_t*>(args.targets.data);
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const std::int64_t label =
        labels[(row + r) * args.targets.row_stride + group * args.targets.column_stride];
    tile.missing[r] = label == args.ignore_index;
    tile.label[r] =
        label >= 0 && label < tile.classes ? Real(label) : std::numeric_limits<Real>::quiet_NaN();
  }
}

// Fills weight, margin and others.
template <class Real>
void find_margin(const Real* class_weight, GroupTile<Real>& tile) {
  const std::int64_t rows = tile.rows;
  Real largest[tile_rows], sum[tile_rows];
  for (std::int64_t r = 0; r < rows; ++r) {
    largest[r] = std::numeric_limits<Real>::lowest();
    sum[r] = tile.margin[r] = 0;
    tile.weight[r] = 1;
  }
  for (std::int64_t k = 0; k < tile.classes; ++k) {
    const Real* z = tile.logits + k * tile_rows;
    const Real weight = class_weight ? class_weight[k] : Real(1);
#pragma omp simd
    for (std::int64_t r = 0; r < rows; ++r) {
      const bool own = tile.label[r] == Real(k);
      tile.margin[r] = own ? z[r] : tile.margin[r];
      tile.weight[r] = own ? weight : tile.weight[r];
      largest[r] = !own && z[r] > largest[r] ? z[r] : largest[r];
    }
  }
  for (std::int64_t k = 0; k < tile.classes; ++k) {
    const Real* z = tile.logits + k * tile_rows;
#pragma omp simd
    for (std::int64_t r = 0; r < rows; ++r) {
      const bool own = tile.label[r] == Real(k);
      const Real term = exp_nonpositive(own ? Real(0) : z[r] - largest[r]);
      sum[r] += own ? Real(0) : term;
    }
  }
#pragma omp simd
  for (std::int64_t r = 0; r < rows; ++r) {
    tile.others[r] = largest[r] + log_from_one(sum[r]);
    tile.margin[r] -= tile.others[r];
    tile.weight[r] = tile.label[r] == tile.label[r] ? tile.weight[r] : tile.label[r];
  }
}

std::int64_t most_classes(const Integers& group_sizes) {
  return *std::max_element(group_sizes.data, group_sizes.data + group_sizes.count);
}

std::int64_t all_classes(const Integers& group_sizes) {
  return std::accumulate(group_sizes.data, group_sizes.data + group_sizes.count, std::int64_t(0));
}

// Calls body(group, offset, row, tile) for every tile of every group of chunk `item`.
template <class Real, class Body>
void for_each_group_tile(const GroupedFocalLoss& args, const Tiles& tiles, std::int64_t item,
                         const Body& body) {
  Scratch<Real> logits(most_classes(args.group_sizes) * tile_rows);
  GroupTile<Real> tile;
  tile.logits = logits.get();
  const Real* weights = static_cast<const Real*>(args.weight);
  const std::int64_t begin = item * tiles.chunk_rows;
  const std::int64_t end = std::min(begin + tiles.chunk_rows, args.rows);
  std::int64_t offset = 0;
  for (std::int64_t group = 0; group < args.group_sizes.count; ++group) {
    tile.classes = args.group_sizes.data[group];
    for (std::int64_t row = begin; row < end; row += tile_rows) {
      tile.rows = std::min(tile_rows, end - row);
      load_group(args, group, offset, row, tile);
      find_margin(weights ? weights + offset : nullptr, tile);
      body(group, offset, row, tile);
    }
    offset += tile.classes;
  }
}

template <class Real>
void forward(const GroupedFocalLossForward& args) {
  const std::int64_t groups = args.group_sizes.count;
  const Tiles tiles(args.rows, all_classes(args.group_sizes));
  Real* loss = static_cast<Real*>(args.loss);
  reduce_loss<Real>(args, tiles, tiles.chunks, groups, [&](std::int64_t item, LossSums& sums) {
    double *sum = sums.losses(item), *missing = sums.missing(item);
    std::fill_n(sum, groups, 0.0);
    std::fill_n(missing, groups, 0.0);
    for_each_group_tile<Real>(args, tiles, item, [&](auto group, auto, auto row, auto& tile) {
      Real value[tile_rows];
#pragma omp simd
      for (std::int64_t r = 0; r < tile.rows; ++r)
        value[r] = focal(tile.margin[r], Real(args.gamma)) * tile.weight[r];
      for (std::int64_t r = 0; r < tile.rows; ++r) {
        const Real present = tile.missing[r] ? Real(0) : value[r];
        sum[group] += present;
        missing[group] += tile.missing[r];
        if (args.reduction == Reduction::none) loss[(row + r) * groups + group] = present;
      }
    });
  });
}

template <class Real>
void backward(const GroupedFocalLossBackward& args) {
  const std::int64_t classes = all_classes(args.group_sizes);
  const Tiles tiles(args.rows, classes);
  const Real* scale = static_cast<const Real*>(args.scale);
  const Real* upstream = static_cast<const Real*>(args.grad_loss.data);
  parallel_for(tiles.chunks, args.threads, tiles.item_elements(), [&](std::int64_t item) {
    for_each_group_tile<Real>(
        args, tiles, item, [&](auto group, auto offset, auto row, auto& tile) {
          Real slope[tile_rows];
          for (std::int64_t r = 0; r < tile.rows; ++r)
            slope[r] = upstream[(row + r) * args.grad_loss.row_stride +
                                group * args.grad_loss.column_stride];
#pragma omp simd
          for (std::int64_t r = 0; r < tile.rows; ++r)
            slope[r] *=
                scale[group] * tile.weight[r] * focal_slope(tile.margin[r], Real(args.gamma));
          for (std::int64_t r = 0; r < tile.rows; ++r) slope[r] = tile.missing[r] ? 0 : slope[r];
          for (std::int64_t k = 0; k < tile.classes; ++k) {
            Real* z = tile.logits + k * tile_rows;
#pragma omp simd
            for (std::int64_t r = 0; r < tile.rows; ++r) {
              const bool own = tile.label[r] == Real(k);
              const Real share = exp_nonpositive(own ? Real(0) : z[r] - tile.others[r]);
              z[r] = tile.missing[r] ? Real(0) : (own ? slope[r] : -share * slope[r]);
            }
          }
          void* target = at(args.grad_logits, args.logits.dtype, row * classes + offset);
          with_type(args.logits.dtype, [&](auto element) {
            using T = decltype(element);
            T* to = static_cast<T*>(target);
            for (std::int64_t r = 0; r < tile.rows; ++r)
              for (std::int64_t k = 0; k < tile.classes; ++k)
                to[r * classes + k] = narrow<T>(tile.logits[k * tile_rows + r]);
          });
        });
  });
}

}  // namespace

void grouped_focal_loss_forward(const GroupedFocalLossForward& args) {
  with_accumulated(args.logits.dtype, [&](auto real) { forward<decltype(real)>(args); });
}

void grouped_focal_loss_backward(const GroupedFocalLossBackward& args) {
  with_accumulated(args.logits.dtype, [&](auto real) { backward<decltype(real)>(args); });
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
