"""Which frames of a clip are taken, and how much of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

_Frame = TypeVar("_Frame")
_MOST = {"rate": 1000.0, "seconds": 1e6}


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are taken: so many a second, or so many of each; and of what part.

    Args:
        rate: frames a second, at 0, 1/rate, 2/rate, ... seconds.
        count: frames of each clip instead, in the middle of as many equal parts of it.
        seconds: of a file; what lies beyond is not read, of sound neither.

    Raises:
        ValueError: for a value that cannot be.

    Examples:
        >>> Sampling(rate=2.0).before(1.6)
        4
        >>> Sampling(count=10).before(1.0, duration=2.0)
        5
    """

    rate: float = 1.0
    count: int | None = None
    seconds: float = 600.0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 < value <= most):
                raise ValueError(f"{name}: expected a number in (0, {most:.0f}], got {value!r}")
        if self.count is not None and not (isinstance(self.count, int) and self.count > 0):
            raise ValueError(f"count: expected an int of at least 1, got {self.count!r}")

    def before(self, time: float, duration: float = math.inf) -> int:
        """How many of the frames are taken before a time, of a clip of so many seconds."""
        length = min(duration, self.seconds)
        if self.count is None:
            return max(0, math.ceil(min(time, length) * self.rate - 1e-6))
        return min(self.count, max(0, math.ceil(time * self.count / length - 0.5)))


def on_screen(
    frames: Iterable[tuple[float, _Frame | None]], before: Callable[[float], int]
) -> Iterator[tuple[_Frame, int]]:
    """The frames that are on screen when one is taken, each with how often it is.

    Args:
        frames: each with the time from which it is shown, the last one None at the end of all.
        before: how many are taken before a time.

    Examples:
        >>> list(on_screen([(0.0, "a"), (0.4, "b"), (1.2, "c"), (2.5, None)], Sampling().before))
        [('a', 1), ('b', 1), ('c', 1)]
    """
    taken, shown = 0, None
    for time, frame in frames:
        if shown is not None and (wanted := before(time)) > taken:
            yield shown, wanted - taken
            taken = wanted
        shown = frame
