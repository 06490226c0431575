"""What counts as the same output."""

from __future__ import annotations

import pytest

from tests.docs.pages import missing_line

PRINTED = "240 train, 80 val\nepoch 1/2  loss 0.1241  0.41 s  best\nmAP 0.52\n"


@pytest.mark.parametrize(
    "shown",
    [
        "240 train, 80 val\n...\nmAP 0.52\n",
        "epoch 1/2  loss 0.1250  7.1 s  best",
        "mAP 0.56\n",
    ],
)
def test_the_same(shown: str) -> None:
    assert missing_line(shown, PRINTED) is None


@pytest.mark.parametrize(
    "shown",
    [
        "mAP 0.52\n240 train, 80 val",
        "241 train, 80 val",
        "epoch 1/2  loss 0.1241  0.41 s",
        "mAP 0.6",
    ],
)
def test_another(shown: str) -> None:
    assert missing_line(shown, PRINTED) == shown.splitlines()[-1]
