// Asynchronous copies into shared memory, for the host: at the last moment that CUDA allows, and
// until then there is NaN, so that who does not wait, or overwrites what others still read, is
// found out.
#pragma once

#include "cuda_runtime.h"

// Written out in the kernels, of which every access is watched.
inline void __pipeline_memcpy_async(void* to, const void* from, std::size_t bytes) {
  using Word = std::uint64_t;
  for (std::size_t i = 0; i < bytes / sizeof(Word); ++i) static_cast<Word*>(to)[i] = ~Word(0);
  host_shim::put({to, from, bytes});
}
inline void __pipeline_commit() {}
inline void __pipeline_wait_prior(std::size_t) {
  using Word = std::uint64_t;
  for (host_shim::Copy copy; host_shim::take(&copy);)
    for (std::size_t i = 0; i < copy.bytes / sizeof(Word); ++i)
      static_cast<Word*>(copy.to)[i] = static_cast<const Word*>(copy.from)[i];
}
