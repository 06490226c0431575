// Kernels with a race and without, for tests/cuda/test_races.py: ends with 1 where races.cpp takes
// one for the other.
#include <cstdio>

#include "cuda_runtime.h"

namespace fastmtl {
inline namespace cuda {
extern unsigned char shared_memory[];
}
}  // namespace fastmtl

namespace {

constexpr unsigned threads = 64;

int* shared() { return reinterpret_cast<int*>(fastmtl::shared_memory); }

template <bool meet>
__global__ void read_after_write(int* out) {
  shared()[threadIdx.x] = int(threadIdx.x);
  if (meet) __syncthreads();
  out[blockIdx.x * threads + threadIdx.x] = shared()[threads - 1 - threadIdx.x];
}

template <bool meet>
__global__ void write_after_read(int* out) {
  shared()[threadIdx.x] = int(threadIdx.x);
  __syncthreads();
  out[blockIdx.x * threads + threadIdx.x] = shared()[threads - 1 - threadIdx.x];
  if (meet) __syncthreads();
  shared()[threadIdx.x] = 0;
}

template <bool own>
__global__ void same_value(int* out) {
  out[own ? blockIdx.x * threads + threadIdx.x : blockIdx.x] = 1;
}

// The other lane of a pair is of the same warp, but for warp = false.
template <bool meet, bool warp>
__global__ void of_warps(int* out) {
  shared()[threadIdx.x] = int(threadIdx.x);
  if (meet) __syncwarp();
  out[blockIdx.x * threads + threadIdx.x] = shared()[threadIdx.x ^ (warp ? 1 : 32)];
}

template <bool own>
__global__ void of_blocks(int* out) {
  if (threadIdx.x == 0) out[own ? blockIdx.x : 0] = 1;
}

int wrong = 0;

void check(const char* name, void (*kernel)(int*), bool races) {
  static int out[4 * threads];
  cudaLaunchConfig_t config;
  config.gridDim = dim3(4);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = threads * sizeof(int);
  config.stream = reinterpret_cast<cudaStream_t>(0x57ea);  // the only one, of device 1
  const bool found = cudaLaunchKernelEx(&config, kernel, out) != cudaSuccess;
  if (found == races) return;
  std::printf("%s: %s\n", name, found ? "no race, but found one" : "did not find the race");
  wrong = 1;
}

}  // namespace

int main() {
  cudaSetDevice(1);
  check("read after write", read_after_write<false>, true);
  check("read after barrier", read_after_write<true>, false);
  check("write after read", write_after_read<false>, true);
  check("write after barrier", write_after_read<true>, false);
  check("the same value", same_value<false>, true);
  check("places of their own", same_value<true>, false);
  check("lanes", of_warps<false, true>, true);
  check("lanes after an exchange", of_warps<true, true>, false);
  check("warps after an exchange", of_warps<true, false>, true);
  check("blocks", of_blocks<false>, true);
  check("blocks on places of their own", of_blocks<true>, false);
  return wrong;
}
