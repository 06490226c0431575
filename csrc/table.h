// What kernels.def lists, declared for one instruction set; each is defined in the file of its op.
#pragma once

#include "kernels.h"

// What a macro stands for, as text.
#define FASTMTL_STRING_(...) #__VA_ARGS__
#define FASTMTL_STRING(...) FASTMTL_STRING_(__VA_ARGS__)

namespace fastmtl {
inline namespace FASTMTL_ISA {

#define KERNEL(name, Arguments) void name(const Arguments&);
#define CUDA_QUERY(Result, name, parameters) Result name parameters;
#define CUDA_LIMIT(name) extern const std::int64_t name;
#include "kernels.def"

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
