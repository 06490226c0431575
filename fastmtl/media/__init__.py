"""From media files to features: manifests, decoding, encoders, extraction.

Decoding processes import parts of this package, so it loads nothing by itself: `extract` and
`read_manifest` are imported when they are first used. Needs the extra `media`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastmtl.media.errors import MediaError

if TYPE_CHECKING:
    from fastmtl.media.extraction import Extracted, extract
    from fastmtl.media.manifest import Clip, Manifest, read_manifest
    from fastmtl.media.sampling import Sampling

_HOMES = {
    "Clip": "manifest",
    "Extracted": "extraction",
    "Manifest": "manifest",
    "Sampling": "sampling",
    "extract": "extraction",
    "read_manifest": "manifest",
}

__all__ = ["Clip", "Extracted", "Manifest", "MediaError", "Sampling", "extract", "read_manifest"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"fastmtl.media.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
