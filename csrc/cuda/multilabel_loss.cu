// Multi-label loss; as focal_loss.cu, with more numbers an element.
#include <limits>

#include "cuda/loss_tiles.cuh"
#include "multilabel.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

// What the host has chosen: the same for all threads, so that asking costs nothing.
struct Loop {
  Power power;
  bool clipped;

  explicit Loop(const MultilabelLoss& args) {
    with_form(args, [&](auto kind, auto clip) {
      power = kind();
      clipped = clip();
    });
  }
};

// Calls body(kind, clipped) with the constants of a loop.
template <class Body>
__device__ void with_constants(const Loop& loop, const Body& body) {
  const auto with_power = [&](auto kind) {
    if (loop.clipped)
      body(kind, std::true_type{});
    else
      body(kind, std::false_type{});
  };
  if (loop.power == Power::whole)
    with_power(std::integral_constant<Power, Power::whole>{});
  else
    with_power(std::integral_constant<Power, Power::any>{});
}

template <class Real>
__device__ Real number(const PerTask& from, std::int64_t column) {
  return from.values ? static_cast<const Real*>(from.values)[column] : Real(from.same);
}

// The labels of a thread's positions, NaN where missing or outside, and the elements' weights.
template <int V, class Real>
__device__ void load_labels(const MultilabelLoss& args, const MultilabelForm<Real>& form,
                            const LossTiles& tiles, const LossPosition<V>& at, std::int64_t tile,
                            std::int64_t count, Real (&y)[V], Real (&share)[V]) {
  constexpr Real missing = std::numeric_limits<Real>::quiet_NaN();
  load(args.targets.data, args.targets.dtype, at.index(tiles, tile, args.targets), count, missing,
       y);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    share[v] = 1;
    y[v] += form.smoothing * (Real(0.5) - y[v]);
  }
  if (!args.weight.data) return;
  load(args.weight.data, args.weight.dtype, at.index(tiles, tile, args.weight), count, Real(0),
       share);
#pragma unroll
  for (int v = 0; v < V; ++v) y[v] = share[v] != 0 ? y[v] : missing;
}

// The weighed loss, or its derivative with respect to the logit, of a label that is not missing.
template <bool differentiated, Power kind, bool clipped, class Real>
__device__ Real element(const MultilabelLoss& args, const MultilabelForm<Real>& form,
                        std::int64_t column, Real logit, Real y, Real share) {
  const Real z = logit + number<Real>(args.shift, column);
  const auto of = [&](bool positive) {
    const Real power = number<Real>(positive ? args.gamma_pos : args.gamma_neg, column);
    // A power of less than 0 has no loss.
    const Real gamma = power >= 0 ? power : std::numeric_limits<Real>::quiet_NaN();
    const Real weight = number<Real>(positive ? args.pos_weight : args.neg_weight, column);
    if (differentiated) {
      const Real slope = multilabel_slope<kind, clipped>(z, positive, gamma, form);
      return weight * (positive ? -slope : slope);
    }
    const Real loss = weight * multilabel<kind, clipped>(z, positive, gamma, form);
    return positive ? loss : loss / form.neg_scale;
  };
  const bool positive = y > 0;
  Real value = share * (positive ? y : Real(1)) * of(positive);
  if (positive && y < 1) value += share * (1 - y) * of(false);
  return y >= 0 && y <= 1 ? value : std::numeric_limits<Real>::quiet_NaN();
}

