// Focal multi-task loss. Forward reads logits and targets once, backward once more and writes the
// gradient: 2 and 3 passes over N T elements are all the memory traffic there is.
#include <limits>

#include "cuda/loss_tiles.cuh"
#include "math.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

// Stands for targets of a dtype that a kernel asks for at every access.
struct Any {};

// Targets at a position, NaN where missing or outside.
template <class Y, int V, class Real>
__device__ void load_targets(const FocalLoss& args, const LossTiles& tiles,
                             const LossPosition<V>& at, std::int64_t tile, std::int64_t count,
                             Real (&y)[V]) {
  constexpr Real missing = std::numeric_limits<Real>::quiet_NaN();
  const std::int64_t index = at.index(tiles, tile, args.targets);
  if constexpr (std::is_same_v<Y, Any>)
    load(args.targets.data, args.targets.dtype, index, count, missing, y);
  else
    load(static_cast<const Y*>(args.targets.data) + index, count, missing, y);
  if (!args.mask.data) return;
  Real mask[V];
  load(static_cast<const std::uint8_t*>(args.mask.data) + at.index(tiles, tile, args.mask), count,
       Real(0), mask);
#pragma unroll
  for (int v = 0; v < V; ++v) y[v] = mask[v] != 0 ? y[v] : missing;
}

// What a thread has of several whole tiles, as it lies in memory: all of it is asked for before
// any of it is waited for.
template <class T, class Y, int V, int count>
struct Several {
  Pack<T, V> z[count];
  Pack<Y, V> y[count];
  Pack<std::uint8_t, V> mask[count];

  __device__ Several(const FocalLoss& args, const LossTiles& tiles, const LossPosition<V>& at,
                     std::int64_t tile) {
    std::int64_t index[count];
#pragma unroll
    for (int u = 0; u < count; ++u) index[u] = at.index(tiles, tile + u * gridDim.x, args.logits);
#pragma unroll
    for (int u = 0; u < count; ++u)
      z[u] = Pack<T, V>::read(static_cast<const T*>(args.logits.data) + index[u]);
#pragma unroll
    for (int u = 0; u < count; ++u)
      y[u] = Pack<Y, V>::read(static_cast<const Y*>(args.targets.data) + index[u]);
    if (!args.mask.data) return;
#pragma unroll
    for (int u = 0; u < count; ++u)
      mask[u] =
          Pack<std::uint8_t, V>::read(static_cast<const std::uint8_t*>(args.mask.data) + index[u]);
  }

  // Those of one tile, targets as load_targets has them.
  template <class Real>
  __device__ void widen_to(bool masked, int u, Real (&logits)[V], Real (&targets)[V]) const {
    constexpr Real missing = std::numeric_limits<Real>::quiet_NaN();
#pragma unroll
    for (int v = 0; v < V; ++v) {
      logits[v] = widen<Real>(z[u].element[v]);
      targets[v] = widen<Real>(y[u].element[v]);
      if (masked) targets[v] = mask[u].element[v] ? targets[v] : missing;
    }
  }
};

// Calls several(tile, Constant<count>{}) for as many whole tiles at once as there are, and
// one(tile, elements) for what is left of a thread's tiles.
template <class Y, int V, class Together, class One>
__device__ void for_tiles(const LossTiles& tiles, const LossPosition<V>& at, bool together,
                          const Together& several, const One& one) {
  constexpr int most = 2;
  std::int64_t tile = blockIdx.x;
  if constexpr (!std::is_same_v<Y, Any>) {
    const std::int64_t last = (most - 1) * std::int64_t(gridDim.x);
    for (; together && tile + last < tiles.tiles; tile += last + gridDim.x) {
      if (at.count(tiles, tile + last) < V) break;
      several(tile, Constant<most>{});
    }
  }
  for (; tile < tiles.tiles; tile += gridDim.x) {
    const std::int64_t count = at.count(tiles, tile);
    if (count > 0) one(tile, count);
  }
}

template <class T, class Y, int V>
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

  const auto add = [&](std::int64_t tile, std::int64_t count, const Real(&z)[V],
                       const Real(&y)[V]) {
    Real loss[V];
    with_gamma(kind, [&](auto constant) {
      constexpr Gamma form = decltype(constant)::value;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const bool positive = y[v] == 1;
        const Real one = focal<form, rough<T, form>>(positive ? z[v] : -z[v], gamma);
        const Real weighed = one * (positive ? weight[v] : Real(1));
        const Real known = positive | (y[v] == 0) ? weighed : nan;
        loss[v] = y[v] == y[v] ? known : Real(0);
      }
    });
#pragma unroll
    for (int v = 0; v < V; ++v) {
      sum[v] += loss[v];
      present[v] += y[v] == y[v];
    }
    if (results.reduction == Reduction::none) {
      const Matrix dense = {nullptr, DType::f32, tiles.columns, 1};
      store(loss, count, results.loss + at.index(tiles, tile, dense));
    }
  };
  for_tiles<Y>(
      tiles, at, true,
      [&](std::int64_t tile, auto count) {
        if constexpr (!std::is_same_v<Y, Any>) {
          const Several<T, Y, V, count()> raw(args, tiles, at, tile);
#pragma unroll
          for (int u = 0; u < count(); ++u) {
            Real z[V], y[V];
            raw.widen_to(args.mask.data, u, z, y);
            add(tile + u * std::int64_t(gridDim.x), V, z, y);
          }
        }
      },
      [&](std::int64_t tile, std::int64_t count) {
        Real z[V], y[V];
        load(static_cast<const T*>(args.logits.data) + at.index(tiles, tile, args.logits), count,
             Real(0), z);
        load_targets<Y>(args, tiles, at, tile, count, y);
        add(tile, count, z, y);
      });

  reduce_block(tiles, results, at.position, at.position < tiles.tile_rows * tiles.width, sum,
               present);
}

