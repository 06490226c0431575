// One step of one unit of a GRU, and where its values lie: what both ways of running the recurrence
// share, the one launch of task_gru.cu and the launch a step of task_gru_steps.cu.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "cuda/launch.cuh"
#include "elements.h"
#include "gates.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

// Sequences of a launch, longest first. They are in host memory and travel as its parameter, which
// waits for nothing and is part of a captured graph; one launch takes as many as fit into the 4 KB
// that all devices and drivers accept.
constexpr int most_sequences = 448;

struct Sequences {
  std::int32_t start[most_sequences], length[most_sequences];
  std::int32_t count;
};

// All sequences of a call in such parts.
inline std::vector<Sequences> in_parts(const TaskGRU& args, int part) {
  if (args.rows > std::numeric_limits<std::int32_t>::max())
    throw std::invalid_argument("fastmtl: the CUDA kernels of GRUs take fewer than 2^31 rows");
  std::vector<std::int64_t> order(args.batch);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return args.lengths[a] > args.lengths[b];
  });
  std::vector<Sequences> parts(divide_up(args.batch, part));
  for (std::int64_t i = 0; i < args.batch; ++i) {
    Sequences& to = parts[i / part];
    to.start[to.count] = std::int32_t(args.starts[order[i]]);
    to.length[to.count++] = std::int32_t(args.lengths[order[i]]);
  }
  return parts;
}

// Where the values of a (task, direction) lie, for one unit of its state.
struct Pair {
  const TaskGRU& args;
  std::int32_t index, task, reverse, unit;

  __device__ Pair(const TaskGRU& args, std::int32_t index, std::int32_t unit)
      : args(args),
        index(index),
        task(index / std::int32_t(args.directions)),
        reverse(index % std::int32_t(args.directions)),
        unit(unit) {}

  // Step s of a sequence.
  __device__ std::int32_t row(std::int32_t start, std::int32_t length, std::int32_t s) const {
    return start + (reverse ? length - 1 - s : s);
  }
  // The row of the step before.
  __device__ std::int32_t before(std::int32_t row) const { return reverse ? row + 1 : row - 1; }
  // The r gate in `gates` or its gradient; z and n follow h and 2h elements later.
  __device__ std::int64_t gates(std::int32_t row) const {
    return task * args.gates_task_stride + row * args.gates_row_stride + reverse * 3 * args.hidden +
           unit;
  }
  // In an output or its gradient, (T, R, dirs * h).
  __device__ std::int64_t output(std::int32_t row) const {
    return ((task * args.rows + row) * args.directions + reverse) * args.hidden + unit;
  }
  // In an array (T, dirs, R, width * h).
  __device__ std::int64_t own(std::int32_t row, int width) const {
    return (index * args.rows + row) * width * args.hidden + unit;
  }
};

// Values that are kept in the dtype of the call. The branches are the same for a whole launch; as
// template arguments the dtypes would triple its kernels.
template <class Real>
__device__ Real read_kept(const TaskGRU& args, const void* data, std::int64_t index) {
  if constexpr (sizeof(Real) == sizeof(float)) {
    if (args.dtype == DType::bf16) return widen<Real>(static_cast<const BFloat16*>(data)[index]);
    if (args.dtype == DType::f16) return widen<Real>(static_cast<const Float16*>(data)[index]);
  }
  return static_cast<const Real*>(data)[index];
}
template <class Real>
__device__ void keep(const TaskGRU& args, void* data, std::int64_t index, Real value) {
  if constexpr (sizeof(Real) == sizeof(float)) {
    if (args.dtype == DType::bf16) {
      static_cast<BFloat16*>(data)[index] = narrow<BFloat16>(value);
      return;
    }
    if (args.dtype == DType::f16) {
      static_cast<Float16*>(data)[index] = narrow<Float16>(value);
      return;
    }
  }
  static_cast<Real*>(data)[index] = value;
}

// What a unit's gates add to their products; 0 for a unit beyond the last.
template <class Real>
struct GateBias {
  Real r, z, n, hidden;

