"""The native backend: C++ kernels on the CPU, CUDA kernels on NVIDIA GPUs.

The arguments were checked by `fastmtl.ops`. Both extension modules have the same interface
(csrc/kernels.h), and each says which kernels it has.
"""

from fastmtl.backends.native.memory import cuda_build, hidden, isa, use_isa, why_not

__all__ = ["cuda_build", "hidden", "isa", "use_isa", "why_not"]
