// Focal loss over groups of classes.
//
// An item is one group of one row. 1, 8 or 32 neighbouring lanes share it, by the number of
// classes, so that neighbouring lanes read neighbouring logits; an item's logits are read again
// from the cache for each pass over them. The sum of each group is reduced like a column of the
// binary loss.
#include <limits>

#include "cuda/loss_tiles.cuh"
#include "cuda/table.h"
#include "math.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

constexpr std::int64_t missing_label = -100;
constexpr int most_groups = 768;

// Passed by value, in the constant bank: group g has the classes from begin[g] to begin[g + 1].
struct Groups {
  std::int32_t begin[most_groups + 1];
};

// What an item's loss and gradient are made of; the same in all lanes that share it.
template <class Real>
struct Margin {
  bool missing;
  std::int64_t label;
  Real weight;  // of the label; NaN where it is no class
  Real others;  // logsumexp of the other logits
  Real margin;  // z_label - others
};

template <class T, int lanes, class Real>
__device__ Margin<Real> find_margin(const GroupedFocalLoss& args, std::int64_t row,
                                    std::int64_t group, const T* logits, int begin, int classes) {
  const std::int64_t stride = args.logits.column_stride;
  const int lane = threadIdx.x % lanes;
  Margin<Real> item;
  item.label = static_cast<const std::int64_t*>(
      args.targets.data)[row * args.targets.row_stride + group * args.targets.column_stride];
  item.missing = item.label == missing_label;
  const bool known = item.label >= 0 && item.label < classes;
  Real largest = std::numeric_limits<Real>::lowest(), sum = 0;
  for (int k = lane; k < classes; k += lanes) {
    const Real z = widen<Real>(logits[k * stride]);
    largest = k != item.label && z > largest ? z : largest;
  }
  largest = largest_of_lanes<lanes>(largest);
  for (int k = lane; k < classes; k += lanes) {
    const Real z = widen<Real>(logits[k * stride]);
    sum += k != item.label ? exp_nonpositive(z - largest) : Real(0);
  }
  sum = sum_of_lanes<lanes>(sum);
  const Real* weights = static_cast<const Real*>(args.class_weight);
  item.others = largest + log_from_one(sum);
  item.margin = (known ? widen<Real>(logits[item.label * stride]) : Real(0)) - item.others;
  const Real weight = known && weights ? weights[begin + item.label] : Real(1);
  item.weight = known ? weight : std::numeric_limits<Real>::quiet_NaN();
  return item;
}

// Calls body(position, row, group, begin, classes) for the items of a thread's lanes, tile by tile.
template <int lanes, class Body>
__device__ void for_each_item(const LossTiles& tiles, const Groups& groups, const Body& body) {
  const LossPosition<1> at(tiles, int(threadIdx.x) / lanes);
  const bool inside = at.column < tiles.columns;
  const int begin = inside ? groups.begin[at.column] : 0;
  const int classes = inside ? groups.begin[at.column + 1] - begin : 0;
  for (std::int64_t tile = blockIdx.x; tile < tiles.tiles; tile += gridDim.x) {
    // Lanes without an item go along, since the others of their warp exchange values.
    const bool present = at.count(tiles, tile) > 0;
    const std::int64_t row = tile * tiles.tile_rows + at.row_in_tile;
    body(present, present ? row : 0, at.column, begin, present ? classes : 0);
  }
}

template <class T, int lanes>
__global__ void __launch_bounds__(loss_threads)
    grouped_forward(const __grid_constant__ GroupedFocalLossForward args,
                    const __grid_constant__ LossTiles tiles, const __grid_constant__ Groups groups,
                    const __grid_constant__ LossResults<typename Accumulated<T>::Real> results) {
  using Real = typename Accumulated<T>::Real;
  const int position = int(threadIdx.x) / lanes;
  const bool first = threadIdx.x % lanes == 0;
  Real sum[1] = {};
  int present[1] = {};
  for_each_item<lanes>(
      tiles, groups, [&](bool there, std::int64_t row, std::int64_t group, int begin, int classes) {
        const T* logits = static_cast<const T*>(args.logits.data) + row * args.logits.row_stride +
                          begin * args.logits.column_stride;
        const Margin<Real> item =
            find_margin<T, lanes, Real>(args, row, there ? group : 0, logits, begin, classes);
        if (!there || !first) return;
        const Real gamma = Real(args.gamma);
        const Real loss = gamma == 0 ? focal<Gamma::zero>(item.margin, gamma)
                                     : focal<Gamma::any>(item.margin, gamma);
        const Real value = item.missing ? Real(0) : loss * item.weight;
        sum[0] += value;
        present[0] += !item.missing;
        if (results.reduction == Reduction::none) results.loss[row * tiles.columns + group] = value;
      });
  if (results.reduction == Reduction::none) {
    if (blockIdx.x == 0 && blockIdx.y == 0) results.fill_scale(1);
  } else {
    reduce_block(tiles, results, position, first && position < tiles.tile_rows * tiles.width, sum,
                 present);
  }
}

