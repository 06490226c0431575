"""How an extraction goes about it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from fastmtl._checks import need_choice, need_size
from fastmtl.training.precision import PRECISIONS

ON_ERROR = ("stop", "skip")


@dataclass(frozen=True)
class Options:
    """How an extraction goes about it; none of it changes the features but for rounding.

    Args:
        workers: decoding processes, by default one a processor, at most 8.
        batch_size: frames, stretches of sound or texts that an encoder computes at a time.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: float32, bfloat16 or float16.
        on_error: "stop" ends at a clip that cannot be used, "skip" leaves it out.
        timeout: seconds that a clip may take to be decoded.

    Raises:
        ValueError: for a value that cannot be.
    """

    workers: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    batch_size: int = 32
    device: str = "auto"
    precision: str = "float32"
    on_error: str = "stop"
    timeout: float = 60.0

    def __post_init__(self) -> None:
        need_size("workers", self.workers)
        need_size("batch_size", self.batch_size)
        need_choice("precision", self.precision, list(PRECISIONS))
        need_choice("on_error", self.on_error, ON_ERROR)
        if not 0 < self.timeout < 1e6:
            raise ValueError(f"timeout: expected seconds above 0, got {self.timeout!r}")
