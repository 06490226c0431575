// The instructions of a GPU's special-function units, for the host: the exact result, wrong by as
// much as the PTX manual allows, upwards or downwards as the bits of the argument have it.
// Included before everything else, so that csrc/math.h takes them in place of its own.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#define FASTMTL_SPECIAL_FUNCTIONS

inline float flushed(float x) {
  return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

inline double off_by(double result, float argument, double relative_error) {
  std::uint32_t bits;
  std::memcpy(&bits, &argument, sizeof(bits));
  const bool up = (bits * 2654435761u) >> 31;
  return result * (up ? 1 + relative_error : 1 - relative_error);
}

// 2^x: a relative error of 2^-22.
inline float ex2_approx(float x) {
  return flushed(float(off_by(std::exp2(double(flushed(x))), x, std::ldexp(1.0, -22))));
}

// 1 / x: an error of 1 ulp.
inline float rcp_approx(float x) {
  return flushed(float(off_by(1 / double(flushed(x)), x, std::ldexp(1.0, -23))));
}