template <class T, int V>
__global__ void __launch_bounds__(loss_threads)
    multilabel_forward(const __grid_constant__ MultilabelLossForward args,
                       const __grid_constant__ MultilabelForm<typename Accumulated<T>::Real> form,
                       const __grid_constant__ LossTiles tiles, Loop loop,
                       const __grid_constant__ LossResults<typename Accumulated<T>::Real> results) {
  using Real = typename Accumulated<T>::Real;
  const LossPosition<V> at(tiles, int(threadIdx.x) * V);
  Real sum[V] = {};
  int present[V] = {};

  for (std::int64_t tile = blockIdx.x; tile < tiles.tiles; tile += gridDim.x) {
    const std::int64_t count = at.count(tiles, tile);
    if (count <= 0) continue;
    Real z[V], y[V], share[V], loss[V];
    load(static_cast<const T*>(args.logits.data) + at.index(tiles, tile, args.logits), count,
         Real(0), z);
    load_labels(args, form, tiles, at, tile, count, y, share);
    with_constants(loop, [&](auto kind, auto clipped) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        loss[v] = 0;
        if (y[v] == y[v])
          loss[v] = element<false, decltype(kind)::value, decltype(clipped)::value>(
              args, form, at.column_of(tiles, v), z[v], y[v], share[v]);
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
  }

  reduce_block(tiles, results, at.position, at.position < tiles.tile_rows * tiles.width, sum,
               present);
}

template <class T, int V>
__global__ void __launch_bounds__(loss_threads)
    multilabel_backward(const __grid_constant__ MultilabelLossBackward args,
                        const __grid_constant__ MultilabelForm<typename Accumulated<T>::Real> form,
                        const __grid_constant__ LossTiles tiles, Loop loop) {
  using Real = typename Accumulated<T>::Real;
  const LossPosition<V> at(tiles, int(threadIdx.x) * V);
  const Matrix& upstream = args.grad_loss;
  const Real* grad_loss = static_cast<const Real*>(upstream.data);
  const bool reduced = upstream.row_stride == 0;
  Real coefficient[V], scale[V];
  load_columns(static_cast<const Real*>(args.scale), 1, tiles, at, scale);
  load_columns(reduced ? grad_loss : nullptr, upstream.column_stride, tiles, at, coefficient);
#pragma unroll
  for (int v = 0; v < V; ++v) coefficient[v] *= scale[v];

  for (std::int64_t tile = blockIdx.x; tile < tiles.tiles; tile += gridDim.x) {
    const std::int64_t count = at.count(tiles, tile);
    if (count <= 0) continue;
    Real z[V], y[V], share[V], grad[V];
    load(static_cast<const T*>(args.logits.data) + at.index(tiles, tile, args.logits), count,
         Real(0), z);
    load_labels(args, form, tiles, at, tile, count, y, share);
    if (!reduced) {
      load(grad_loss + at.index(tiles, tile, upstream), count, Real(0), coefficient);
#pragma unroll
      for (int v = 0; v < V; ++v) coefficient[v] *= scale[v];
    }
    with_constants(loop, [&](auto kind, auto clipped) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        grad[v] = 0;
        if (y[v] == y[v])
          grad[v] = element<true, decltype(kind)::value, decltype(clipped)::value>(
              args, form, at.column_of(tiles, v), z[v], y[v], share[v] * coefficient[v]);
      }
    });
    const Matrix dense = {nullptr, args.logits.dtype, tiles.columns, 1};
    store(grad, count, static_cast<T*>(args.grad_logits) + at.index(tiles, tile, dense));
  }
}

template <class Body>
void with_tiles(const MultilabelLoss& args, bool others_dense, const Body& body) {
  const bool all_dense = others_dense && dense(args.logits, args.tasks) &&
                         dense(args.targets, args.tasks) && dense(args.weight, args.tasks);
  with_loss_tiles(args.logits.dtype, args.rows, args.tasks, all_dense, body);
}

}  // namespace

void multilabel_loss_forward(const MultilabelLossForward& args) {
  const DeviceGuard guard(args.device);
  const bool loss_dense = args.reduction != Reduction::none || aligned(args.loss);
  with_tiles(args, loss_dense, [&](auto element, auto vector, const LossTiles& tiles) {
    using T = decltype(element);
    using Real = typename Accumulated<T>::Real;
    constexpr int V = decltype(vector)::value;
    const char* name = "multilabel_loss_forward";
    reduce_loss<Real>(name, args, tiles, [&](const LossResults<Real>& results) {
      launch(name, multilabel_forward<T, V>, tiles.grid(), loss_threads,
             reduction_bytes<Real>(loss_threads * V), args.stream, args, MultilabelForm<Real>(args),
             tiles, Loop(args), results);
    });
  });
}

void multilabel_loss_backward(const MultilabelLossBackward& args) {
  const DeviceGuard guard(args.device);
  const bool reduced = args.grad_loss.row_stride == 0;
  const bool others_dense =
      aligned(args.grad_logits) && (reduced || dense(args.grad_loss, args.tasks));
  with_tiles(args, others_dense, [&](auto element, auto vector, const LossTiles& tiles) {
    using T = decltype(element);
    using Real = typename Accumulated<T>::Real;
    launch("multilabel_loss_backward", multilabel_backward<T, decltype(vector)::value>,
           tiles.grid(), loss_threads, 0, args.stream, args, MultilabelForm<Real>(args), tiles,
           Loop(args));
  });
}

std::int64_t multilabel_loss_workspace(int device, std::int64_t rows, std::int64_t tasks) {
  return elementwise_loss_workspace(device, rows, tasks);
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
