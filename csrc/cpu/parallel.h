// Threads of the CPU kernels.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace fastmtl {
inline namespace FASTMTL_ISA {

// More threads than this only wait for one another, and a process that cannot have them is ended by
// the OpenMP runtime.
inline int most_threads() {
#ifdef _OPENMP
  return std::max(4 * omp_get_num_procs(), 16);
#else
  return 1;
#endif
}

// What the first body to fail has thrown: an exception must not leave an OpenMP region.
class Failure {
 public:
  template <class Body>
  void guard(const Body& body) {
    try {
      body();
    } catch (...) {
      if (!failed_.exchange(true)) exception_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (exception_) std::rethrow_exception(exception_);
  }

 private:
  std::atomic<bool> failed_{false};
  std::exception_ptr exception_;
};

// Calls body(item) for every item, on at most `threads` threads, and on fewer where an item costs
// so little that starting a thread would cost more. `cost` is in elements that need an exp.
template <class Body>
inline void parallel_for(std::int64_t items, int threads, std::int64_t cost, const Body& body) {
  constexpr std::int64_t worth_a_thread = 32768;
  const std::int64_t useful = items * cost / worth_a_thread + 1;
  const int count = int(std::min<std::int64_t>({threads, items, useful, most_threads()}));
  if (count <= 1) {
    for (std::int64_t item = 0; item < items; ++item) body(item);
    return;
  }
#ifdef _OPENMP
  Failure failure;
#pragma omp parallel for num_threads(count) schedule(static)
  for (std::int64_t item = 0; item < items; ++item) failure.guard([&] { body(item); });
  failure.rethrow();
#endif
}

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
