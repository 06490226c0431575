#include "cpu/table.h"

#define FASTMTL_STRING_(name) #name
#define FASTMTL_STRING(name) FASTMTL_STRING_(name)

namespace fastmtl {
inline namespace FASTMTL_ISA {

extern const Kernels table;
const Kernels table = {
    FASTMTL_STRING(FASTMTL_ISA),
    focal_loss_forward,
    focal_loss_backward,
    grouped_focal_loss_forward,
    grouped_focal_loss_backward,
    row_dots,
    scale_rows,
    least_norm_weights,
    gram_triangle,
    gram_squares,
    gram_pairs,
    graph_fusion_forward,
    graph_fusion_backward,
    task_gru_forward,
    task_gru_backward,
};

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
