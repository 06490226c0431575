// Which bytes of some pages a kernel may touch; tests/cuda/guarded.py says so of its tensors.
#include "bounds.h"

#include <cstdint>
#include <unordered_map>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace host_shim {
namespace bounds {
namespace {

constexpr std::uintptr_t page_bytes = 4096;

struct Extent {
  std::uintptr_t begin = 0, end = 0;
};

std::unordered_map<std::uintptr_t, Extent> pages;
Extent shared_array, shared_used;

std::uintptr_t number(const void* memory) { return reinterpret_cast<std::uintptr_t>(memory); }

}  // namespace

void begin_launch(const void* shared, std::size_t size, std::size_t used) {
  shared_array = {number(shared), number(shared) + size};
  shared_used = {shared_array.begin, shared_array.begin + used};
}

bool inside(const void* memory, std::size_t bytes) {
  const std::uintptr_t begin = number(memory), end = begin + bytes;
  if (begin >= shared_array.begin && begin < shared_array.end) return end <= shared_used.end;
  if (pages.empty()) return true;
  const auto found = pages.find(begin / page_bytes);
  return found == pages.end() || (begin >= found->second.begin && end <= found->second.end);
}

}  // namespace bounds
}  // namespace host_shim

// For Python. Pages belong to one tensor, which has `bytes` at `data`.
extern "C" {
#define FASTMTL_EXPORT __attribute__((visibility("default")))
FASTMTL_EXPORT void host_shim_confine(char* from, std::size_t pages, char* data,
                                      std::size_t bytes) {
  using namespace host_shim::bounds;
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(from, pages * page_bytes);
  __asan_unpoison_memory_region(data, bytes);
#endif
  for (std::size_t page = 0; page < pages; ++page)
    host_shim::bounds::pages[number(from) / page_bytes + page] = {number(data),
                                                                  number(data) + bytes};
}
FASTMTL_EXPORT void host_shim_release(char* from, std::size_t pages) {
  using namespace host_shim::bounds;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(from, pages * page_bytes);
#endif
  for (std::size_t page = 0; page < pages; ++page)
    host_shim::bounds::pages.erase(number(from) / page_bytes + page);
}
}
