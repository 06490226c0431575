"""Log-mel statistics of sound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fastmtl.media.encoders.base import Computed, Setting
from fastmtl.media.errors import MediaError
from fastmtl.media.piece import Array, Piece
from fastmtl.media.sound import read_sound

_WINDOW, _HOP = 512, 256
_LOWEST = 50.0
_FLOOR = 1e-6
# Windows that are transformed at a time: as many as a cache holds, however long the sound.
_AT_ONCE = 256


def stft(setting: Setting, *, rate: int = 16000, bands: int = 40, step: float = 1.0) -> Computed:
    """Mean and standard deviation of log-mel energies over every `step` seconds of sound.

    E[t, b] = log(1e-6 + sum_f F[b, f] |STFT[t, f]|^2), with a Hann window of 512 samples at every
    256th, and F triangles from 50 Hz to rate / 2 that are evenly spaced in mel = 2595 log10(1 +
    f / 700). A step is (mean, deviation) of E over its windows: 2 * bands features.

    Args:
        setting: whose sampling says how much is read.
        rate: the sound is resampled to, Hz.
        bands: of the mel scale.
        step: seconds.
    """
    if not 1000 <= rate <= 192000:
        raise MediaError(f"rate: expected 1000 to 192000 Hz, got {rate}")
    if not 1 <= bands <= _WINDOW // 4:
        raise MediaError(f"bands: expected 1 to {_WINDOW // 4}, got {bands}")
    if not _WINDOW / rate <= step <= 3600:
        raise MediaError(f"step: expected {_WINDOW / rate:g} to 3600 seconds, got {step}")
    request = LogMel(rate, bands, step, setting.sampling.seconds)
    content = {"version": 1, "rate": rate, "bands": bands, "step": step}
    return Computed(request, 2 * bands, sequence=True, content=content)


@dataclass(frozen=True)
class LogMel:
    """Reads sound and computes the statistics; see `stft`."""

    rate: int
    bands: int
    step: float
    seconds: float

    def read(self, source: Path | str) -> Piece:
        """(L, 2 * bands) float32."""
        sound = read_sound(Path(source), self.rate, self.seconds)
        return Piece(self.statistics(sound.values), sound.cut)

    def statistics(self, sound: Array) -> Array:
        """Of sound (S,): (L, 2 * bands). A last part of less than half a step is left out."""
        energies = self.energies(sound)
        windows = max(1, round(self.step * self.rate / _HOP))
        steps = max(1, round(len(energies) / windows))
        energies, starts = energies[: steps * windows], np.arange(steps) * windows
        counts = np.minimum(windows, len(energies) - starts)
        mean = np.add.reduceat(energies, starts) / np.float32(counts)[:, None]
        energies -= np.repeat(mean, counts, axis=0)
        np.square(energies, out=energies)
        variance = np.add.reduceat(energies, starts) / np.float32(counts)[:, None]
        return np.concatenate([mean, np.sqrt(variance)], axis=1)

    def energies(self, sound: Array) -> Array:
        """E of sound (S,): (windows, bands)."""
        sound = np.pad(sound, (0, max(0, _WINDOW - len(sound))))
        windows = np.lib.stride_tricks.sliding_window_view(sound, _WINDOW)[::_HOP]
        out = np.empty((len(windows), self.bands), np.float32)
        for start in range(0, len(windows), _AT_ONCE):
            spectrum = np.fft.rfft(windows[start : start + _AT_ONCE] * self._hann)
            # Real and imaginary parts side by side, which each filter sums.
            parts = spectrum.astype(np.complex64, copy=False).view(np.float32)
            np.square(parts, out=parts)
            np.matmul(parts, self._filters, out=out[start : start + _AT_ONCE])
        np.log(out + _FLOOR, out=out)
        return out

    @cached_property
    def _hann(self) -> Array:
        return np.hanning(_WINDOW + 1)[:-1].astype(np.float32)

    @cached_property
    def _filters(self) -> Array:
        """F transposed, each row twice: (2 * frequencies, bands)."""
        low, high = (2595 * np.log10(1 + f / 700) for f in (_LOWEST, self.rate / 2))
        edges = 700 * (10 ** (np.linspace(low, high, self.bands + 2) / 2595) - 1)
        at = np.arange(_WINDOW // 2 + 1)[:, None] * self.rate / _WINDOW
        rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
        falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
        filters = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
        return np.repeat(filters, 2, axis=0)
