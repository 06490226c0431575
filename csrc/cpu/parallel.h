// Threads of the CPU kernels.
#pragma once

#include <algorithm>
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace fastmtl {
inline namespace FASTMTL_ISA {

// Calls body(item) for every item, on at most `threads` threads, and on fewer where an item costs
// so little that starting a thread would cost more. `cost` is in elements that need an exp.
template <class Body>
inline void parallel_for(std::int64_t items, int threads, std::int64_t cost, const Body& body) {
  constexpr std::int64_t worth_a_thread = 32768;
  const std::int64_t useful = items * cost / worth_a_thread + 1;
  const int count = int(std::min<std::int64_t>({threads, items, useful}));
  if (count <= 1) {
    for (std::int64_t item = 0; item < items; ++item) body(item);
    return;
  }
#ifdef _OPENMP
#pragma omp parallel for num_threads(count) schedule(static)
#endif
  for (std::int64_t item = 0; item < items; ++item) body(item);
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
