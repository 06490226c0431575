// Reading and writing several elements at once, in accesses of up to 16 bytes.
#pragma once

#include <cstdint>
#include <cstring>

#include "elements.h"
#include "kernels.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

template <int bytes>
struct alignas(bytes) Word {
  std::uint32_t part[bytes / 4];
};
template <>
struct alignas(2) Word<2> {
  std::uint16_t part;
};
template <>
struct Word<1> {
  std::uint8_t part;
};

// `V` elements of T as they lie in memory.
template <class T, int V>
struct Pack {
  static constexpr int bytes = V * sizeof(T);
  static constexpr int word = bytes > 16 ? 16 : bytes;
  T element[V];

  __device__ static Pack read(const T* from) {
    Pack pack;
    Word<word> words[bytes / word];
#pragma unroll
    for (int i = 0; i < bytes / word; ++i) words[i] = reinterpret_cast<const Word<word>*>(from)[i];
    memcpy(&pack, words, bytes);
    return pack;
  }
  __device__ void write(T* to) const {
    Word<word> words[bytes / word];
    memcpy(words, this, bytes);
#pragma unroll
    for (int i = 0; i < bytes / word; ++i) reinterpret_cast<Word<word>*>(to)[i] = words[i];
  }
};

// The first `count` of V elements at `from`, the others `absent`; one access where all are there.
template <int V, class T, class Real>
__device__ void load(const T* from, std::int64_t count, Real absent, Real (&to)[V]) {
  if (count >= V) {
    const Pack<T, V> pack = Pack<T, V>::read(from);
#pragma unroll
    for (int v = 0; v < V; ++v) to[v] = widen<Real>(pack.element[v]);
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v) to[v] = v < count ? widen<Real>(from[v]) : absent;
  }
}

// Stores the first `count` of V elements.
template <int V, class T, class Real>
__device__ void store(const Real (&from)[V], std::int64_t count, T* to) {
  if (count >= V) {
    Pack<T, V> pack;
#pragma unroll
    for (int v = 0; v < V; ++v) pack.element[v] = narrow<T>(from[v]);
    pack.write(to);
  } else {
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (v < count) to[v] = narrow<T>(from[v]);
  }
}

// As above, from element `index` of an array of any dtype. All threads of a kernel take the same
// branch, so it costs nothing beside the access.
template <int V, class Real>
__device__ void load(const void* data, DType dtype, std::int64_t index, std::int64_t count,
                     Real absent, Real (&to)[V]) {
  switch (dtype) {
    case DType::f32:
      return load(static_cast<const float*>(data) + index, count, absent, to);
    case DType::f64:
      return load(static_cast<const double*>(data) + index, count, absent, to);
    case DType::bf16:
      return load(static_cast<const BFloat16*>(data) + index, count, absent, to);
    case DType::f16:
      return load(static_cast<const Float16*>(data) + index, count, absent, to);
    case DType::u8:
      return load(static_cast<const std::uint8_t*>(data) + index, count, absent, to);
    case DType::i64:
      return load(static_cast<const std::int64_t*>(data) + index, count, absent, to);
    case DType::i32:
      return load(static_cast<const std::int32_t*>(data) + index, count, absent, to);
  }
}

// The type in which elements of T accumulate.
template <class T>
struct Accumulated {
  using Real = float;
};
template <>
struct Accumulated<double> {
  using Real = double;
};

// Calls body(T{}) with the element type of a floating-point dtype.
template <class Body>
void with_floating(DType dtype, const Body& body) {
  if (dtype == DType::f64) return body(double{});
  if (dtype == DType::bf16) return body(BFloat16{});
  if (dtype == DType::f16) return body(Float16{});
  body(float{});
}

inline bool aligned(const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0; }

// Elements of T that one access moves.
template <class T>
constexpr int widest = 16 / int(sizeof(T));

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
