// The activations of recurrent gates, branch-free like math.h and to a few ulp everywhere.
#pragma once

#include <cmath>

#include "math.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

// a / b for a normal b whose reciprocal is normal.
template <class Real>
FASTMTL_INLINE Real quotient(Real a, Real b) {
#ifdef FASTMTL_SPECIAL_FUNCTIONS
  return a * reciprocal(b);
#else
  return a / b;
#endif
}

// 1 / (1 + exp(-x)).
template <class Real>
FASTMTL_INLINE Real logistic(Real x) {
  const Real e = exp_nonpositive(-std::abs(x));
  const Real larger = reciprocal(1 + e);
  return x > 0 ? larger : e * larger;
}

// tanh(x), by -expm1(-2|x|) / (2 + expm1(-2|x|)), which cancels nowhere.
template <class Real>
FASTMTL_INLINE Real hyperbolic_tangent(Real x) {
  using S = Series<Real>;
  const Real twice = -2 * std::abs(x);
  const Reduced<Real> e = reduced(twice);
  const Real scale = raised(Real(1), e.power);
  const Real scaled = scale * S::expm1(e.r) + (scale - 1);
  const Real expm1 = twice < S::lowest ? Real(-1) : scaled;
  const Real size = quotient(expm1, 2 + expm1);
  return x > 0 ? -size : size;
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
