// Looks for races between the threads of a launch, where FASTMTL_RACES is set.
//
// Two accesses of the same memory, of which one writes, race unless a barrier of their block or an
// exchange of all lanes of their warp lies between them. Threads of two blocks never meet; what
// stands in shared memory is another memory in each block. Of every byte are known the last write
// since the launch began and the last reads of two threads.
#include "races.h"

#include <dlfcn.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <unordered_map>

namespace host_shim {
namespace races {
namespace {

constexpr std::uintptr_t page_bytes = 4096;
constexpr unsigned warp_size = 32, most_warps = 32;

// Who accessed a place, and how often its block and warp had met by then.
struct Access {
  std::int32_t block = -1;
  std::uint16_t thread = 0, barrier = 0, exchange = 0;

  bool before(const Access& later) const {
    if (block < 0) return true;
    if (block != later.block) return false;
    const bool same_warp = thread / warp_size == later.thread / warp_size;
    return thread == later.thread || barrier != later.barrier ||
           (same_warp && exchange != later.exchange);
  }
};

struct Place {
  Access write, reads[2];
};

using Page = std::array<Place, page_bytes>;

struct Watch {
  std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages;
  std::uintptr_t shared = 0, shared_end = 0, stack = 0, stack_end = 0;
  Access now;
  std::uint16_t exchanges[most_warps] = {};
  bool running = false, found = false;

  Place& place(std::uintptr_t address) {
    std::unique_ptr<Page>& page = pages[address / page_bytes];
    if (!page) page = std::make_unique<Page>();
    return (*page)[address % page_bytes];
  }
};

Watch watch;
const bool wanted = std::getenv("FASTMTL_RACES") != nullptr;

void report(const Access& earlier, std::uintptr_t address, const void* code) {
  Dl_info info = {};
  dladdr(code, &info);
  const bool shared = address >= watch.shared && address < watch.shared_end;
  std::fprintf(stderr,
               "host_shim: a race in %s memory: thread %u of block %d with thread %u of block %d\n"
               "  addr2line -Cfpie %s %#tx\n",
               shared ? "shared" : "global", unsigned(watch.now.thread), int(watch.now.block),
               unsigned(earlier.thread), int(earlier.block), info.dli_fname ? info.dli_fname : "?",
               static_cast<const char*>(code) - static_cast<const char*>(info.dli_fbase));
  watch.found = true;
}

}  // namespace

void begin_launch(const void* shared, std::size_t shared_bytes) {
  watch.pages.clear();
  watch.shared = reinterpret_cast<std::uintptr_t>(shared);
  watch.shared_end = watch.shared + shared_bytes;
  watch.found = false;
}

void begin_block(unsigned block) {
  watch.now.block = std::int32_t(block);
  for (std::uintptr_t a = watch.shared; a < watch.shared_end; a += page_bytes)
    watch.pages.erase(a / page_bytes);
}

void access(const void* memory, std::size_t bytes, bool writes, const void* code) {
  if (!watch.running || watch.found) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(memory), end = begin + bytes;
  if (begin >= watch.stack && begin < watch.stack_end) return;
  const Access& now = watch.now;
  for (std::uintptr_t a = begin; a < end; ++a) {
    Place& place = watch.place(a);
    if (!place.write.before(now)) return report(place.write, a, code);
    if (writes) {
      for (const Access& read : place.reads)
        if (!read.before(now)) return report(read, a, code);
      place.write = now;
    } else {
      if (place.reads[0].thread != now.thread) place.reads[1] = place.reads[0];
      place.reads[0] = now;
    }
  }
}

void resume(unsigned thread, const void* stack, std::size_t stack_bytes) {
  watch.now.thread = std::uint16_t(thread);
  watch.now.exchange = watch.exchanges[thread / warp_size];
  watch.stack = reinterpret_cast<std::uintptr_t>(stack);
  watch.stack_end = watch.stack + stack_bytes;
  watch.running = wanted;
}

void suspend() { watch.running = false; }
void meet_block() { ++watch.now.barrier; }
void meet_warp(unsigned warp) { ++watch.exchanges[warp]; }
bool found() { return watch.found; }

}  // namespace races
}  // namespace host_shim
