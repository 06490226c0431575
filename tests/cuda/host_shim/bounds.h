// Looks for accesses beyond what a tensor has, to the byte and whatever its alignment.
#pragma once

#include <cstddef>

namespace host_shim {
namespace bounds {

// The blocks of a launch have `used` bytes of the array of `size` at `shared`.
void begin_launch(const void* shared, std::size_t size, std::size_t used);
// Whether an access stays within its tensor, as far as it is of one that was confined.
bool inside(const void* memory, std::size_t bytes);

}  // namespace bounds
}  // namespace host_shim
