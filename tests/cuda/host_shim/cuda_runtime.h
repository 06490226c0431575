// Enough of CUDA to compile the kernels as C++ and to run their grids, blocks and threads on the
// host. Included by the kernels in place of the toolkit's header; device.cpp is what runs them.
#pragma once

#include <string.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// What nvcc says of itself.
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
#define __CUDA_ARCH_LIST__ 800, 900

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// Of the thread that runs.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorIllegalAddress = 700,
  cudaErrorMisalignedAddress = 716,
  cudaErrorLaunchFailure = 719,
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct cudaFuncAttributes {};
using cudaStream_t = struct Stream*;

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  std::size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel);
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int, std::size_t) {
  *blocks = 3;
  return cudaSuccess;
}
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);

namespace host_shim {

cudaError_t run(const cudaLaunchConfig_t& config, const void* kernel,
                const std::function<void()>& thread);
// Ends the launch with an error.
void fail(cudaError_t error, const char* what);
void barrier();
// Waits for the lanes of `mask`; afterwards `exchanged` has what each of them gave.
void meet(unsigned mask, const void* value, std::size_t bytes);
const void* exchanged(unsigned lane);
unsigned lane();

struct Copy {
  void* to;
  const void* from;
  std::size_t bytes;
};
// What the thread that runs has asked for and not waited for.
void put(const Copy& copy);
bool take(Copy* copy);

}  // namespace host_shim

template <class... Parameters, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Args&&... args) {
  std::tuple<Parameters...> copied(args...);
  return host_shim::run(*config, reinterpret_cast<const void*>(kernel),
                        [&] { std::apply(kernel, copied); });
}

inline void __syncthreads() { host_shim::barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { host_shim::meet(mask, nullptr, 0); }

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  host_shim::meet(mask, &value, sizeof(T));
  T result;
  memcpy(&result, host_shim::exchanged(host_shim::lane() ^ unsigned(lane_mask)), sizeof(T));
  return result;
}
