// Powers of two that keep the products of numbers in the range of their type.
#pragma once

#include <cmath>
#include <cstdint>

namespace fastmtl {
inline namespace FASTMTL_ISA {

// The largest |value|, passing over NaN.
template <class Real>
inline Real largest_size(const Real* values, std::int64_t count) {
  Real largest = 0;
#pragma omp simd reduction(max : largest)
  for (std::int64_t i = 0; i < count; ++i) {
    const Real size = std::abs(values[i]);
    largest = size > largest ? size : largest;
  }
  return largest;
}

// What to divide numbers by whose largest size this is, so that products of four of them, and those
// of numbers much smaller, neither overflow nor vanish: 1 where they do not anyway, and where the
// numbers are not finite.
template <class Real>
inline Real scale_of(Real largest) {
  constexpr int harmless = sizeof(Real) == sizeof(double) ? 128 : 16;
  if (!(largest > 0) || !std::isfinite(largest)) return 1;
  const int power = std::ilogb(largest);
  return std::abs(power) <= harmless ? Real(1) : std::ldexp(Real(1), power);
}

template <class Real>
inline void multiply_all(Real* values, std::int64_t count, Real factor) {
  if (factor == 1) return;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) values[i] *= factor;
}

// Not by the reciprocal of a scale, which overflows where that is subnormal.
template <class Real>
inline void divide_all(Real* values, std::int64_t count, Real scale) {
  if (scale == 1) return;
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) values[i] /= scale;
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
