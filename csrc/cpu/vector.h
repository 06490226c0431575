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

template <class Real>
struct Lanes {
  typedef Real Vector __attribute__((vector_size(vector_bytes)));
  static constexpr std::int64_t width = vector_bytes / sizeof(Real);
};

template <class Real>
inline typename Lanes<Real>::Vector load_vector(const Real* source) {
  typename Lanes<Real>::Vector value;
  std::memcpy(&value, source, sizeof(value));
  return value;
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
