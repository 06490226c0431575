// Moving tiles of elements of any type to and from the type that a kernel computes in.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "elements.h"
#include "kernels.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

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
    case DType::i32:
      return body(std::int32_t{});
  }
}

template <class Real>
constexpr DType dtype_of() {
  return sizeof(Real) == sizeof(double) ? DType::f64 : DType::f32;
}

inline std::size_t size_of(DType dtype) {
  constexpr std::size_t sizes[] = {4, 8, 2, 2, 1, 8, 4};
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
    if (source != target && count) std::memcpy(target, source, std::size_t(count) * sizeof(Real));
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

// Calls body(Real{}, T{}) with that type and the element type of `dtype`, a floating one.
template <class Body>
inline void with_floating(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::f64:
      return body(double{}, double{});
    case DType::bf16:
      return body(float{}, BFloat16{});
    case DType::f16:
      return body(float{}, Float16{});
    default:
      return body(float{}, float{});
  }
}

// An uninitialised array, aligned to a cache line, that frees itself.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : data_(static_cast<T*>(std::aligned_alloc(64, bytes(count)))) {
    if (!data_) throw std::bad_alloc();
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() { return data_; }
  T& operator[](std::int64_t i) { return data_[i]; }

 private:
  static std::size_t bytes(std::int64_t count) {
    return (std::size_t(count) * sizeof(T) + 64) / 64 * 64;
  }

  T* data_;
};

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
