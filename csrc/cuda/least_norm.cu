// The point of least norm in the convex hull of gradients, from their Gramian, by active sets: one
// block, so that all iterations are one launch. fastmtl/backends/reference/least_norm.py has the
// mathematics, and the same names.
//
// Every warp does every reduction over the tasks for itself, so that all threads decide alike
// without a barrier.
#include <cmath>
#include <limits>

#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "least_norm.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

// A larger problem would keep one block for too long.
constexpr std::int64_t least_norm_tasks = 1024;

namespace {

constexpr int threads = 256;
constexpr double infinity = std::numeric_limits<double>::infinity();

// The least of some values and whose it is; of equal ones the first.
struct Least {
  double value;
  int task;  // -1: of none
};

template <class Value>
__device__ Least least_over(int tasks, const Value& value) {
  Least least = {infinity, -1};
  for (int t = threadIdx.x % warp_size; t < tasks; t += warp_size)
    if (const double x = value(t); x < least.value) least = {x, t};
#pragma unroll
  for (int offset = warp_size / 2; offset > 0; offset /= 2) {
    const Least other = {__shfl_xor_sync(all_lanes, least.value, offset),
                         __shfl_xor_sync(all_lanes, least.task, offset)};
    const bool sooner = other.value == least.value && unsigned(other.task) < unsigned(least.task);
    if (other.value < least.value || sooner) least = other;
  }
  return least;
}

template <class Value>
__device__ double sum_over(int tasks, const Value& value) {
  double sum = 0;
  for (int t = threadIdx.x % warp_size; t < tasks; t += warp_size) sum += value(t);
  return sum_of_lanes(sum);
}

template <class Body>
__device__ void for_each(int count, const Body& body) {
  for (int i = threadIdx.x; i < count; i += threads) body(i);
}

template <class Real>
struct Solver {
  int tasks;
  const Real* gramian;            // (T, T)
  double* inverse;                // (T, T), 0 where a task is not free
  double *shortness, *v, *slope;  // (T,): 1 / n, 0 for a task without a gradient; v; H v - d
  double *direction, *change;     // (T,)
  unsigned char* free;            // (T,)
  double least, square;           // the least n, and n^2
  bool first;                     // whether the minimum is the one around 0

  __device__ double d(int t) const { return least * shortness[t]; }
  __device__ double h(int i, int j) const {
    const double entry = (gramian[i * tasks + j] + square) * shortness[i] * shortness[j];
    return i == j ? entry + least_norm_ridge<Real> : entry;
  }

  // False where there is no gradient.
  __device__ bool start() {
    for_each(tasks, [&](int t) {
      const double own = gramian[t * tasks + t];
      shortness[t] = own > 0 ? 1 / std::sqrt(own) : 0;
    });
    for_each(tasks * tasks, [&](int i) { inverse[i] = 0; });
    __syncthreads();
    const Least shortest = least_over(tasks, [&](int t) { return -shortness[t]; });
    const int s = shortest.task;
    if (!(shortest.value < 0)) {
      for_each(tasks, [&](int t) { v[t] = 0; });
      return false;
    }
    square = gramian[s * tasks + s];
    least = std::sqrt(square);
    first = true;
    const double own = 1 / h(s, s);
    for_each(tasks, [&](int t) {
      v[t] = t == s ? own : 0;
      free[t] = t == s;
      slope[t] = h(s, t) * own - d(t);
      if (t == s) inverse[s * tasks + s] = own;
    });
    __syncthreads();
    return true;
  }

  // False at the end.
  __device__ bool step() {
    const double rest =
        -least_over(tasks, [&](int t) { return free[t] ? -std::abs(slope[t]) : 0; }).value;
    const Least lowest = least_over(
        tasks, [&](int t) { return free[t] || !(shortness[t] > 0) ? infinity : slope[t]; });
    // Not before the free tasks are at their minimum, as far as that matters.
    const bool enters = lowest.value < -least_norm_tolerance && -lowest.value > 100 * rest;
    if (enters) {
      enter(lowest.task);
    } else if (rest <= least_norm_tolerance) {
      if (!first) return false;
      first = false;
      __syncthreads();
      for_each(tasks, [&](int t) { slope[t] -= least_norm_ridge<Real> * v[t]; });
      __syncthreads();
    }
    int leaving = -1;
    if (!move(leaving)) return false;
    if (leaving >= 0) leave(leaving);
    // What a task would gain that enters and leaves at once is below rounding.
    return !(enters && leaving == lowest.task);
  }

