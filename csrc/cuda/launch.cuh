// Launching kernels: on the caller's stream, with errors raised by name.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace fastmtl {
inline namespace FASTMTL_ISA {

inline void check(const char* name, cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // so that nobody else is told of it
  throw std::runtime_error(std::string("fastmtl CUDA kernel ") + name + ": " +
                           cudaGetErrorString(error));
}

// Makes a device current while it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check("device", cudaGetDevice(&before_));
    changed_ = device != before_;
    if (changed_) check("device", cudaSetDevice(device));
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// An attribute of the current device. Asked for once: `slot` tells one attribute from another.
inline int device_attribute(cudaDeviceAttr attribute, int slot) {
  constexpr int most_devices = 64;
  static std::atomic<int> known[2][most_devices];
  int device = 0, value = 0;
  check("device", cudaGetDevice(&device));
  std::atomic<int>& cached = known[slot][device % most_devices];
  if ((value = cached.load(std::memory_order_relaxed)) == 0) {
    check("device", cudaDeviceGetAttribute(&value, attribute, device));
    cached.store(value, std::memory_order_relaxed);
  }
  return value;
}

inline int multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount, 0); }
inline int most_shared_bytes() {
  return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, 1);
}

// How many blocks of a kernel a multiprocessor of the current device holds at once. Asked for once.
template <auto kernel>
int resident_blocks(const char* name, int threads, std::int64_t shared_bytes) {
  constexpr int most_devices = 64;
  static std::atomic<int> known[most_devices];
  int device = 0, blocks = 0;
  check(name, cudaGetDevice(&device));
  std::atomic<int>& cached = known[device % most_devices];
  if ((blocks = cached.load(std::memory_order_relaxed)) == 0) {
    check(name, cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads,
                                                              std::size_t(shared_bytes)));
    blocks = std::max(blocks, 1);
    cached.store(blocks, std::memory_order_relaxed);
  }
  return blocks;
}

template <class... Parameters, class... Args>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, int threads,
            std::int64_t shared_bytes, void* stream, const Args&... args) {
  // More than this needs the kernel's consent.
  constexpr std::int64_t default_shared_bytes = 48 << 10;
  if (shared_bytes > default_shared_bytes)
    check(name,
          cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)));
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(unsigned(threads));
  config.dynamicSmemBytes = std::size_t(shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  check(name, cudaLaunchKernelEx(&config, kernel, Parameters(args)...));
}

// A number that a kernel is compiled for, as an argument of generic lambdas.
template <int value>
using Constant = std::integral_constant<int, value>;

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
