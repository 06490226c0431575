// What the compiler calls at every access of memory in the kernels, which are compiled with
// -fsanitize=thread: ThreadSanitizer's functions, which stand here in place of its library.
#include <cstdint>
#include <cstring>

#include "bounds.h"
#include "cuda_runtime.h"
#include "races.h"

namespace {

void access(const void* memory, std::size_t bytes, bool writes, const void* code) {
  if (!host_shim::bounds::inside(memory, bytes))
    host_shim::fail(cudaErrorIllegalAddress, "an access beyond its memory");
  host_shim::races::access(memory, bytes, writes, code);
}

}  // namespace

extern "C" {
#define FASTMTL_ACCESS(name, bytes, writes) \
  void __tsan_##name(void* at) { access(at, bytes, writes, __builtin_return_address(0)); }
#define FASTMTL_ACCESSES(bytes)                       \
  FASTMTL_ACCESS(read##bytes, bytes, false)           \
  FASTMTL_ACCESS(write##bytes, bytes, true)           \
  FASTMTL_ACCESS(unaligned_read##bytes, bytes, false) \
  FASTMTL_ACCESS(unaligned_write##bytes, bytes, true)
FASTMTL_ACCESSES(1)
FASTMTL_ACCESSES(2)
FASTMTL_ACCESSES(4)
FASTMTL_ACCESSES(8)
FASTMTL_ACCESSES(16)
void __tsan_read_range(void* at, std::size_t bytes) {
  access(at, bytes, false, __builtin_return_address(0));
}
void __tsan_write_range(void* at, std::size_t bytes) {
  access(at, bytes, true, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
// Of the host's code between launches.
std::uint8_t __tsan_atomic8_load(const std::uint8_t* at, int) {
  return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}
std::uint32_t __tsan_atomic32_load(const std::uint32_t* at, int) {
  return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}
void __tsan_atomic32_store(std::uint32_t* at, std::uint32_t value, int) {
  __atomic_store_n(at, value, __ATOMIC_SEQ_CST);
}
}
