// Vectors as wide as the registers of the instruction set, for loops whose accumulators have to
// stay in registers.
#pragma once

#include <cstdint>
#include <cstring>

namespace fastmtl {
inline namespace FASTMTL_ISA {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

// A block of accumulators, rows by vectors, that fills the registers but for what is multiplied: a
// row of vectors and the number that they are multiplied by.
constexpr int block_rows = vector_bytes == 64 ? 12 : 6, block_vectors = 2;

template <class Real>
struct Lanes {
  typedef Real Vector __attribute__((vector_size(vector_bytes)));
  typedef Real InMemory
      __attribute__((vector_size(vector_bytes), aligned(alignof(Real)), may_alias));
  static constexpr std::int64_t width = vector_bytes / sizeof(Real);
  static constexpr std::int64_t block_columns = block_vectors * width;
};

// One instruction each; compilers make several of a memcpy.
template <class Real>
inline typename Lanes<Real>::Vector load_vector(const Real* source) {
  return *reinterpret_cast<const typename Lanes<Real>::InMemory*>(source);
}
template <class Real>
inline void store_vector(typename Lanes<Real>::Vector value, Real* target) {
  *reinterpret_cast<typename Lanes<Real>::InMemory*>(target) = value;
}

// By halves, of which each addition is one instruction.
template <class Real>
inline Real sum_lanes(typename Lanes<Real>::Vector vector) {
  constexpr int width = Lanes<Real>::width;
  typedef Real Half __attribute__((vector_size(vector_bytes / 2)));
  Half halves[2];
  std::memcpy(halves, &vector, sizeof(vector));
  const Half half = halves[0] + halves[1];
  Real sum = half[0];
  for (int i = 1; i < width / 2; ++i) sum += half[i];
  return sum;
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
