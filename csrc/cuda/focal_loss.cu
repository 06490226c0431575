// Focal multi-task loss. Forward reads logits and targets once, backward once more and writes the
// gradient: 2 and 3 passes over N T elements are all the memory traffic there is.
#include <limits>

#include "cuda/loss_tiles.cuh"
#include "math.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

// Targets at a position, NaN where missing or outside.
template <int V, class Real>
__device__ void load_targets(const FocalLoss& args, const LossTiles& tiles,
                             const LossPosition<V>& at, std::int64_t tile, std::int64_t count,
                             Real (&y)[V]) {
  constexpr Real missing = std::numeric_limits<Real>::quiet_NaN();
  load(args.targets.data, args.targets.dtype, at.index(tiles, tile, args.targets), count, missing,
       y);
  if (!args.mask.data) return;
  Real mask[V];
  load(static_cast<const std::uint8_t*>(args.mask.data) + at.index(tiles, tile, args.mask), count,
       Real(0), mask);
#pragma unroll
  for (int v = 0; v < V; ++v) y[v] = mask[v] != 0 ? y[v] : missing;
}

template <class T, int V>
__global__ void __launch_bounds__(loss_threads)
    focal_forward(const __grid_constant__ FocalLossForward args,
                  const __grid_constant__ LossTiles tiles, Gamma kind,
                  const __grid_constant__ LossResults<typename Accumulated<T>::Real> results) {
  using Real = typename Accumulated<T>::Real;
  constexpr Real nan = std::numeric_limits<Real>::quiet_NaN();
  const LossPosition<V> at(tiles, int(threadIdx.x) * V);
  const Real gamma = Real(args.gamma);
  Real weight[V], sum[V] = {};
  int present[V] = {};
  load_columns(static_cast<const Real*>(args.pos_weight), 1, tiles, at, weight);

  for (std::int64_t tile = blockIdx.x; tile < tiles.tiles; tile += gridDim.x) {
    const std::int64_t count = at.count(tiles, tile);
    if (count <= 0) continue;
    Real z[V], y[V], loss[V];
    load(static_cast<const T*>(args.logits.data) + at.index(tiles, tile, args.logits), count,
         Real(0), z);
    load_targets(args, tiles, at, tile, count, y);
    with_gamma(kind, [&](auto constant) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const bool positive = y[v] == 1;
        const Real one = focal<decltype(constant)::value>(positive ? z[v] : -z[v], gamma);
        const Real weighed = positive ? one * weight[v] : one;
        loss[v] = positive || y[v] == 0 ? weighed : nan;
      }
    });
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const bool there = y[v] == y[v];
      loss[v] = there ? loss[v] : Real(0);
      sum[v] += loss[v];
      present[v] += there;
    }
    if (results.reduction == Reduction::none) {
      const Matrix dense = {nullptr, DType::f32, tiles.columns, 1};
      store(loss, count, results.loss + at.index(tiles, tile, dense));
    }
  }

  reduce_block(tiles, results, at.position, at.position < tiles.tile_rows * tiles.width, sum,
               present);
}

template <class T, int V>
__global__ void __launch_bounds__(loss_threads)
    focal_backward(const __grid_constant__ FocalLossBackward args,
                   const __grid_constant__ LossTiles tiles, Gamma kind) {
  using Real = typename Accumulated<T>::Real;
  constexpr Real nan = std::numeric_limits<Real>::quiet_NaN();
  const LossPosition<V> at(tiles, int(threadIdx.x) * V);
  const Matrix& upstream = args.grad_loss;
  const Real* grad_loss = static_cast<const Real*>(upstream.data);
  const Real gamma = Real(args.gamma);
  const bool reduced = upstream.row_stride == 0;
  Real weight[V], coefficient[V], scale[V];
  load_columns(static_cast<const Real*>(args.pos_weight), 1, tiles, at, weight);
  load_columns(static_cast<const Real*>(args.scale), 1, tiles, at, scale);
  load_columns(reduced ? grad_loss : nullptr, upstream.column_stride, tiles, at, coefficient);
#pragma unroll
  for (int v = 0; v < V; ++v) coefficient[v] *= scale[v];

  for (std::int64_t tile = blockIdx.x; tile < tiles.tiles; tile += gridDim.x) {
    const std::int64_t count = at.count(tiles, tile);
    if (count <= 0) continue;
    Real z[V], y[V], grad[V];
    load(static_cast<const T*>(args.logits.data) + at.index(tiles, tile, args.logits), count,
         Real(0), z);
    load_targets(args, tiles, at, tile, count, y);
    if (!reduced) {
      load(grad_loss + at.index(tiles, tile, upstream), count, Real(0), coefficient);
#pragma unroll
      for (int v = 0; v < V; ++v) coefficient[v] *= scale[v];
    }
    with_gamma(kind, [&](auto constant) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const bool positive = y[v] == 1;
        const Real slope =
            coefficient[v] * focal_slope<decltype(constant)::value>(positive ? z[v] : -z[v], gamma);
        const Real weighed = positive ? slope * weight[v] : -slope;
        const Real known = positive || y[v] == 0 ? weighed : nan;
        grad[v] = y[v] == y[v] ? known : Real(0);
      }
    });
    const Matrix dense = {nullptr, args.logits.dtype, tiles.columns, 1};
    store(grad, count, static_cast<T*>(args.grad_logits) + at.index(tiles, tile, dense));
  }
}

// Calls body(T{}, V, tiles) with the widest access that the arguments allow.
template <class Body>
void with_tiles(const FocalLoss& args, bool others_dense, const Body& body) {
  const bool all_dense = others_dense && dense(args.logits, args.tasks) &&
                         dense(args.targets, args.tasks) && dense(args.mask, args.tasks);
  with_loss_tiles(args.logits.dtype, args.rows, args.tasks, all_dense, body);
}

}  // namespace

void focal_loss_forward(const FocalLossForward& args) {
  const DeviceGuard guard(args.device);
  const bool loss_dense = args.reduction != Reduction::none || aligned(args.loss);
  with_tiles(args, loss_dense, [&](auto element, auto vector, const LossTiles& tiles) {
    using T = decltype(element);
    using Real = typename Accumulated<T>::Real;
    constexpr int V = decltype(vector)::value;
    const char* name = "focal_loss_forward";
    reduce_loss<Real>(name, args, tiles, [&](const LossResults<Real>& results) {
      launch(name, focal_forward<T, V>, tiles.grid(), loss_threads,
             reduction_bytes<Real>(loss_threads * V), args.stream, args, tiles,
             gamma_kind(args.gamma), results);
    });
  });
}

void focal_loss_backward(const FocalLossBackward& args) {
  const DeviceGuard guard(args.device);
  const bool reduced = args.grad_loss.row_stride == 0;
  const bool others_dense =
      aligned(args.grad_logits) && (reduced || dense(args.grad_loss, args.tasks));
  with_tiles(args, others_dense, [&](auto element, auto vector, const LossTiles& tiles) {
    using T = decltype(element);
    launch("focal_loss_backward", focal_backward<T, decltype(vector)::value>, tiles.grid(),
           loss_threads, 0, args.stream, args, tiles, gamma_kind(args.gamma));
  });
}

std::int64_t focal_loss_workspace(int device, std::int64_t rows, std::int64_t tasks) {
  return elementwise_loss_workspace(device, rows, tasks);
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
