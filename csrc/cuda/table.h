// What the CUDA kernels have beside the ones that every backend has.
#pragma once

#include "cpu/table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

// Bytes of workspace that a forward call over so many elements needs.
std::int64_t focal_loss_workspace(int device, std::int64_t rows, std::int64_t tasks);
std::int64_t grouped_focal_loss_workspace(int device, std::int64_t rows, std::int64_t groups,
                                          std::int64_t classes);
std::int64_t row_dots_workspace(int device, std::int64_t rows, std::int64_t columns);
// For the backward call, of `pairs` tasks and directions.
std::int64_t task_gru_workspace(int device, int dtype, std::int64_t pairs, std::int64_t batch,
                                std::int64_t hidden);

bool task_gru_in_one_launch(int device, int dtype, std::int64_t hidden);
void task_gru_forward_step(const TaskGRUForwardStep&);
void task_gru_backward_step(const TaskGRUBackwardStep&);

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
