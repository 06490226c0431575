"""From a manifest to a file of features: read ahead, encode in batches, keep a journal, write."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.data.provenance import ATTRIBUTE
from fastmtl.data.writing import h5_writer
from fastmtl.media.checks import check_extraction
from fastmtl.media.encoders.base import Encoder, Setting
from fastmtl.media.encoders.named import absolute, described, make_encoder
from fastmtl.media.errors import BrokenClip
from fastmtl.media.journal import Entry, Journal
from fastmtl.media.manifest import MODALITIES, Manifest, read_manifest
from fastmtl.media.options import Options
from fastmtl.media.piece import Array, Piece
from fastmtl.media.sampling import Sampling
from fastmtl.media.sound import NO_SOUND
from fastmtl.media.telling import skipped, warnings
from fastmtl.media.worker import Found
from fastmtl.media.workers import DecodingPool
from fastmtl.training.device import resolve_device
from fastmtl.training.lock import locked
from fastmtl.training.signals import StopRequest

# Clips that are encoded together; their frames and stretches of sound fill the batches.
_TOGETHER = 8


@dataclass(frozen=True)
class Extracted:
    """What an extraction came to.

    - `written`: clips in the file, of which an earlier extraction had read `resumed`;
    - `skipped`: a line each on clips that could not be used;
    - `warnings`: a line each on what a user should know.
    """

    written: int
    resumed: int
    skipped: list[str]
    warnings: list[str]


def extract(
    manifest: Manifest | str | os.PathLike[str],
    out: str | os.PathLike[str],
    encoders: Mapping[str, str],
    *,
    sampling: Sampling | None = None,
    options: Options | None = None,
    overwrite: bool = False,
) -> Extracted:
    """Turn the media of a manifest into an .h5 file of features, which `fastmtl.data.load` reads.

    A call that was stopped goes on when it is repeated: what it had done is in OUT.parts.

    Args:
        manifest: the clips, or the file that `read_manifest` takes.
        out: the file to write.
        encoders: by modality, as they are typed: {"video": "pixels", "text": "hf:bert-base-cased"}.
        sampling: of frames and sound.
        options: how it goes about it.
        overwrite: whether a file, or what another extraction began, may be replaced.

    Raises:
        MediaError: for an encoder that cannot be used, and for a clip where that is to stop it.
        DataError: for a manifest or a file that cannot be used.
        ValueError: for a device that this machine has not.
        OSError: where the file cannot be written.

    Examples:
        >>> import tempfile, fastmtl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = "text,y_flood\\n" + "water in the street,1\\nsun,0\\n" * 5
        ...     _ = Path(folder, "clips.csv").write_text(table)
        ...     done = extract(folder + "/clips.csv", folder + "/clips.h5", {"text": "hash?size=8"})
        ...     fastmtl.data.load(folder + "/clips.h5")
        MultiTaskData('clips', {'text': (8,)}, 1 tasks, 6 train, 2 val, 2 test)
    """
    if not isinstance(manifest, Manifest):
        manifest = read_manifest(Path(manifest))
    return Extraction(manifest, out, encoders, sampling, options, overwrite=overwrite).run()


class Extraction:
    """One extraction: its encoders, made and checked. `run` does it; arguments as for `extract`."""

    def __init__(
        self,
        manifest: Manifest,
        out: str | os.PathLike[str],
        encoders: Mapping[str, str],
        sampling: Sampling | None = None,
        options: Options | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        self.manifest = manifest
        self.out = Path(out)
        self.sampling = sampling or Sampling()
        self.options = options or Options()
        self.overwrite = overwrite
        check_extraction(manifest, self.out, encoders, self.options, overwrite=overwrite)
        device = str(resolve_device(self.options.device))
        setting = Setting(self.sampling, device, self.options.precision, self.options.batch_size)
        specs = {m: absolute(encoders[m]) for m in MODALITIES if m in encoders}
        self.encoders: dict[str, Encoder] = {
            m: make_encoder(m, spec, setting) for m, spec in specs.items()
        }
        self.provenance = {
            m: described(m, specs[m], encoder, self.sampling)
            for m, encoder in self.encoders.items()
        }

    def run(
        self, tell: Callable[[int], object] | None = None, stop: StopRequest | None = None
    ) -> Extracted:
        """Go on from the journal, or begin, and write the file.

        Args:
            tell: is called with the number of clips done, again and again.
            stop: asks to stop; what is done is in the journal then.

        Raises:
            Interrupted: where it was asked to stop; else as `extract`.
            RunError: where another process extracts to this file.
        """
        path = self.out.with_name(f"{self.out.name}.parts")
        journal = Journal(path, {m: e.size for m, e in self.encoders.items()}, self._about())
        if self.overwrite and not journal.fits():
            journal.remove()
        path.mkdir(exist_ok=True)
        with locked(path), journal:
            resumed = len(journal.entries)
            self._encode(journal, tell or (lambda done: None), stop or StopRequest())
            written = self._write(journal)
        entries = journal.entries
        journal.remove()
        told = warnings(self.manifest, entries, self.encoders, self.sampling)
        return Extracted(written, resumed, skipped(self.manifest, entries), told)

    def _encode(self, journal: Journal, tell: Callable[[int], object], stop: StopRequest) -> None:
        """Bring the journal to the last clip."""
        done = len(journal.entries)
        tell(done)
        requests = {m: encoder.request for m, encoder in self.encoders.items()}
        rows = range(done, len(self.manifest.clips))
        with DecodingPool(requests, self.options.workers, self.options.timeout) as pool:
            clips = self.manifest.clips
            read = pool.read((row, clips[row].read_for(self.encoders)) for row in rows)
            while batch := list(islice(read, _TOGETHER)):
                for entry, features in self._encoded(batch):
                    if entry.wrong is not None and self.options.on_error == "stop":
                        raise BrokenClip(skipped(self.manifest, [entry])[0])
                    journal.add(entry, features)
                tell(len(journal.entries))
                stop.check()

    def _encoded(
        self, batch: Sequence[tuple[int, Found]]
    ) -> Iterator[tuple[Entry, dict[str, Array]]]:
        """What becomes of some clips, in order."""
        entries = [self._entry(row, found) for row, found in batch]
        features: list[dict[str, Array]] = [{} for _ in batch]
        for modality, encoder in self.encoders.items():
            given = [
                (i, piece)
                for i, (_, found) in enumerate(batch)
                if entries[i].wrong is None and isinstance(piece := found.get(modality), Piece)
            ]
            encoded = encoder.encode([piece for _, piece in given]) if given else []
            for (i, _), piece in zip(given, encoded, strict=True):
                x = features[i][modality] = piece.values.reshape(-1, encoder.size)
                entries[i].steps[modality] = len(x)
                entries[i].cut += [modality] * piece.cut
                if not np.isfinite(x).all():
                    entries[i].wrong = f"the {modality} encoder gives NaN or infinity"
        for entry, x_of in zip(entries, features, strict=True):
            if entry.wrong is not None:
                entry.steps, x_of = {}, {}
            yield entry, x_of

    def _entry(self, row: int, found: Found) -> Entry:
        """A clip before its features: what is wrong with it, or whether it is silent."""
        clip = self.manifest.clips[row]
        sources = clip.read_for(self.encoders)
        silent = "audio" not in clip.sources and found.get("audio") == NO_SOUND
        wrong = [
            f"{modality}: {sources[modality]}: {each}"
            for modality, each in found.items()
            if isinstance(each, str) and not (silent and modality == "audio")
        ]
        if not wrong and not any(isinstance(each, Piece) for each in found.values()):
            wrong = [f"has no {' and no '.join(self.encoders)}"]
        return Entry(row, silent=silent, wrong=wrong[0] if wrong else None)

    def _write(self, journal: Journal) -> int:
        """Write the file out of the journal; the number of clips in it."""
        shapes: dict[str, Any] = {
            m: (None, encoder.size) if encoder.sequence else (encoder.size,)
            for m, encoder in self.encoders.items()
        }
        left_out = skipped(self.manifest, journal.entries)
        if len(left_out) == len(journal.entries):
            raise BrokenClip(f"{self.manifest.source}: no clip can be used ({left_out[0]})")
        with h5_writer(
            self.out,
            shapes,
            label_names=self.manifest.label_names,
            class_names=self.manifest.class_names,
            attributes={ATTRIBUTE: json.dumps(self.provenance)},
            overwrite=self.overwrite,
        ) as file:
            for entry, features in journal:
                if entry.wrong is not None:
                    continue
                clip = self.manifest.clips[entry.row]
                file.add(
                    {m: x if len(shapes[m]) == 2 else x[0] for m, x in features.items()},
                    y=clip.labels or None,
                    classes=clip.classes,
                    split=clip.split,
                    group=clip.group,
                    name=clip.name,
                )
            return len(file)

    def _about(self) -> dict[str, Any]:
        """What the journal must be of: the clips, the encoders, and their precision."""
        clips = [
            [clip.name, {m: str(source) for m, source in clip.sources.items()}]
            for clip in self.manifest.clips
        ]
        digest = hashlib.sha256(json.dumps(clips).encode()).hexdigest()[:32]
        return {
            "manifest": digest,
            "encoders": self.provenance,
            "precision": self.options.precision,
        }
