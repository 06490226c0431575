"""What an extraction tells of clips: why some were left out, and what others are without."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastmtl.media.journal import Entry
from fastmtl.media.manifest import Manifest
from fastmtl.media.sampling import Sampling


def skipped(manifest: Manifest, entries: Sequence[Entry]) -> list[str]:
    """A line for each clip that could not be used: where it stands, its name, and the reason."""
    wrong = [(manifest.clips[entry.row], entry.wrong) for entry in entries if entry.wrong]
    return [
        f"{manifest.source}: line {clip.line} ({clip.name}): {reason}" for clip, reason in wrong
    ]


def warnings(
    manifest: Manifest, entries: Sequence[Entry], modalities: Iterable[str], sampling: Sampling
) -> list[str]:
    """What a user should know of the clips that were used, with how many they are."""
    told, total = list(manifest.warnings), len(entries)
    silent = sum(entry.silent for entry in entries)
    for modality in modalities:
        if count := sum(modality in entry.cut for entry in entries):
            limit = f"{sampling.seconds:g} seconds (--seconds)"
            if modality == "text":
                limit = "the encoder's number of tokens"
            told.append(
                f"{modality}: {count:,} of {total:,} clips have more than {limit}, cut there"
            )
        if modality == "audio" and silent:
            told.append(
                f"audio: {silent:,} of {total:,} clips have no sound; it is missing in them"
            )
        elif not any(modality in entry.steps for entry in entries):
            told.append(f"{modality}: no clip has any; it is missing in all of them")
    return told
