// Reductions in a fixed order: the same bits from run to run.
#pragma once

#include <cuda_runtime.h>

namespace fastmtl {
inline namespace FASTMTL_ISA {

constexpr int warp_size = 32;
constexpr unsigned all_lanes = 0xffffffffu;

// The launch's dynamic shared memory.
extern __shared__ __align__(16) unsigned char shared_memory[];

// Sum and maximum over aligned groups of `lanes` lanes; every lane gets it.
template <int lanes = warp_size, class Real>
__device__ Real sum_of_lanes(Real value) {
#pragma unroll
  for (int offset = lanes / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(all_lanes, value, offset);
  return value;
}
template <int lanes = warp_size, class Real>
__device__ Real largest_of_lanes(Real value) {
#pragma unroll
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    const Real other = __shfl_xor_sync(all_lanes, value, offset);
    value = other > value ? other : value;
  }
  return value;
}

// Sums 16 values over the warp: lane l gets the sum of values[l / 2]. Each exchange halves what is
// left to sum, so that it takes 16 shuffles rather than 80. `half` is a constant of its own in each
// of them, for an array with indices that a loop computes would not stay in registers.
template <int half = 8, class Real>
__device__ Real sums_of_16(Real (&values)[16]) {
  const bool upper = threadIdx.x & (2 * half);
#pragma unroll
  for (int k = 0; k < half; ++k) {
    const Real give = upper ? values[k] : values[k + half];
    const Real keep = upper ? values[k + half] : values[k];
    values[k] = keep + __shfl_xor_sync(all_lanes, give, 2 * half);
  }
  if constexpr (half > 1)
    return sums_of_16<half / 2>(values);
  else
    return values[0] + __shfl_xor_sync(all_lanes, values[0], 1);
}

// Sum over the block in the first thread. `scratch`: one element a warp.
template <class Real>
__device__ Real sum_of_block(Real value, Real* scratch) {
  value = sum_of_lanes(value);
  if (threadIdx.x % warp_size == 0) scratch[threadIdx.x / warp_size] = value;
  __syncthreads();
  Real sum = 0;
  if (threadIdx.x == 0)
    for (unsigned warp = 0; warp < blockDim.x / warp_size; ++warp) sum += scratch[warp];
  __syncthreads();
  return sum;
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