  // Towards the minimum over the free tasks; `leaving` is the one whose weight ends it by reaching
  // 0, if one does. False where there is no way to go.
  __device__ bool move(int& leaving) {
    for_each(tasks, [&](int i) {
      double sum = 0;
      for (int j = 0; j < tasks; ++j)
        if (free[j]) sum -= inverse[j * tasks + i] * slope[j];
      direction[i] = sum;
    });
    __syncthreads();
    for_each(tasks, [&](int i) {
      double sum = 0;
      for (int j = 0; j < tasks; ++j)
        if (free[j]) sum += h(j, i) * direction[j];
      change[i] = sum;
    });
    __syncthreads();
    const double fall = -sum_over(tasks, [&](int t) { return slope[t] * direction[t]; });
    const double curvature = sum_over(tasks, [&](int t) { return direction[t] * change[t]; });
    const double best = curvature > 0 ? fall / curvature : infinity;
    const Least bound = least_over(tasks, [&](int t) {
      return free[t] && direction[t] < 0 ? -v[t] / direction[t] : infinity;
    });
    const double length = bound.value < best ? bound.value : best;
    if (!(fall > 0 && length < infinity)) return false;
    __syncthreads();
    for_each(tasks, [&](int t) {
      const double moved = v[t] + length * direction[t];
      v[t] = moved > 0 ? moved : 0;
      slope[t] += length * change[t];
    });
    __syncthreads();
    if (bound.value <= best) leaving = bound.task;
    return true;
  }

  __device__ void enter(int entering) {
    double* border = change;
    for_each(tasks, [&](int i) {
      double sum = i == entering ? -1 : 0;
      for (int j = 0; j < tasks; ++j)
        if (free[j]) sum += inverse[j * tasks + i] * h(j, entering);
      border[i] = sum;
    });
    __syncthreads();
    double pivot = -sum_over(tasks, [&](int t) { return border[t] * h(t, entering); });
    // Rounding errors of the Gramian can make it less than the ridge.
    if (!(pivot > least_norm_ridge<Real> / 2)) pivot = least_norm_ridge<Real> / 2;
    add_product(border, 1 / pivot);
    if (threadIdx.x == 0) free[entering] = 1;
    __syncthreads();
  }

  __device__ void leave(int leaving) {
    double* border = change;
    for_each(tasks, [&](int t) { border[t] = inverse[leaving * tasks + t]; });
    __syncthreads();
    add_product(border, -1 / border[leaving]);
    __syncthreads();
    for_each(tasks,
             [&](int t) { inverse[leaving * tasks + t] = inverse[t * tasks + leaving] = 0; });
    if (threadIdx.x == 0) free[leaving] = 0, v[leaving] = 0;
    __syncthreads();
  }

  // inverse += factor * border border^T.
  __device__ void add_product(const double* border, double factor) {
    for_each(tasks * tasks, [&](int i) {
      const double product = border[i / tasks] * border[i % tasks];
      if (product != 0) inverse[i] += factor * product;
    });
  }
};

template <class Real>
__global__ void __launch_bounds__(threads)
    least_norm(const __grid_constant__ LeastNormWeights args) {
  Solver<Real> solver;
  const int tasks = solver.tasks = int(args.tasks);
  solver.gramian = static_cast<const Real*>(args.gramian);
  solver.inverse = static_cast<double*>(args.workspace);
  double* next = reinterpret_cast<double*>(shared_memory);
  for (double** array :
       {&solver.shortness, &solver.v, &solver.slope, &solver.direction, &solver.change})
    *array = next, next += tasks;
  double* sums = next;  // of the warps
  next += threads / warp_size;
  solver.free = reinterpret_cast<unsigned char*>(next);

  double nothing = 0;  // NaN where an entry is, or is infinite
  for_each(tasks * tasks, [&](int i) { nothing += solver.gramian[i] - solver.gramian[i]; });
  nothing = sum_of_block(nothing, sums);
  if (threadIdx.x == 0) sums[0] = nothing;
  __syncthreads();
  Real* out = static_cast<Real*>(args.out);
  if (sums[0] != 0) {
    for_each(tasks, [&](int t) { out[t] = std::numeric_limits<Real>::quiet_NaN(); });
    return;
  }
  if (solver.start())
    for (std::int64_t i = 0; i < args.iterations && solver.step(); ++i) {
    }
  __syncthreads();
  double sum = sum_over(tasks, [&](int t) { return solver.shortness[t] * solver.v[t]; });
  if (!(sum > 0)) sum = 1;
  for_each(tasks, [&](int t) { out[t] = Real(solver.shortness[t] * solver.v[t] / sum); });
}

template <class Real>
void solve(const LeastNormWeights& args) {
  const std::int64_t doubles = 5 * args.tasks + threads / warp_size;
  const std::int64_t bytes = doubles * sizeof(double) + args.tasks;
  launch("least_norm_weights", least_norm<Real>, dim3(1), threads, bytes, args.stream, args);
}

}  // namespace

void least_norm_weights(const LeastNormWeights& args) {
  const DeviceGuard guard(args.device);
  if (args.tasks > least_norm_tasks)
    throw std::invalid_argument("fastmtl: the CUDA kernel takes at most " +
                                std::to_string(least_norm_tasks) + " tasks");
  if (!args.tasks) return;
  if (!args.workspace) throw std::logic_error("fastmtl: least_norm_weights without its workspace");
  if (args.dtype == DType::f64) return solve<double>(args);
  solve<float>(args);
}

std::int64_t least_norm_workspace(int, std::int64_t tasks) {
  return tasks * tasks * std::int64_t(sizeof(double));
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
