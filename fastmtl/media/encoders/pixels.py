"""Colours, edges and motion of frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastmtl.media.encoders.base import Computed, Setting
from fastmtl.media.errors import MediaError
from fastmtl.media.frames import Picture, read_frames
from fastmtl.media.piece import Array, Piece
from fastmtl.media.sampling import Sampling

_CELL = 16
_DIRECTIONS = 8
_PER_CELL = 3 + 1 + 1 + _DIRECTIONS
_SHADES = 4


def pixels(setting: Setting, *, grid: int = 4) -> Computed:
    """Statistics of colour, edges and motion, frame by frame, in the cells of a grid.

    A frame is scaled to 16 pixels a cell. Of each cell: the mean of red, green and blue, the
    deviation of brightness, the mean |difference| to the frame before (0 in the first), and a
    histogram of the gradient's directions, weighed by its size. Of the whole frame: a histogram of
    colours, 4 shades of each channel. 13 grid^2 + 64 features in [0, 1].

    Args:
        setting: whose sampling says which frames are taken.
        grid: cells in each direction.
    """
    if not 1 <= grid <= 32:
        raise MediaError(f"grid: expected 1 to 32 cells in each direction, got {grid}")
    request = PixelStatistics(grid, setting.sampling)
    content = {"version": 1, "grid": grid}
    return Computed(request, _size(grid), sequence=True, content=content)


def _size(grid: int) -> int:
    return _PER_CELL * grid**2 + _SHADES**3


@dataclass(frozen=True)
class PixelStatistics:
    """Reads frames and computes the statistics; see `pixels`."""

    grid: int
    sampling: Sampling

    def read(self, source: Path | str) -> Piece:
        """(L, 13 grid^2) float32."""
        side = _CELL * self.grid
        frames = read_frames(Path(source), self.sampling, Picture((side, side), filter="AREA"))
        out = np.empty((len(frames.values), _size(self.grid)), np.float32)
        before: Array | None = None
        for row, frame in enumerate(frames.values):
            colour = frame.astype(np.float32) / 255
            out[row] = self.statistics(colour, before)
            before = colour
        return Piece(out, frames.cut)

    def statistics(self, colour: Array, before: Array | None) -> Array:
        """Of a frame (H, W, 3) in [0, 1], and the one before."""
        light = colour.mean(2)
        moved = np.zeros_like(light) if before is None else np.abs(colour - before).mean(2)
        parts = [
            self._means(colour),
            self._cells(light[..., None]).std((1, 3)),
            self._means(moved[..., None]),
            self._means(_directions(light)),
            _shades(colour),
        ]
        return np.concatenate([part.ravel() for part in parts])

    def _cells(self, values: Array) -> Array:
        """(H, W, C) as (grid, H / grid, grid, W / grid, C)."""
        return values.reshape(self.grid, _CELL, self.grid, _CELL, -1)

    def _means(self, values: Array) -> Array:
        means: Array = self._cells(values).mean((1, 3))
        return means


def _shades(colour: Array) -> Array:
    """The share of pixels of each colour, (shades^3,)."""
    shade = np.minimum(colour * _SHADES, _SHADES - 1).astype(np.int64)
    codes = (shade * [_SHADES**2, _SHADES, 1]).sum(2)
    shares: Array = np.bincount(codes.ravel(), minlength=_SHADES**3) / codes.size
    return shares


def _directions(light: Array) -> Array:
    """The gradient's size (H, W, directions) in the place of its direction, 0 elsewhere."""
    down, right = np.gradient(light)
    angle = np.arctan2(down, right) * (_DIRECTIONS / (2 * np.pi))
    place = np.floor(angle).astype(np.int64) % _DIRECTIONS
    size = np.hypot(down, right)
    return np.where(place[..., None] == np.arange(_DIRECTIONS), size[..., None], 0)
