// Looks for races between the threads of a launch; see races.cpp.
#pragma once

#include <cstddef>

namespace host_shim {
namespace races {

// The blocks of a launch follow; `shared` is the memory that each of them has for itself, whole
// pages.
void begin_launch(const void* shared, std::size_t shared_bytes);
void begin_block(unsigned block);
// A thread of the block goes on, on a stack of its own; or none does.
void resume(unsigned thread, const void* stack, std::size_t stack_bytes);
void suspend();
// All threads of the block have met, or all lanes of a warp.
void meet_block();
void meet_warp(unsigned warp);
// The thread that runs reads or writes, by an instruction at `code`.
void access(const void* memory, std::size_t bytes, bool writes, const void* code);
// Whether there has been a race in this launch.
bool found();

}  // namespace races
}  // namespace host_shim
