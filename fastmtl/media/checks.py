"""What an extraction needs, checked before anything is read or written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastmtl.data.errors import DataError
from fastmtl.data.writing import check_new_h5
from fastmtl.media.container import need_av
from fastmtl.media.errors import BrokenClip, MediaError
from fastmtl.media.manifest import MODALITIES, Manifest
from fastmtl.media.options import Options


def check_extraction(
    manifest: Manifest, out: Path, encoders: Mapping[str, str], options: Options, *, overwrite: bool
) -> None:
    """Raise what `extract` does before anything is read or written; arguments as there."""
    check_new_h5(out, overwrite=overwrite, field="out")
    _check_modalities(manifest, encoders)
    if set(encoders) - {"text"}:
        need_av()
    if options.on_error == "stop":
        _check_files(manifest, encoders)


def _check_modalities(manifest: Manifest, encoders: Mapping[str, str]) -> None:
    there = {*manifest.modalities, *(["audio"] if "video" in manifest.modalities else [])}
    if not encoders or set(encoders) - set(MODALITIES):
        got = ", ".join(encoders) or "none"
        raise MediaError(f"encoders: expected some of {', '.join(MODALITIES)}, got {got}")
    for modality in encoders:
        if modality not in there:
            raise DataError.at(manifest.source, modality, f"a column of {modality}", "none")


def _check_files(manifest: Manifest, encoders: Mapping[str, str]) -> None:
    """Raise BrokenClip if a file is not there: at once, and not after hours."""
    absent: dict[Path, str] = {}
    for clip in manifest.clips:
        for m, source in clip.read_for(encoders).items():
            if isinstance(source, Path) and not source.exists():
                absent.setdefault(source, f"line {clip.line} ({clip.name}): {m}: {source}")
    if absent:
        first, *others = absent.values()
        more = f", and {len(others):,} more" if others else ""
        raise BrokenClip(f"{manifest.source}: {first}: no such file{more}")
