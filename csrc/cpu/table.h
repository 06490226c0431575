// The kernels of one instruction set; each is defined in the file of its name.
#pragma once

#include "kernels.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

void focal_loss_forward(const FocalLossForward&);
void focal_loss_backward(const FocalLossBackward&);
void grouped_focal_loss_forward(const GroupedFocalLossForward&);
void grouped_focal_loss_backward(const GroupedFocalLossBackward&);
void row_dots(const RowDots&);
void scale_rows(const ScaleRows&);
void least_norm_weights(const LeastNormWeights&);
void gram_triangle(const GramTriangle&);
void gram_squares(const GramSquares&);
void gram_pairs(const GramPairs&);
void graph_fusion_forward(const GraphFusionForward&);
void graph_fusion_backward(const GraphFusionBackward&);
void task_gru_forward(const TaskGRUForward&);
void task_gru_backward(const TaskGRUBackward&);

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
