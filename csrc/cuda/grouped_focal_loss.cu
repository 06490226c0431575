// Focal loss over groups of classes.
//
// An item is one group of one row. 1, 8 or 32 neighbouring lanes share it, by the number of
// classes, so that neighbouring lanes read neighbouring logits; an item's logits are read again
// from the cache for each pass over them. Where the items have enough classes for it, a lane reads
// those of 16 bytes at a time, wherever they begin. The sum of each group is reduced like a column
// of the binary loss.
#include <limits>

#include "cuda/loss_tiles.cuh"
#include "math.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

constexpr std::int64_t grouped_focal_loss_groups = 768;

namespace {

// Passed by value, in the constant bank: group g has the classes from begin[g] to begin[g + 1].
struct Groups {
  std::int32_t begin[grouped_focal_loss_groups + 1];
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

// An item's classes, as its lanes share them out: V consecutive ones each, which are one access
// where none of them lies outside of the item.
template <class T, int lanes, int V, class Real>
struct Classes {
  T* logits;            // or their gradients
  std::int64_t stride;  // 1 where V > 1
  int count, before;    // before: elements between the first class and the 16 bytes it lies in

  __device__ Classes(T* logits, std::int64_t stride, int count)
      : logits(logits),
        stride(stride),
        count(count),
        before(V > 1 ? int(reinterpret_cast<std::uintptr_t>(logits) / sizeof(T) % V) : 0) {}

  // Calls body(k, values): for classes k to k + V - 1, some of which may lie outside.
  template <class Body>
  __device__ void each(const Body& body) const {
    for (int k = int(threadIdx.x) % lanes * V - before; k < count; k += lanes * V) {
      Real z[V];
      if (V > 1 && inside(k)) {
        load(logits + k, V, Real(0), z);
      } else {
#pragma unroll
        for (int v = 0; v < V; ++v) z[v] = has(k + v) ? widen<Real>(logits[(k + v) * stride]) : 0;
      }
      body(k, z);
    }
  }
  // Writes classes k to k + V - 1, as far as there are such.
  __device__ void write(int k, const Real (&z)[V]) const {
    if (V > 1 && inside(k) && (k + before) % V == 0) return store(z, V, logits + k);
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (has(k + v)) logits[(k + v) * stride] = narrow<T>(z[v]);
  }
  __device__ bool has(int k) const { return k >= 0 && k < count; }
  __device__ bool inside(int k) const { return k >= 0 && k + V <= count; }
};

template <class T, int lanes, int V, class Real>
__device__ Margin<Real> find_margin(const GroupedFocalLoss& args, std::int64_t row,
                                    std::int64_t group, const T* logits, int begin, int classes) {
  const Classes<const T, lanes, V, Real> all(logits, args.logits.column_stride, classes);
  Margin<Real> item;
  item.label = static_cast<const std::int64_t*>(
      args.targets.data)[row * args.targets.row_stride + group * args.targets.column_stride];
  item.missing = item.label == args.ignore_index;
  const bool known = item.label >= 0 && item.label < classes;
  Real largest = std::numeric_limits<Real>::lowest(), sum = 0;
  all.each([&](int k, const Real(&z)[V]) {
#pragma unroll
    for (int v = 0; v < V; ++v)
      largest = all.has(k + v) && k + v != item.label && z[v] > largest ? z[v] : largest;
  });
  largest = largest_of_lanes<lanes>(largest);
  all.each([&](int k, const Real(&z)[V]) {
#pragma unroll
    for (int v = 0; v < V; ++v)
      sum += all.has(k + v) && k + v != item.label ? exp_nonpositive(z[v] - largest) : Real(0);
  });
  sum = sum_of_lanes<lanes>(sum);
  const Real* weights = static_cast<const Real*>(args.weight);
  item.others = largest + log_from_one(sum);
  item.margin = (known ? widen<Real>(logits[item.label * all.stride]) : Real(0)) - item.others;
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

template <class T, int lanes, int V>
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
            find_margin<T, lanes, V, Real>(args, row, there ? group : 0, logits, begin, classes);
        if (!there || !first) return;
        const Real gamma = Real(args.gamma);
        const Real value = item.missing ? Real(0) : focal(item.margin, gamma) * item.weight;
        sum[0] += value;
        present[0] += !item.missing;
        if (results.reduction == Reduction::none) results.loss[row * tiles.columns + group] = value;
      });
  reduce_block(tiles, results, position, first && position < tiles.tile_rows * tiles.width, sum,
               present);
}

