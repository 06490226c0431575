"""Damaged media and manifests: a clear line for each that cannot be used, no crash, no hang."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastmtl.data import DataError
from fastmtl.media import Sampling, extract, read_manifest
from fastmtl.media.options import Options
from tests.media.clips import write_clip, write_sound, write_table

TABLES = {
    "clips.csv": "name,video,text,y_a,split\na,a.mp4,one two,1,train\nb,b.mp4,,0,val\n" * 3,
    "clips.tsv": "video\ty_kind\na.mp4\tfire\nb.mp4\tflood\nc.mp4\t\n",
    "clips.jsonl": '{"text": "a", "y_a": 1}\n{"text": "b", "y_a": null, "group": 3}\n',
}


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one kind of damage that disks, networks and editors do."""
    data = bytearray(content)
    place, size = (int(rng.integers(len(data))) for _ in range(2))
    match int(rng.integers(7)):
        case 0:
            data = data[:place]
        case 1:
            data[place : place + size // 8] = bytes(len(data[place : place + size // 8]))
        case 2:
            for at in rng.integers(len(data), size=1 + size % 60):
                data[int(at)] ^= 1 << int(rng.integers(8))
        case 3:
            # Where headers are.
            for at in rng.integers(min(len(data), 200), size=1 + size % 6):
                data[int(at)] = int(rng.integers(256))
        case 4:
            data[place:place] = rng.bytes(1 + size % 500)
        case 5:
            del data[place : place + 1 + size % 500]
        case 6:
            data = data[place:] + data[:place]
    return bytes(data)


@pytest.mark.slow
def test_damaged_media(tmp_path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    image = pytest.importorskip("PIL.Image")
    originals = [
        write_clip(tmp_path / "clip.mp4", 1.0, speed=0.5),
        write_clip(tmp_path / "clip.ts", 1.0),
        write_clip(tmp_path / "clip.mkv", 1.0),
        write_clip(tmp_path / "clip.avi", 1.0, tone=None),
        write_sound(tmp_path / "sound.wav", 1.0),
    ]
    for name in ("picture.png", "picture.jpg"):
        image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)).save(
            tmp_path / name
        )
        originals.append(tmp_path / name)
    rng = np.random.default_rng(0)
    rows = [{"name": "whole", "video": "clip.mp4", "audio": "", "y_a": 1}]
    for i in range(200):
        original = originals[i % len(originals)]
        path = tmp_path / f"bad{i}{original.suffix}"
        path.write_bytes(damaged(original.read_bytes(), rng))
        kind = "audio" if original.suffix == ".wav" else "video"
        rows.append({"name": path.name, "video": "", "audio": "", "y_a": 0} | {kind: path.name})
    table = write_table(tmp_path / "clips.csv", rows)
    done = extract(
        table,
        tmp_path / "out.h5",
        {"video": "pixels?grid=1", "audio": "stft?bands=4"},
        sampling=Sampling(rate=4.0),
        options=Options(workers=2, on_error="skip", timeout=20.0),
    )
    # Decoders make what they can of a flipped bit, so not all are refused.
    assert done.written + len(done.skipped) == 201
    assert len(done.skipped) > 50
    assert len({line.partition(":")[0] for line in done.skipped}) == 1
    for line in done.skipped:
        assert "\n" not in line
        assert len(line) < 400
        assert "(bad" in line
        # Neither slow nor fatal to a decoder; if one of another version is, this is where it shows.
        assert "crashed" not in line
        assert "--timeout" not in line


@pytest.mark.parametrize("name", TABLES)
def test_damaged_manifests(tmp_path, name) -> None:
    rng, path, refused = np.random.default_rng(1), Path(tmp_path, name), []
    for _ in range(200):
        path.write_bytes(damaged(TABLES[name].encode(), rng))
        try:
            assert read_manifest(path).clips
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 20
    for line in refused:
        assert "\n" not in line
        assert line.startswith(str(path))
