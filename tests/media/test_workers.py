from __future__ import annotations

import time

import pytest

from fastmtl.media.workers import DecodingPool, DecodingProcess
from tests.media.requests import Obeys

BOTH = {"video": Obeys(), "text": Obeys()}


@pytest.fixture(scope="module")
def process():
    made = DecodingProcess(BOTH, 3.0)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("hang", r"was not decoded in 3 s \(--timeout\)"),
        ("crash", r"the decoder crashed \(signal 11\)"),
        ("exit", r"the decoder crashed \(exit code 3\)"),
        ("refuse", "is refused"),
        ("fail", r"cannot be read \(KeyError: 'no such key'\)"),
        ("memory", "needs more memory than a decoder may take"),
    ],
)
def test_what_goes_wrong_is_of_the_file_that_it_goes_wrong_in(process, order, message) -> None:
    found = process.read({"video": "well", "text": order})
    assert found["video"].values.tolist() == [4.0, 4.0]
    with pytest.raises(ValueError, match=f"^{message}$"):
        raise ValueError(found["text"])
    assert process.read({"text": "print"})["text"].values.tolist() == [5.0, 5.0]


def test_a_pool_keeps_the_order_and_reads_little_ahead() -> None:
    asked = []

    def clips():
        for row in range(40):
            asked.append(row)
            yield row, {"video": "a" * row if row != 3 else "crash"}

    with DecodingPool(BOTH, 2, 30.0) as pool:
        for row, found in pool.read(clips()):
            assert len(asked) <= row + 7
            if row == 3:
                assert "crashed" in found["video"]
            else:
                assert found["video"].values.tolist() == [row, row]
    assert row == 39


def test_leaving_a_pool_ends_what_is_under_way() -> None:
    begun = time.monotonic()
    with DecodingPool(BOTH, 2, 500.0) as pool:
        read = pool.read((row, {"text": "hang" if row else "a", "video": "a"}) for row in range(9))
        next(read)
    assert time.monotonic() - begun < 60
