// What the kernels of least_norm_weights have in common; fastmtl/backends/reference/least_norm.py
// has the method.
#pragma once

namespace fastmtl {
inline namespace FASTMTL_ISA {

// Above the rounding errors of the Gramian, which would choose between dependent gradients.
template <class Real>
constexpr double least_norm_ridge = sizeof(Real) == sizeof(float) ? 1e-5 : 1e-6;
constexpr double least_norm_tolerance = 1e-13;  // of the slope

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
