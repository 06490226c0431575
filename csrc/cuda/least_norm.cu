// The point of least norm in the convex hull of gradients, from their Gramian: one block, so that
// all iterations are one launch.
#include <limits>

#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

// A larger problem would keep one block for too long.
constexpr std::int64_t least_norm_tasks = 1024;

namespace {

constexpr int threads = 256;
constexpr int warps = threads / warp_size;

// A pair of tasks (b, a), as b * T + a, and what it gains to move weight from a to b.
template <class Real>
struct Move {
  Real gain, weight;
  std::int64_t pair;

  // Of two that gain the same, the first one: one order, whatever thread found them.
  __device__ bool worse_than(const Move& other) const {
    return other.gain > gain || (other.gain == gain && other.pair < pair);
  }
};

template <class Real>
__device__ Move<Real> best_of_lanes(Move<Real> move) {
#pragma unroll
  for (int offset = warp_size / 2; offset > 0; offset /= 2) {
    const Move<Real> other = {__shfl_xor_sync(all_lanes, move.gain, offset),
                              __shfl_xor_sync(all_lanes, move.weight, offset),
                              __shfl_xor_sync(all_lanes, move.pair, offset)};
    if (move.worse_than(other)) move = other;
  }
  return move;
}

// The same of all threads; every thread gets it.
template <class Real>
__device__ Move<Real> best_of_block(Move<Real> move, Move<Real>* scratch) {
  move = best_of_lanes(move);
  if (threadIdx.x % warp_size == 0) scratch[threadIdx.x / warp_size] = move;
  __syncthreads();
  move = scratch[0];
#pragma unroll
  for (int warp = 1; warp < warps; ++warp)
    if (move.worse_than(scratch[warp])) move = scratch[warp];
  __syncthreads();
  return move;
}

// The diagonal of the Gramian, the weights, and S c, (T,) each.
template <class Real>
struct Vectors {
  Real *squares, *weights, *slope;
};

// The move from task a to task b: as much weight as is best, and at most all that a has.
template <class Real>
__device__ Move<Real> move_between(const Vectors<Real>& v, Real product, std::int64_t b,
                                   std::int64_t a, std::int64_t tasks) {
  Real distance = v.squares[b] + v.squares[a] - 2 * product;
  distance = distance > 0 ? distance : 0;
  const Real drop = v.slope[a] - v.slope[b];
  // Without a distance the gradients are equal, and there is nothing to gain.
  Real weight = distance > 0 && drop > 0 ? drop / distance : 0;
  weight = weight < v.weights[a] ? weight : v.weights[a];
  return {weight * (drop - weight * distance / 2), weight, b * tasks + a};
}

template <class Real>
__global__ void __launch_bounds__(threads)
    least_norm(const __grid_constant__ LeastNormWeights args) {
  const std::int64_t tasks = args.tasks;
  Vectors<Real> v;
  Move<Real>* scratch = reinterpret_cast<Move<Real>*>(shared_memory);
  v.squares = reinterpret_cast<Real*>(scratch + warps);
  v.weights = v.squares + tasks;
  v.slope = v.weights + tasks;
  Real& not_finite = v.slope[tasks];
  const Real* gramian = static_cast<const Real*>(args.gramian);

  if (threadIdx.x == 0) not_finite = 0;
  for (std::int64_t t = threadIdx.x; t < tasks; t += threads) v.squares[t] = gramian[t * tasks + t];
  __syncthreads();
  for (std::int64_t i = threadIdx.x; i < tasks * tasks; i += threads)
    if (gramian[i] - gramian[i] != 0) not_finite = 1;  // NaN for NaN and for infinity
  Real largest = std::numeric_limits<Real>::min(), present = 0;
  for (std::int64_t t = 0; t < tasks; ++t) {
    largest = v.squares[t] > largest ? v.squares[t] : largest;
    present += v.squares[t] > 0;
  }
  __syncthreads();
  const Real scale = 1 / largest;
  for (std::int64_t t = threadIdx.x; t < tasks; t += threads) {
    v.weights[t] = v.squares[t] > 0 ? 1 / present : 0;
    v.squares[t] *= scale;
  }

  for (std::int64_t i = 0; i < args.iterations; ++i) {
    __syncthreads();
    for (std::int64_t b = threadIdx.x; b < tasks; b += threads) {
      Real sum = 0;
      for (std::int64_t a = 0; a < tasks; ++a) sum += gramian[a * tasks + b] * scale * v.weights[a];
      v.slope[b] = sum;
    }
    __syncthreads();
    Move<Real> best = {0, 0, 0};
    for (std::int64_t pair = threadIdx.x; pair < tasks * tasks; pair += threads) {
      const std::int64_t b = pair / tasks, a = pair - b * tasks;
      if (!(v.squares[b] > 0)) continue;
      const Move<Real> move = move_between(v, gramian[pair] * scale, b, a, tasks);
      if (best.worse_than(move)) best = move;
    }
    best = best_of_block(best, scratch);
    if (!(best.gain > 0)) break;
    if (threadIdx.x == 0) {
      v.weights[best.pair / tasks] += best.weight;
      v.weights[best.pair % tasks] -= best.weight;
    }
  }
  __syncthreads();
  for (std::int64_t t = threadIdx.x; t < tasks; t += threads)
    static_cast<Real*>(args.out)[t] =
        not_finite ? std::numeric_limits<Real>::quiet_NaN() : v.weights[t];
}

template <class Real>
void solve(const LeastNormWeights& args) {
  const std::int64_t bytes = warps * sizeof(Move<Real>) + (3 * args.tasks + 1) * sizeof(Real);
  launch("least_norm_weights", least_norm<Real>, dim3(1), threads, bytes, args.stream, args);
}

}  // namespace

void least_norm_weights(const LeastNormWeights& args) {
  const DeviceGuard guard(args.device);
  if (args.tasks > least_norm_tasks)
    throw std::invalid_argument("fastmtl: the CUDA kernel takes at most " +
                                std::to_string(least_norm_tasks) + " tasks");
  if (args.dtype == DType::f64) return solve<double>(args);
  solve<float>(args);
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
