// Vectors of doubles, for the solvers of small problems.
#pragma once

#include <cstdint>

namespace fastmtl {
inline namespace FASTMTL_ISA {

inline double dot(const double* a, const double* b, std::int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

// y += factor * x.
inline void add(double factor, const double* x, std::int64_t count, double* y) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) y[i] += factor * x[i];
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
