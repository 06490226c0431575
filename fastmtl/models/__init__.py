"""Ready multi-task models, their twins out of `torch.nn` alone, and multi-label estimators."""

from __future__ import annotations

from fastmtl.models.bpmll import BPMLL
from fastmtl.models.cmlc import CMLC
from fastmtl.models.fusion_baseline import FusionBaseline
from fastmtl.models.hgfn import HGFN
from fastmtl.models.mlknn import MLKNN
from fastmtl.models.mtdnn import MTDNN
from fastmtl.models.mtmlan import MTMLAN
from fastmtl.models.pairs import ParameterPair
from fastmtl.models.parameters import paired_parameters, reference_parameters

__all__ = [
    "BPMLL",
    "CMLC",
    "HGFN",
    "MLKNN",
    "MTDNN",
    "MTMLAN",
    "FusionBaseline",
    "ParameterPair",
    "paired_parameters",
    "reference_parameters",
]
