from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastmtl.media.errors import MediaError
from fastmtl.media.journal import Entry, Journal

SIZES, ABOUT = {"video": 3, "text": 2}, {"manifest": "m", "encoders": {"video": "v"}}


def journal(tmp_path, about=ABOUT):
    return Journal(tmp_path / "out.h5.parts", SIZES, about)


def add(kept, row, steps=2):
    x = {"video": np.full((steps, 3), row, "f4"), "text": np.full((1, 2), -row, "f4")}
    kept.add(Entry(row, {"video": steps, "text": 1}, cut=["text"] * (row % 2)), x)


def values(kept):
    return [(e.row, {m: x[0, 0] for m, x in features.items()}) for e, features in kept]


def begun(tmp_path):
    """A journal of three clips, the second of which was left out."""
    with journal(tmp_path) as kept:
        add(kept, 0)
        kept.add(Entry(1, wrong="is broken"), {})
        add(kept, 2, steps=5)
    return tmp_path / "out.h5.parts"


def test_it_goes_on_where_it_stopped(tmp_path) -> None:
    begun(tmp_path)
    with journal(tmp_path) as kept:
        assert [e.wrong for e in kept.entries] == [None, "is broken", None]
        add(kept, 3)
        expected = [(0, {"video": 0, "text": 0}), (1, {}), (2, {"video": 2, "text": -2})]
        assert values(kept) == [*expected, (3, {"video": 3, "text": -3})]
        assert [e.cut for e in kept.entries] == [[], [], [], ["text"]]


@pytest.mark.parametrize("name", ["clips.jsonl", "video.f32", "text.f32"])
@pytest.mark.parametrize("damage", ["cut", "flip", "grow", "remove"])
def test_what_was_not_written_whole_is_done_again(tmp_path, name, damage) -> None:
    path = begun(tmp_path) / name
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-3])
    elif damage == "flip":
        content[-6] ^= 0x55
        path.write_bytes(content)
    elif damage == "grow":
        path.write_bytes(content + b"{half a li")
    else:
        path.unlink()
    with journal(tmp_path) as kept:
        done = len(kept.entries)
        # Behind the damage nothing is believed, and before it everything.
        assert done == {"grow": 3, "remove": 0}.get(damage, 2)
        for row in range(done, 4):
            add(kept, row)
        assert [row for row, _ in values(kept)] == [0, 1, 2, 3]
        assert values(kept)[3] == (3, {"video": 3, "text": -3})


def test_another_extraction_is_refused(tmp_path) -> None:
    begun(tmp_path)
    other = journal(tmp_path, {**ABOUT, "manifest": "n"})
    assert not other.fits()
    with pytest.raises(MediaError, match=r"another manifest \(--overwrite begins anew\)"), other:
        pass
    other.remove()
    with other as kept:
        assert kept.entries == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_told_by_the_journals_name(tmp_path) -> None:
    kept = journal(tmp_path)
    with pytest.raises(OSError, match=r"No space left.*out\.h5\.parts"):
        _write_on_a_full_disk(kept)
    with kept as again:
        assert len(again.entries) == 1


def _write_on_a_full_disk(kept: Journal) -> None:
    with kept, Path("/dev/full").open("wb", buffering=0) as full:
        add(kept, 0)
        kept._features["video"] = full
        add(kept, 1)
