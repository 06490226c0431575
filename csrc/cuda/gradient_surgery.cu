// Gradients that are changed by one another in turn, by their coefficients: a block for each, so
// that all visits are one launch. fastmtl/backends/reference/gradient_surgery.py has the
// mathematics, and the same names.
//
// Every thread decides alike, from the same numbers, so that barriers are met by all.
#include "cuda/launch.cuh"
#include "cuda/reduce.cuh"
#include "gradient_surgery.h"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

// The visits of a larger problem would keep the blocks for too long.
constexpr std::int64_t gradient_surgery_tasks = 1024;

namespace {

constexpr int threads = 128;

__device__ double square_of(const double* coefficients, const double* changed, int tasks) {
  double sum = 0;
  for (int k = threadIdx.x % warp_size; k < tasks; k += warp_size)
    sum += coefficients[k] * changed[k];
  return sum_of_lanes(sum);
}

__device__ double change(const GradientSurgery& args, int j, const double*, const double* changed) {
  return projected(changed[j], args.products[j * args.tasks + j]);
}

__device__ double change(const GradientVaccine& args, int j, const double* coefficients,
                         const double* changed) {
  const int i = blockIdx.x, tasks = int(args.tasks);
  const double square = square_of(coefficients, changed, tasks);
  if (!(square > args.rounding * args.products[i * tasks + i])) return 0;
  double phihat = args.phihat[i * tasks + j];
  const double other = args.products[j * tasks + j];
  const double added = turned(changed[j], square, other, args.beta, phihat);
  __syncthreads();
  if (threadIdx.x == 0) args.phihat[i * tasks + j] = phihat;
  __syncthreads();  // an order that is no permutation reads it again
  return added;
}

template <class Arguments>
__global__ void __launch_bounds__(threads) operate(const __grid_constant__ Arguments args) {
  const int i = blockIdx.x, tasks = int(args.tasks);
  double* changed = reinterpret_cast<double*>(shared_memory);
  double* coefficients = changed + tasks;
  for (int k = threadIdx.x; k < tasks; k += threads) {
    changed[k] = args.products[i * tasks + k];
    coefficients[k] = k == i;
  }
  __syncthreads();
  for (int visit = 0; visit < tasks; ++visit) {
    const std::int64_t task = args.order[i * tasks + visit];
    if (task < 0 || task >= tasks || task == i) continue;
    const int j = int(task);
    if (!(args.products[j * tasks + j] > 0)) continue;
    const double added = change(args, j, coefficients, changed);
    if (added == 0) continue;
    __syncthreads();
    for (int k = threadIdx.x; k < tasks; k += threads)
      changed[k] += added * args.products[j * tasks + k];
    if (threadIdx.x == 0) coefficients[j] += added;
    __syncthreads();
  }
  for (int k = threadIdx.x; k < tasks; k += threads)
    args.coefficients[i * tasks + k] = coefficients[k];
}

template <class Arguments>
void launch_for(const char* name, const Arguments& args) {
  const DeviceGuard guard(args.device);
  if (args.tasks > gradient_surgery_tasks)
    throw std::invalid_argument("fastmtl: the CUDA kernel takes at most " +
                                std::to_string(gradient_surgery_tasks) + " tasks");
  if (!args.tasks) return;
  launch(name, operate<Arguments>, dim3(unsigned(args.tasks)), threads,
         2 * args.tasks * std::int64_t(sizeof(double)), args.stream, args);
}

}  // namespace

void pcgrad_coefficients(const GradientSurgery& args) { launch_for("pcgrad_coefficients", args); }

void gradvac_coefficients(const GradientVaccine& args) { launch_for("gradvac_coefficients", args); }

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
