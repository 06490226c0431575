// How a gradient is changed by another, shared by host and device code.
#pragma once

#include "math.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

// What to add of g_j to g'_i so that <g'_i, g_j> is not negative.
FASTMTL_INLINE double projected(double product, double other_square) {
  return product < 0 ? -product / other_square : 0;
}

// What to add of g_j to g'_i so that their cosine is not below `phihat`, which follows it.
FASTMTL_INLINE double turned(double product, double square, double other_square, double beta,
                             double& phihat) {
  const double norm = std::sqrt(square), inverse = 1 / std::sqrt(other_square);
  double cosine = product / norm * inverse;
  cosine = cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
  const double target = phihat;
  phihat = target + beta * (cosine - target);
  if (!(cosine < target)) return 0;
  // A cosine that is always 1 must not divide by 0 the day it is not.
  const double least = 1e-12, rest = 1 - target * target;
  const double sine = std::sqrt(rest > least ? rest : least);
  return norm * (target * std::sqrt(1 - cosine * cosine) / sine - cosine) * inverse;
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
