// Element types, and moving tiles of any of them to and from the type that a kernel computes in.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "kernels.h"
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
  // Shifting the fields into place leaves the exponent 112 short; multiplying repairs it for
  // normal and subnormal numbers alike. Infinity and NaN need the full exponent instead.
  const std::uint32_t magnitude = std::uint32_t(value.bits & 0x7fffu) << 13;
  const float scaled = bits<float>(magnitude) * bits<float>(std::uint32_t(0x77800000));
  const std::uint32_t special = magnitude | 0x7f800000u;
  const std::uint32_t sign = std::uint32_t(value.bits & 0x8000u) << 16;
  return bits<float>(sign | (magnitude >= 0x0f800000u ? special : bits<std::uint32_t>(scaled)));
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
  const std::uint32_t x = bits<std::uint32_t>(value);
  const std::uint32_t rounded = (x + 0x7fffu + ((x >> 16) & 1u)) >> 16;
  return {std::uint16_t(value != value ? 0x7fc0u : rounded)};
}
template <>
FASTMTL_INLINE Float16 narrow<Float16, float>(float value) {
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
}
template <>
FASTMTL_INLINE BFloat16 narrow<BFloat16, double>(double value) {
  return narrow<BFloat16>(float(value));
}
template <>
FASTMTL_INLINE Float16 narrow<Float16, double>(double value) {
  return narrow<Float16>(float(value));
}

// Calls body(T{}) with the element type of `dtype`.
template <class Body>
inline void with_type(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f32:
      return body(float{});
    case DType::f64:
      return body(double{});
    case DType::bf16:
      return body(BFloat16{});
    case DType::f16:
      return body(Float16{});
    case DType::u8:
      return body(std::uint8_t{});
    case DType::i64:
      return body(std::int64_t{});
  }
}

template <class Real>
constexpr DType dtype_of() {
  return sizeof(Real) == sizeof(double) ? DType::f64 : DType::f32;
}

inline std::size_t size_of(DType dtype) {
  constexpr std::size_t sizes[] = {4, 8, 2, 2, 1, 8};
  return sizes[int(dtype)];
}

// The address of element `index` of an array of `dtype`.
inline const void* at(const void* data, DType dtype, std::int64_t index) {
  return static_cast<const char*>(data) + index * std::int64_t(size_of(dtype));
}
inline void* at(void* data, DType dtype, std::int64_t index) {
  return static_cast<char*>(data) + index * std::int64_t(size_of(dtype));
}

// The `count` elements at `source` as Real: in place where they are that already, else in `buffer`.
template <class Real>
inline const Real* load(const void* source, DType dtype, std::int64_t count, Real* buffer) {
  if (dtype == dtype_of<Real>()) return static_cast<const Real*>(source);
  with_type(dtype, [&](auto element) {
    using T = decltype(element);
    const T* from = static_cast<const T*>(source);
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) buffer[i] = widen<Real>(from[i]);
  });
  return buffer;
}

// rows x columns elements of `matrix` from (row, column) on, as a dense tile of Real.
template <class Real>
inline const Real* load_tile(const Matrix& matrix, std::int64_t row, std::int64_t column,
                             std::int64_t rows, std::int64_t columns, Real* buffer) {
  const std::int64_t begin = row * matrix.row_stride + column * matrix.column_stride;
  const void* source = at(matrix.data, matrix.dtype, begin);
  const bool dense = matrix.column_stride == 1 || columns == 1;
  if (dense && (matrix.row_stride == columns || rows == 1))
    return load(source, matrix.dtype, rows * columns, buffer);
  with_type(matrix.dtype, [&](auto element) {
    using T = decltype(element);
    const T* from = static_cast<const T*>(source);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c)
        buffer[r * columns + c] =
            widen<Real>(from[r * matrix.row_stride + c * matrix.column_stride]);
  });
  return buffer;
}

// Stores `count` elements as `dtype`.
template <class Real>
inline void store(const Real* source, void* target, DType dtype, std::int64_t count) {
  if (dtype == dtype_of<Real>()) {
    if (source != target) std::memcpy(target, source, std::size_t(count) * sizeof(Real));
    return;
  }
  with_type(dtype, [&](auto element) {
    using T = decltype(element);
    T* to = static_cast<T*>(target);
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) to[i] = narrow<T>(source[i]);
  });
}

// Calls body(Real{}) with the type in which values of `dtype` accumulate.
template <class Body>
inline void with_accumulated(DType dtype, const Body& body) {
  if (dtype == DType::f64) return body(double{});
  return body(float{});
}

// An uninitialised array that frees itself.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : data_(static_cast<T*>(std::malloc(std::size_t(count > 0 ? count : 1) * sizeof(T)))) {
    if (!data_) std::abort();
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() { return data_; }
  T& operator[](std::int64_t i) { return data_[i]; }

 private:
  T* data_;
};

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
