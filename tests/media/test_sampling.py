from __future__ import annotations

import math

import pytest

from fastmtl.media import Sampling
from fastmtl.media.sampling import on_screen


def taken(sampling, times, end, duration=math.inf):
    frames = [*((time, time) for time in times), (end, None)]
    found = on_screen(frames, lambda time: sampling.before(time, duration))
    return [frame for frame, count in found for _ in range(count)]


def test_a_rate_takes_what_is_on_screen_then() -> None:
    times = [0.0, 0.4, 0.8, 1.2, 1.6]
    assert taken(Sampling(rate=2.0), times, 2.0) == [0.0, 0.4, 0.8, 1.2]
    assert taken(Sampling(rate=0.1), times, 2.0) == [0.0]
    # More than there are: some twice.
    assert taken(Sampling(rate=5.0), times[:2], 0.8) == [0.0, 0.0, 0.4, 0.4]


@pytest.mark.parametrize("count", [1, 3, 7, 50])
def test_a_count_is_that_many(count) -> None:
    times = [i / 25 for i in range(50)]
    assert len(taken(Sampling(count=count), times, 2.0, duration=2.0)) == count
    if count == 1:
        assert taken(Sampling(count=1), times, 2.0, duration=2.0) == [1.0]


def test_what_begins_late_is_on_screen_from_the_start() -> None:
    assert taken(Sampling(rate=2.0), [0.7, 1.0], 1.2) == [0.7, 0.7, 1.0]


@pytest.mark.parametrize(
    "wrong", [{"rate": 0.0}, {"rate": math.nan}, {"seconds": -1.0}, {"count": 0}, {"rate": 1e4}]
)
def test_what_cannot_be(wrong) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        Sampling(**wrong)
