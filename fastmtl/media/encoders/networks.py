"""What encoders that are networks share: batches of frames and of sound, on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fastmtl.media.encoders.base import Request, Setting
from fastmtl.media.errors import MediaError
from fastmtl.media.frames import Picture, read_frames
from fastmtl.media.piece import Array, Piece
from fastmtl.media.sampling import Sampling
from fastmtl.media.sound import read_sound
from fastmtl.training.precision import PRECISIONS

_Items = TypeVar("_Items", list[Any], Array)
# From a mini-batch, a tensor, to features (n, D).
Compute = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Frames:
    """Reads the sampled frames of a video."""

    sampling: Sampling
    picture: Picture

    def read(self, source: Path | str) -> Piece:
        """(L, H, W, 3) uint8."""
        return read_frames(Path(source), self.sampling, self.picture)


@dataclass(frozen=True)
class Sound:
    """Reads the sound of a file."""

    rate: int
    seconds: float

    def read(self, source: Path | str) -> Piece:
        """(S,) float32."""
        return read_sound(Path(source), self.rate, self.seconds)


def half(setting: Setting) -> torch.dtype:
    """The dtype in which an encoder computes."""
    return PRECISIONS[setting.precision] or torch.float32


def placed(model: nn.Module, setting: Setting) -> nn.Module:
    """A network as it is used: evaluation mode, on the device, in the wanted precision."""
    return model.eval().requires_grad_(False).to(setting.device, half(setting))


def batches(items: _Items, size: int) -> Iterator[_Items]:
    """So many of the items at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


class FrameNetwork:
    """A network over single frames; an `Encoder` of videos, whose features are one a frame.

    Args:
        compute: frames (n, 3, H, W), scaled and normalised, to features (n, D).
        picture: the form of the frames.
        scale: of the values 0 to 255.
        mean: of the channels, and `std`: (value * scale - mean) / std is what the network sees.
        std: of the channels.
        setting: the sampling, and where it computes.
        content: what the features depend on.
    """

    sequence = True

    def __init__(
        self,
        compute: Compute,
        picture: Picture,
        setting: Setting,
        *,
        scale: float = 1 / 255,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        content: dict[str, Any],
    ) -> None:
        self.request: Request = Frames(setting.sampling, picture)
        normalisation = {"scale": scale, "mean": list(mean), "std": list(std)}
        self.content = {**content, "picture": vars(picture), **normalisation}
        self._compute, self._setting, self._scale = compute, setting, scale
        self._mean, self._std = (
            torch.tensor(list(each), device=setting.device)[:, None, None] for each in (mean, std)
        )
        self.size = self._features(np.zeros((1, *picture.crop, 3), np.uint8)).shape[1]

    def encode(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The features (L, D) of the frames of each clip."""
        counts = [len(piece.values) for piece in pieces]
        frames = np.concatenate([piece.values for piece in pieces])
        parts = [self._features(part) for part in batches(frames, self._setting.batch_size)]
        each = np.split(np.concatenate(parts), np.cumsum(counts)[:-1])
        return [Piece(x, piece.cut) for x, piece in zip(each, pieces, strict=True)]

    @torch.inference_mode()
    def _features(self, frames: Array) -> Array:
        """Of frames (n, H, W, 3) uint8: (n, D) float32."""
        values = torch.from_numpy(frames).to(self._setting.device).permute(0, 3, 1, 2)
        seen = (values.float() * self._scale - self._mean) / self._std
        return as_features(self._compute(seen.to(half(self._setting))))


class SoundNetwork:
    """A network over stretches of sound; an `Encoder` whose features are one or more a stretch.

    Stretches of one length go through it together, so that what a clip becomes does not depend on
    those beside it.

    Args:
        compute: stretches, each (S,) and all of one length, to features (n, steps, D).
        rate: of the sound, Hz.
        window: seconds of a stretch. A shorter one at the end is left out below a tenth of this,
            unless it is all there is.
        setting: the sampling, and where it computes.
        content: what the features depend on.
        padded: whether a last stretch is filled up with silence, for networks of one length.
    """

    sequence = True

    def __init__(
        self,
        compute: Callable[[list[Array]], Tensor],
        rate: int,
        window: float,
        setting: Setting,
        *,
        content: dict[str, Any],
        padded: bool = False,
    ) -> None:
        self.request: Request = Sound(rate, setting.sampling.seconds)
        self.content = {**content, "rate": rate, "window": window}
        self._compute, self._setting, self._padded = compute, setting, padded
        self._samples = round(rate * window)
        self.size = self._features([np.zeros(self._samples, np.float32)]).shape[2]

    def encode(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The features (L, D) of each clip."""
        stretches = [
            (clip, stretch)
            for clip, piece in enumerate(pieces)
            for stretch in self._stretches(piece.values)
        ]
        parts: list[list[Array]] = [[] for _ in pieces]
        # Only a last stretch can be of another length, so this order leaves those of a clip alone.
        stretches.sort(key=lambda each: -len(each[1]))
        for length in dict.fromkeys(len(stretch) for _, stretch in stretches):
            alike = [each for each in stretches if len(each[1]) == length]
            for part in batches(alike, self._setting.batch_size):
                features = self._features([stretch for _, stretch in part])
                for (clip, _), x in zip(part, features, strict=True):
                    parts[clip].append(x)
        return [Piece(np.concatenate(x), piece.cut) for x, piece in zip(parts, pieces, strict=True)]

    def _stretches(self, sound: Array) -> list[Array]:
        parts = [sound[i : i + self._samples] for i in range(0, len(sound), self._samples)]
        if len(parts) > 1 and len(parts[-1]) < self._samples / 10:
            parts.pop()
        if self._padded or len(parts[-1]) < self._samples / 10:
            most = self._samples if self._padded else -(-self._samples // 10)
            parts[-1] = np.pad(parts[-1], (0, max(0, most - len(parts[-1]))))
        return parts

    @torch.inference_mode()
    def _features(self, stretches: list[Array]) -> Array:
        """(n, steps, D) float32."""
        return as_features(self._compute(stretches), 3)


def as_features(x: Tensor, dims: int = 2) -> Array:
    """What a network gave as an array of features; MediaError for another thing."""
    if not isinstance(x, Tensor) or x.dim() != dims or not x.is_floating_point():
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        wanted = "(n, D)" if dims == 2 else "(n, steps, D)"
        raise MediaError(f"expected a network that gives features {wanted}, got {got}")
    return x.float().cpu().numpy()
