"""Programs that `torch.export` wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastmtl.media.encoders.base import Encoder, Setting
from fastmtl.media.encoders.networks import FrameNetwork, SoundNetwork
from fastmtl.media.errors import MediaError
from fastmtl.media.frames import Picture
from fastmtl.media.piece import Array


def video(name: str, setting: Setting, *, mean: str = "0,0,0", std: str = "1,1,1") -> Encoder:
    """Frames by a program of (n, 3, H, W) to (n, D): a vector a frame.

    Args:
        name: a .pt2 file, which says H and W.
        setting: the sampling, and where it computes.
        mean: of the channels of pixels in [0, 1], and `std`: the program sees (pixel - mean) / std.
        std: of the channels.
    """
    program = _Program(name, setting, 4)
    _, channels, height, width = program.shape
    if channels != 3 or not isinstance(height, int) or not isinstance(width, int):
        expected = "a program of frames (n, 3, H, W) with a fixed H and W"
        raise MediaError(f"pt2:{name}: expected {expected}, got one of {program.shape}")
    return FrameNetwork(
        program,
        Picture((height, width), shorter=min(height, width) if height == width else None),
        setting,
        mean=_channels("mean", mean),
        std=_channels("std", std),
        content=program.content,
    )


def audio(name: str, setting: Setting, *, rate: int = 16000) -> Encoder:
    """Sound by a program of (n, S) to (n, D): a vector for every S samples.

    Args:
        name: a .pt2 file, which says S.
        setting: the sampling, and where it computes.
        rate: of the sound, Hz.
    """
    program = _Program(name, setting, 2)
    samples = program.shape[1]
    if not isinstance(samples, int):
        raise MediaError(f"pt2:{name}: expected a program of sound (n, S) with a fixed S")

    def compute(stretches: list[Array]) -> Tensor:
        sound = torch.from_numpy(np.stack(stretches)).to(setting.device)
        return program(sound)[:, None]

    return SoundNetwork(
        compute, rate, samples / rate, setting, content=program.content, padded=True
    )


class _Program:
    """A program and the shape of its one input, whose sizes are None where any will do."""

    def __init__(self, name: str, setting: Setting, dims: int) -> None:
        if setting.precision != "float32":
            raise MediaError(f"pt2:{name}: computes as it was exported: expected float32")
        path = Path(name)
        if not path.is_file():
            raise MediaError(f"pt2:{name}: expected a file that torch.export.save wrote, got none")
        try:
            exported = torch.export.load(path)
            module = exported.module()
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise MediaError(f"pt2:{name}: not a program of torch.export ({reason})") from None
        inputs = [
            node.meta["val"]
            for node in exported.graph.nodes
            if node.name in exported.graph_signature.user_inputs
        ]
        if len(inputs) != 1 or inputs[0].dim() != dims:
            got = " and ".join(str(tuple(each.shape)) for each in inputs)
            raise MediaError(f"pt2:{name}: expected one input of {dims} dimensions, got {got}")
        self.shape = [size if isinstance(size, int) else None for size in inputs[0].shape]
        self.content = {"program": hashlib.sha256(path.read_bytes()).hexdigest()[:32]}
        self._run: Callable[[Tensor], Any] = module.to(setting.device)

    def __call__(self, values: Tensor) -> Tensor:
        """Features (n, D); filled up where the program takes so many at a time."""
        size = self.shape[0]
        if size is None:
            return self._given(self._run(values))
        parts = []
        for start in range(0, len(values), size):
            part = values[start : start + size]
            filled = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
            parts.append(self._given(self._run(filled))[: len(part)])
        return torch.cat(parts)

    @staticmethod
    def _given(output: Any) -> Tensor:
        value: Tensor = output[0] if isinstance(output, list | tuple) else output
        return value


def _channels(name: str, given: str) -> list[float]:
    try:
        values = [float(each) for each in given.split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or (name == "std" and min(values) <= 0):
        raise MediaError(f"{name}: expected three numbers as 0.5,0.5,0.5, got {given!r}")
    return values