  __device__ GateBias(const TaskGRUForward& args, const Pair& pair) : r(0), z(0), n(0), hidden(0) {
    const std::int64_t h = args.hidden, first = pair.index * 3 * h + pair.unit;
    if (pair.unit >= h) return;
    const Real* input = static_cast<const Real*>(args.bias_ih) + first;
    const Real* own = static_cast<const Real*>(args.bias_hh) + first;
    r = input[0] + own[0];
    z = input[h] + own[h];
    n = input[2 * h];
    hidden = own[2 * h];
  }
};

// A unit's products W_ih x.
template <class Real>
struct InputProducts {
  Real r, z, n;

  __device__ void read(const TaskGRUForward& args, const Pair& pair, std::int32_t row) {
    const std::int64_t at = pair.gates(row);
    r = read_kept<Real>(args, args.gates, at);
    z = read_kept<Real>(args, args.gates, at + args.hidden);
    n = read_kept<Real>(args, args.gates, at + 2 * args.hidden);
  }
};

// A unit's step forward from its state and the products W_hh h: writes what is kept of it, and
// returns its new state.
template <class Real>
__device__ Real forward_step(const TaskGRUForward& args, const Pair& pair, std::int32_t row,
                             const InputProducts<Real>& input, const GateBias<Real>& bias,
                             const Real (&product)[3], Real state) {
  const Real r = logistic(input.r + (product[0] + bias.r));
  const Real z = logistic(input.z + (product[1] + bias.z));
  const Real hidden = product[2] + bias.hidden;
  const Real n = hyperbolic_tangent(input.n + bias.n + r * hidden);
  state = n + z * (state - n);
  keep(args, args.output, pair.output(row), state);
  if (args.hidden_n) {
    const std::int64_t at = pair.gates(row);
    keep(args, args.gates, at, r);
    keep(args, args.gates, at + args.hidden, z);
    keep(args, args.gates, at + 2 * args.hidden, n);
    keep(args, args.hidden_n, pair.own(row, 1), hidden);
  }
  return state;
}

// What a unit's step backward reads.
template <class Real>
struct SavedStep {
  Real r, z, n, hidden, previous, upstream;

  __device__ void read(const TaskGRUBackward& args, const Pair& pair, std::int32_t row,
                       std::int32_t s) {
    const std::int64_t at = pair.gates(row);
    r = read_kept<Real>(args, args.gates, at);
    z = read_kept<Real>(args, args.gates, at + args.hidden);
    n = read_kept<Real>(args, args.gates, at + 2 * args.hidden);
    hidden = read_kept<Real>(args, args.hidden_n, pair.own(row, 1));
    upstream = read_kept<Real>(args, args.grad_output, pair.output(row));
    previous = s ? read_kept<Real>(args, args.output, pair.output(pair.before(row))) : Real(0);
  }
};

// Gradients of a unit's gates, and of W_hn h + b_hn.
template <class Real>
struct GateGrads {
  Real r = 0, z = 0, n = 0, hidden = 0;
};

// A unit's step backward: writes the gradients of its products. With dh the gradient of its state,
// `carry` becomes the part of it that bypasses them.
template <class Real>
__device__ GateGrads<Real> backward_step(const TaskGRUBackward& args, const Pair& pair,
                                         std::int32_t row, std::int32_t s, bool last,
                                         const SavedStep<Real>& step, Real& carry) {
  const std::int64_t h = args.hidden;
  const Real dh = carry + step.upstream;
  GateGrads<Real> grad;
  grad.n = dh * (1 - step.z) * (1 - step.n * step.n);
  grad.z = dh * (step.previous - step.n) * step.z * (1 - step.z);
  grad.r = grad.n * step.hidden * step.r * (1 - step.r);
  grad.hidden = grad.n * step.r;
  carry = dh * step.z;
  const std::int64_t at = pair.gates(row);
  keep(args, args.grad_gates, at, grad.r);
  keep(args, args.grad_gates, at + h, grad.z);
  keep(args, args.grad_gates, at + 2 * h, grad.n);
  if (s) {
    const std::int64_t to = pair.own(pair.before(row), 3);
    keep(args, args.grad_recurrent, to, grad.r);
    keep(args, args.grad_recurrent, to + h, grad.z);
    keep(args, args.grad_recurrent, to + 2 * h, grad.hidden);
  }
  if (last) {
    const std::int64_t to = pair.own(row, 3);
    for (int gate = 0; gate < 3; ++gate) keep(args, args.grad_recurrent, to + gate * h, Real(0));
  }
  return grad;
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