template <class T, int lanes, int V>
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
            find_margin<T, lanes, V, Real>(args, row, there ? group : 0, logits, begin, classes);
        if (!there) return;
        const Real gamma = Real(args.gamma);
        const Real upstream = static_cast<const Real*>(
            args.grad_loss
                .data)[row * args.grad_loss.row_stride + group * args.grad_loss.column_stride];
        const Real slope = upstream * static_cast<const Real*>(args.scale)[group] * item.weight *
                           focal_slope(item.margin, gamma);
        const Classes<const T, lanes, V, Real> all(logits, stride, classes);
        const Classes<T, lanes, V, Real> grads(
            static_cast<T*>(args.grad_logits) + row * all_classes + begin, 1, classes);
        all.each([&](int k, const Real(&z)[V]) {
          Real grad[V];
#pragma unroll
          for (int v = 0; v < V; ++v) {
            const Real share = k + v == item.label ? Real(1) : -exp_nonpositive(z[v] - item.others);
            grad[v] = item.missing ? Real(0) : share * slope;
          }
          grads.write(k, grad);
        });
      });
}

Groups as_groups(const GroupedFocalLoss& args) {
  const std::int64_t count = args.group_sizes.count;
  if (count > grouped_focal_loss_groups)
    throw std::invalid_argument("fastmtl: the CUDA kernels take at most " +
                                std::to_string(grouped_focal_loss_groups) + " groups");
  Groups groups = {};
  for (std::int64_t g = 0; g < count; ++g)
    groups.begin[g + 1] = groups.begin[g] + std::int32_t(args.group_sizes.data[g]);
  return groups;
}

// Lanes that share an item, for groups of so many classes on average.
int lanes_for(std::int64_t groups, std::int64_t classes) {
  if (classes <= 4 * groups) return 1;
  return classes <= 64 * groups ? 8 : warp_size;
}

// Calls body(T{}, lanes, V, groups, tiles).
template <class Body>
void with_items(const GroupedFocalLoss& args, const Body& body) {
  const Groups groups = as_groups(args);
  const std::int64_t count = args.group_sizes.count, classes = groups.begin[count];
  const int lanes = lanes_for(count, classes);
  const LossTiles tiles(args.rows, count, loss_threads / lanes, 1);
  with_floating(args.logits.dtype, [&](auto element) {
    constexpr int V = widest<decltype(element)>;
    // A wide access each for all lanes of most items.
    const bool wide = args.logits.column_stride == 1 && classes >= count * lanes * V;
    const auto with_width = [&](auto lanes) {
      if (wide) return body(element, lanes, Constant<V>{}, groups, tiles);
      body(element, lanes, Constant<1>{}, groups, tiles);
    };
    if (lanes == 1) return body(element, Constant<1>{}, Constant<1>{}, groups, tiles);
    if (lanes == 8) return with_width(Constant<8>{});
    with_width(Constant<warp_size>{});
  });
}

}  // namespace

void grouped_focal_loss_forward(const GroupedFocalLossForward& args) {
  const DeviceGuard guard(args.device);
  const char* name = "grouped_focal_loss_forward";
  with_items(args, [&](auto element, auto lanes, auto width, const Groups& groups,
                       const LossTiles& tiles) {
    using T = decltype(element);
    using Real = typename Accumulated<T>::Real;
    reduce_loss<Real>(name, args, tiles, [&](const LossResults<Real>& results) {
      launch(name, grouped_forward<T, decltype(lanes)::value, decltype(width)::value>, tiles.grid(),
             loss_threads, reduction_bytes<Real>(loss_threads), args.stream, args, tiles, groups,
             results);
    });
  });
}

void grouped_focal_loss_backward(const GroupedFocalLossBackward& args) {
  const DeviceGuard guard(args.device);
  with_items(args, [&](auto element, auto lanes, auto width, const Groups& groups,
                       const LossTiles& tiles) {
    launch("grouped_focal_loss_backward",
           grouped_backward<decltype(element), decltype(lanes)::value, decltype(width)::value>,
           tiles.grid(), loss_threads, 0, args.stream, args, tiles, groups);
  });
}

std::int64_t grouped_focal_loss_workspace(int device, std::int64_t rows, std::int64_t groups,
                                          std::int64_t classes) {
  const DeviceGuard guard(device);
  return LossTiles(rows, groups, loss_threads / lanes_for(groups, classes), 1).workspace();
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
