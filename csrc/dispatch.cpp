// Picks the kernels for the machine.
#include <atomic>
#include <cstring>

#include "kernels.h"

namespace fastmtl {

namespace plain {
extern const Kernels table;
}
#ifdef FASTMTL_X86
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

namespace {

// The first kernels that the machine runs and that bear the name, if one is given.
const Kernels* find(const char* name) {
  const auto wanted = [&](const Kernels& table) { return !name || !std::strcmp(name, table.isa); };
#ifdef FASTMTL_X86
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && wanted(avx512::table)) return &avx512::table;
  if (has_avx2 && wanted(avx2::table)) return &avx2::table;
#endif
  return wanted(plain::table) ? &plain::table : nullptr;
}

std::atomic<const Kernels*>& chosen() {
  static std::atomic<const Kernels*> kernels{find(nullptr)};
  return kernels;
}

}  // namespace

const Kernels& kernels() { return *chosen().load(std::memory_order_relaxed); }

bool use_isa(const char* name) {
  const Kernels* found = find(name);
  if (found) chosen().store(found);
  return found;
}

}  // namespace fastmtl
