// The CPU kernels of one instruction set as one table.
#include "table.h"

namespace fastmtl {
inline namespace FASTMTL_ISA {

extern const Kernels table;
const Kernels table = {
    "cpu",
    FASTMTL_STRING(FASTMTL_ISA),
    nullptr,
#define KERNEL(name, Arguments) name,
#define CUDA_KERNEL(name, Arguments) nullptr,
#define CUDA_QUERY(Result, name, parameters) nullptr,
#define CUDA_LIMIT(name) 0,
#include "kernels.def"
};

}  // namespace FASTMTL_ISA
}  // namespace fastmtl
