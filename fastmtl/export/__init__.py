"""Trained models as files that run without fastmtl: ONNX and torch's exported programs."""

from __future__ import annotations

from fastmtl.export.deployed import Deployed
from fastmtl.export.write import FORMATS, export

__all__ = ["FORMATS", "Deployed", "export"]
