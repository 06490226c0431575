"""Small files in the layouts of the published sets."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl.convert.tfrecord import crc32c, masked


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, a message or a packed list."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(value: Any) -> bytes:
    """A tf.train.Feature of floats, integers or byte strings."""
    if isinstance(value, np.ndarray):
        return field(2, field(1, value.astype("<f4").tobytes()))
    if isinstance(value[0], bytes):
        return field(1, b"".join(field(1, each) for each in value))
    return field(3, field(1, b"".join(varint(each) for each in value)))


def features(values: dict[str, Any]) -> bytes:
    entries = (field(1, name.encode()) + field(2, feature(v)) for name, v in values.items())
    return b"".join(field(1, entry) for entry in entries)


def example(**values: Any) -> bytes:
    return field(1, features(values))


def sequence_example(context: dict[str, Any], **lists: list[bytes]) -> bytes:
    entries = b""
    for name, steps in lists.items():
        of_steps = b"".join(field(1, feature([step])) for step in steps)
        entries += field(1, field(1, name.encode()) + field(2, of_steps))
    return field(1, features(context)) + field(2, entries)


def tfrecord(*contents: bytes) -> bytes:
    out = b""
    for content in contents:
        head = struct.pack("<Q", len(content))
        out += head + struct.pack("<I", masked(crc32c(head)))
        out += content + struct.pack("<I", masked(crc32c(content)))
    return out


def crisismmd(folder: Path, suffix: str = "") -> Path:
    """Three images of two tweets in two tasks, whose splits differ for one."""
    (folder / "data_image").mkdir(parents=True, exist_ok=True)
    (folder / "data_image" / "1_0.jpg").write_bytes(b"")
    head = "event_name\ttweet_id\timage_id\ttweet_text\timage\tlabel\tlabel_text\tlabel_image"
    rows = {
        ("informative", "train"): [(1, 0, "informative"), (1, 1, "not_informative")],
        ("informative", "dev"): [(2, 0, "informative")],
        ("damage", "train"): [(2, 0, "severe_damage")],
        ("damage", "test"): [(1, 1, "dont_know_or_cant_judge")],
    }
    for (task, split), given in rows.items():
        lines = [head]
        for tweet, image, label in given:
            name = f"{tweet}_{image}"
            text = f'"Water everywhere, {tweet}'
            lines.append(f"flood\t{tweet}\t{name}\t{text}\tdata_image/{name}.jpg\t{label}\ta\tb")
        path = folder / f"task_{task}_text_img{suffix}_{split}.tsv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def nuswide(folder: Path) -> Path:
    (folder / "features").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, rows in (("Train", 6), ("Test", 4)):
        for kind, size in (("CH", 3), ("BoW_int", 2)):
            table = rng.integers(0, 9, (rows, size)) / 4
            lines = "".join(" ".join(f"{v:g}" for v in row) + " \n" for row in table)
            (folder / "features" / f"{part}_Normalized_{kind}.dat").write_text(lines)
        for concept in ("bear", "sky dive"):
            labels = rng.integers(0, 2, rows)
            text = "".join(f"{label}\n" for label in labels)
            (folder / f"Labels_{concept}_{part}.txt").write_text(text)
    return folder


def video_folders(folder: Path) -> Path:
    for name in ("a", "b c"):
        (folder / name).mkdir(parents=True)
        (folder / name / "clip.MP4").write_bytes(b"")
    (folder / "a" / "sound.wav").write_bytes(b"")
    (folder / "a" / "caption.txt").write_text("Water\n everywhere\n")
    (folder / "left").mkdir()
    text = "video,flood,split,fire\na,1,train,0\nb c,,test,1\n"
    (folder / "concepts.csv").write_text(text)
    return folder


def youtube8m(folder: Path, *, frames: bool) -> Path:
    folder.mkdir(parents=True)
    for part, given in (("train00", [[0], [2, 1]]), ("validate03", [[1]]), ("testAB", [[]])):
        contents = []
        for i, labels in enumerate(given):
            context: dict[str, Any] = {"id": [f"{part}{i}".encode()]}
            if labels:
                context["labels"] = labels
            if frames:
                lists = {"rgb": [bytes([i, 255, 128])] * (i + 2), "audio": [b"\x00\x10"] * (i + 2)}
                contents.append(sequence_example(context, **lists))
            else:
                mean = {"mean_rgb": np.full(3, i / 2), "mean_audio": np.array([1, i])}
                contents.append(example(**context, **mean))
        (folder / f"{part}.tfrecord").write_bytes(tfrecord(*contents))
    names = "Index,TrainVideoCount,Name\n1,5,Car\n0,9,Game\n2,3,Car\n"
    (folder / "vocabulary.csv").write_text(names)
    return folder


BAGS = """% made by a test
@relation bags
@attribute id {b1,b2,'b 3'}
@attribute bag relational
  @attribute 'f 1' numeric
  @attribute f2 real
@end bag
@attribute flood {0,1}
@attribute kind {indoor,outdoor}
@attribute fire {'0', '1'}
@data
b1,"0.5,1\\n-2,3e-1",1,indoor,0
b2,'7,8',0,outdoor,?

'b 3',"1,2\\n3,4\\n5,6",1,indoor,1
"""
