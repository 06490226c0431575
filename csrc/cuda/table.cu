// The CUDA kernels as one table, and whether this machine runs them.
#include <cstring>

#include "cuda/launch.cuh"
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {
namespace {

__global__ void nothing() {}

// Finds a driver that is too old, and a device that the kernels were not compiled for.
const char* unusable() {
  cudaFuncAttributes attributes;
  const cudaError_t error =
      cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(nothing));
  cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

const Kernels table = {
    "cuda",
    // Architectures as nvcc has them, "750,800,900".
    "CUDA " FASTMTL_STRING(__CUDACC_VER_MAJOR__) "." FASTMTL_STRING(
        __CUDACC_VER_MINOR__) " for " FASTMTL_STRING(__CUDA_ARCH_LIST__),
    unusable,
#define KERNEL(name, Arguments) name,
#define CPU_KERNEL(name, Arguments) nullptr,
#define CUDA_QUERY(Result, name, parameters) name,
#define CUDA_LIMIT(name) name,
#include "kernels.def"
};

}  // namespace
}  // namespace FASTMTL_ISA

const Kernels& kernels() { return table; }

bool use_isa(const char* name) { return !std::strcmp(name, table.isa); }

}  // namespace fastmtl