template <class T, int lanes>
__global__ void __launch_bounds__(loss_threads)
    grouped_backward(const __grid_constant__ GroupedFocalLossBackward args,
                     const __grid_constant__ LossTiles tiles,
                     const __grid_constant__ Groups groups) {
  using Real = typename Accumulated<T>::Real;
  const std::int64_t all_classes = groups.begin[tiles.columns];
  for_each_item<lanes>(
      tiles, groups, [&](bool there, std::int64_t row, std::int64_t group, int begin, int classes) {
        const std::int64_t stride = args.logits.column_stride;
        const T* logits =
            static_cast<const T*>(args.logits.data) + row * args.logits.row_stride + begin * stride;
        const Margin<Real> item =
            find_margin<T, lanes, Real>(args, row, there ? group : 0, logits, begin, classes);
        if (!there) return;
        const Real gamma = Real(args.gamma);
        const Real upstream = static_cast<const Real*>(
            args.grad_loss
                .data)[row * args.grad_loss.row_stride + group * args.grad_loss.column_stride];
        const Real slope = upstream * static_cast<const Real*>(args.scale)[group] * item.weight *
                           (gamma == 0 ? focal_slope<Gamma::zero>(item.margin, gamma)
                                       : focal_slope<Gamma::any>(item.margin, gamma));
        T* grad = static_cast<T*>(args.grad_logits) + row * all_classes + begin;
        for (int k = threadIdx.x % lanes; k < classes; k += lanes) {
          const Real share = k == item.label
                                 ? Real(1)
                                 : -exp_nonpositive(widen<Real>(logits[k * stride]) - item.others);
          grad[k] = narrow<T>(item.missing ? Real(0) : share * slope);
        }
      });
}

Groups as_groups(const GroupedFocalLoss& args) {
  if (args.groups > most_groups)
    throw std::invalid_argument("fastmtl: the CUDA kernels take at most " +
                                std::to_string(most_groups) + " groups");
  Groups groups = {};
  for (std::int64_t g = 0; g < args.groups; ++g)
    groups.begin[g + 1] = groups.begin[g] + std::int32_t(args.group_sizes[g]);
  return groups;
}

// Lanes that share an item, for groups of so many classes on average.
int lanes_for(std::int64_t groups, std::int64_t classes) {
  if (classes <= 4 * groups) return 1;
  return classes <= 64 * groups ? 8 : warp_size;
}

// Calls body(T{}, lanes, groups, tiles).
template <class Body>
void with_items(const GroupedFocalLoss& args, const Body& body) {
  const Groups groups = as_groups(args);
  const int lanes = lanes_for(args.groups, groups.begin[args.groups]);
  const LossTiles tiles(args.rows, args.groups, loss_threads / lanes, 1);
  with_floating(args.logits.dtype, [&](auto element) {
    if (lanes == 1) return body(element, std::integral_constant<int, 1>{}, groups, tiles);
    if (lanes == 8) return body(element, std::integral_constant<int, 8>{}, groups, tiles);
    body(element, std::integral_constant<int, warp_size>{}, groups, tiles);
  });
}

}  // namespace

void grouped_focal_loss_forward(const GroupedFocalLossForward& args) {
  const DeviceGuard guard(args.device);
  const char* name = "grouped_focal_loss_forward";
  with_items(args, [&](auto element, auto lanes, const Groups& groups, const LossTiles& tiles) {
    using T = decltype(element);
    using Real = typename Accumulated<T>::Real;
    const auto results =
        loss_results<Real>(tiles, args.reduction, args.loss, args.scale, args.workspace);
    launch(name, grouped_forward<T, decltype(lanes)::value>, tiles.grid(), loss_threads,
           reduction_bytes<Real>(loss_threads), args.stream, args, tiles, groups, results);
    finish_reduction(name, tiles, results, args.stream);
  });
}

void grouped_focal_loss_backward(const GroupedFocalLossBackward& args) {
  const DeviceGuard guard(args.device);
  with_items(args, [&](auto element, auto lanes, const Groups& groups, const LossTiles& tiles) {
    launch("grouped_focal_loss_backward",
           grouped_backward<decltype(element), decltype(lanes)::value>, tiles.grid(), loss_threads,
           0, args.stream, args, tiles, groups);
  });
}

std::int64_t grouped_focal_loss_workspace(int device, std::int64_t rows, std::int64_t groups,
                                          std::int64_t classes) {
  const DeviceGuard guard(device);
  return LossTiles(rows, groups, loss_threads / lanes_for(groups, classes), 1).workspace();
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