template <class T, class Y, int V>
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

  const auto write = [&](std::int64_t tile, std::int64_t count, const Real(&z)[V],
                         const Real(&y)[V]) {
    Real grad[V];
    with_gamma(kind, [&](auto constant) {
      constexpr Gamma form = decltype(constant)::value;
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const bool positive = y[v] == 1;
        const Real slope =
            coefficient[v] * focal_slope<form, rough<T, form>>(positive ? z[v] : -z[v], gamma);
        const Real weighed = slope * (positive ? weight[v] : Real(-1));
        const Real known = positive | (y[v] == 0) ? weighed : nan;
        grad[v] = y[v] == y[v] ? known : Real(0);
      }
    });
    const Matrix dense = {nullptr, args.logits.dtype, tiles.columns, 1};
    store(grad, count, static_cast<T*>(args.grad_logits) + at.index(tiles, tile, dense));
  };
  for_tiles<Y>(
      tiles, at, reduced,
      [&](std::int64_t tile, auto count) {
        if constexpr (!std::is_same_v<Y, Any>) {
          const Several<T, Y, V, count()> raw(args, tiles, at, tile);
#pragma unroll
          for (int u = 0; u < count(); ++u) {
            Real z[V], y[V];
            raw.widen_to(args.mask.data, u, z, y);
            write(tile + u * std::int64_t(gridDim.x), V, z, y);
          }
        }
      },
      [&](std::int64_t tile, std::int64_t count) {
        Real z[V], y[V];
        load(static_cast<const T*>(args.logits.data) + at.index(tiles, tile, args.logits), count,
             Real(0), z);
        load_targets<Y>(args, tiles, at, tile, count, y);
        if (!reduced) {
          load(grad_loss + at.index(tiles, tile, upstream), count, Real(0), coefficient);
#pragma unroll
          for (int v = 0; v < V; ++v) coefficient[v] *= scale[v];
        }
        write(tile, count, z, y);
      });
}

// Calls body(T{}, Y{}, V, tiles) with the widest access that the arguments allow, and with the
// targets' type where accesses are wide and it is that of the logits, or bytes.
template <class Body>
void with_tiles(const FocalLoss& args, bool others_dense, const Body& body) {
  const bool all_dense = others_dense && dense(args.logits, args.tasks) &&
                         dense(args.targets, args.tasks) && dense(args.mask, args.tasks);
  with_loss_tiles(args.logits.dtype, args.rows, args.tasks, all_dense,
                  [&](auto element, auto vector, const LossTiles& tiles) {
                    if constexpr (decltype(vector)::value > 1) {
                      if (args.targets.dtype == args.logits.dtype)
                        return body(element, element, vector, tiles);
                      if (args.targets.dtype == DType::u8)
                        return body(element, std::uint8_t{}, vector, tiles);
                    }
                    body(element, Any{}, vector, tiles);
                  });
}

}  // namespace

void focal_loss_forward(const FocalLossForward& args) {
  const DeviceGuard guard(args.device);
  const bool loss_dense = args.reduction != Reduction::none || aligned(args.loss);
  with_tiles(args, loss_dense, [&](auto element, auto target, auto vector, LossTiles tiles) {
    using T = decltype(element);
    using Real = typename Accumulated<T>::Real;
    constexpr int V = decltype(vector)::value;
    constexpr auto kernel = focal_forward<T, decltype(target), V>;
    const char* name = "focal_loss_forward";
    const std::int64_t shared_bytes = reduction_bytes<Real>(loss_threads * V);
    tiles.fit(resident_blocks<kernel>(name, loss_threads, shared_bytes));
    reduce_loss<Real>(name, args, tiles, [&](const LossResults<Real>& results) {
      launch(name, kernel, tiles.grid(), loss_threads, shared_bytes, args.stream, args, tiles,
             gamma_kind(args.gamma), results);
    });
  });
}

void focal_loss_backward(const FocalLossBackward& args) {
  const DeviceGuard guard(args.device);
  const bool reduced = args.grad_loss.row_stride == 0;
  const bool others_dense =
      aligned(args.grad_logits) && (reduced || dense(args.grad_loss, args.tasks));
  with_tiles(args, others_dense, [&](auto element, auto target, auto vector, LossTiles tiles) {
    constexpr auto kernel =
        focal_backward<decltype(element), decltype(target), decltype(vector)::value>;
    const char* name = "focal_loss_backward";
    tiles.fit(resident_blocks<kernel>(name, loss_threads, 0));
    launch(name, kernel, tiles.grid(), loss_threads, 0, args.stream, args, tiles,
           gamma_kind(args.gamma));
  });
}

std::int64_t focal_loss_workspace(int device, std::int64_t rows, std::int64_t tasks) {
  return elementwise_loss_workspace(device, rows, tasks);
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
