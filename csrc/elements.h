// Element types, and their conversion to and from the type that a kernel computes in.
#pragma once

#include <cstdint>

#include "math.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

struct BFloat16 {
  std::uint16_t bits;
};
struct Float16 {
  std::uint16_t bits;
};

template <class Real, class T>
FASTMTL_INLINE Real widen(T value) {
  return Real(value);
}
template <>
FASTMTL_INLINE float widen<float, BFloat16>(BFloat16 value) {
  return bits<float>(std::uint32_t(value.bits) << 16);
}
template <>
FASTMTL_INLINE float widen<float, Float16>(Float16 value) {
#ifdef __CUDA_ARCH__
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#else
  // Shifting the fields into place leaves the exponent 112 short; multiplying repairs it for
  // normal and subnormal numbers alike. Infinity and NaN need the full exponent instead.
  const std::uint32_t magnitude = std::uint32_t(value.bits & 0x7fffu) << 13;
  const float scaled = bits<float>(magnitude) * bits<float>(std::uint32_t(0x77800000));
  const std::uint32_t special = magnitude | 0x7f800000u;
  const std::uint32_t sign = std::uint32_t(value.bits & 0x8000u) << 16;
  return bits<float>(sign | (magnitude >= 0x0f800000u ? special : bits<std::uint32_t>(scaled)));
#endif
}
template <>
FASTMTL_INLINE double widen<double, BFloat16>(BFloat16 value) {
  return widen<float>(value);
}
template <>
FASTMTL_INLINE double widen<double, Float16>(Float16 value) {
  return widen<float>(value);
}

// Rounds to nearest, ties to even.
template <class T, class Real>
FASTMTL_INLINE T narrow(Real value) {
  return T(value);
}
template <>
FASTMTL_INLINE BFloat16 narrow<BFloat16, float>(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  BFloat16 result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
#else
  const std::uint32_t x = bits<std::uint32_t>(value);
  const std::uint32_t rounded = (x + 0x7fffu + ((x >> 16) & 1u)) >> 16;
  return {std::uint16_t(value != value ? 0x7fc0u : rounded)};
#endif
}
template <>
FASTMTL_INLINE Float16 narrow<Float16, float>(float value) {
#ifdef __CUDA_ARCH__
  Float16 result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
#else
  const std::uint32_t x = bits<std::uint32_t>(value);
  const std::uint32_t magnitude = x & 0x7fffffffu;
  const std::uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Adding 1/2 aligns the last bit of a subnormal half with the last bit of the sum.
  const std::uint32_t subnormal =
      bits<std::uint32_t>(bits<float>(magnitude) + 0.5f) - bits<std::uint32_t>(0.5f);
  const std::uint32_t large = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const std::uint32_t result =
      magnitude >= 0x47800000u ? large : (magnitude < 0x38800000u ? subnormal : normal);
  return {std::uint16_t(result | ((x >> 16) & 0x8000u))};
#endif
}
template <>
FASTMTL_INLINE BFloat16 narrow<BFloat16, double>(double value) {
  return narrow<BFloat16>(float(value));
}
template <>
FASTMTL_INLINE Float16 narrow<Float16, double>(double value) {
  return narrow<Float16>(float(value));
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
