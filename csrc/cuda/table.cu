// The CUDA kernels as one table, and whether this machine runs them.
#include <cstring>

#include "cuda/launch.cuh"
#include "cuda/table.h"

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

Kernels cuda_kernels() {
  Kernels table = {};
  table.isa = "cuda";
  table.focal_loss_forward = focal_loss_forward;
  table.focal_loss_backward = focal_loss_backward;
  table.grouped_focal_loss_forward = grouped_focal_loss_forward;
  table.grouped_focal_loss_backward = grouped_focal_loss_backward;
  table.row_dots = row_dots;
  table.scale_rows = scale_rows;
  table.least_norm_weights = least_norm_weights;
  table.graph_fusion_forward = graph_fusion_forward;
  table.graph_fusion_backward = graph_fusion_backward;
  table.task_gru_forward = task_gru_forward;
  table.task_gru_backward = task_gru_backward;
  table.unusable = unusable;
  table.focal_loss_workspace = focal_loss_workspace;
  table.grouped_focal_loss_workspace = grouped_focal_loss_workspace;
  table.row_dots_workspace = row_dots_workspace;
  table.task_gru_workspace = task_gru_workspace;
  table.task_gru_in_one_launch = task_gru_in_one_launch;
  table.task_gru_forward_step = task_gru_forward_step;
  table.task_gru_backward_step = task_gru_backward_step;
  return table;
}

const Kernels table = cuda_kernels();

}  // namespace
}  // namespace FASTMTL_ISA

const Kernels& kernels() { return table; }

bool use_isa(const char* name) { return !std::strcmp(name, table.isa); }

}  // namespace fastmtl
