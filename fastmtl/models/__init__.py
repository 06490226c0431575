"""Ready multi-task models, and their twins out of `torch.nn` alone."""

from __future__ import annotations

from fastmtl.models.hgfn import HGFN
from fastmtl.models.mtmlan import MTMLAN
from fastmtl.models.parameters import reference_parameters
from fastmtl.models.reference import ParameterPair

__all__ = ["HGFN", "MTMLAN", "ParameterPair", "reference_parameters"]
