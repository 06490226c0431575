"""TFRecords, and the messages in them."""

from __future__ import annotations

import random
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastmtl.convert.examples import parse_example, parse_lists
from fastmtl.convert.tfrecord import crc32c, records
from fastmtl.data import DataError
from tests.convert.layouts import example, sequence_example, tfrecord


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"a", 0xC1D04330),
        (b"123456789", 0xE3069283),
        # RFC 3720, appendix B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc32c_of_known_data(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 63, 64, 65, 1000])
def test_crc32c_is_that_of_byte_by_byte(size: int) -> None:
    data = random.Random(size).randbytes(size)
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    assert crc32c(data) == register ^ 0xFFFFFFFF


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    contents = [b"foobar", b"", bytes(1000)]
    (tmp_path / "a").write_bytes(tfrecord(*contents))
    assert list(records(tmp_path / "a")) == contents


def test_the_records_of_another_writer_are_read(tmp_path: Path) -> None:
    writers = pytest.importorskip("tensorboard.summary.writer.record_writer")
    with (tmp_path / "a").open("wb") as file:
        writer = writers.RecordWriter(file)
        for content in (b"foobar", b"", bytes(range(256))):
            writer.write(content)
    assert list(records(tmp_path / "a")) == [b"foobar", b"", bytes(range(256))]


def _message(pool: Any, name: str, *fields: tuple[str, int, str]) -> None:
    """Declare a message of repeated fields of a type, or of another message."""
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="t", syntax="proto3")
    message = file.message_type.add(name=name)
    kinds = {"bytes": 12, "float": 2, "int64": 3, "string": 9}
    for label, number, kind in fields:
        repeated = not kind.endswith("!")
        each = message.field.add(name=label, number=number, label=3 if repeated else 1)
        if (kind := kind.rstrip("!")) in kinds:
            each.type = kinds[kind]
        else:
            each.type, each.type_name = 11, f".t.{kind}"
            file.dependency.append(f"{kind}.proto")
    pool.Add(file)


def test_messages_that_protobuf_wrote_are_read() -> None:
    pools = pytest.importorskip("google.protobuf.descriptor_pool")
    from google.protobuf import message_factory

    pool = pools.DescriptorPool()
    _message(pool, "BytesList", ("value", 1, "bytes"))
    _message(pool, "FloatList", ("value", 1, "float"))
    _message(pool, "Int64List", ("value", 1, "int64"))
    _message(
        pool, "Feature", ("b", 1, "BytesList!"), ("f", 2, "FloatList!"), ("i", 3, "Int64List!")
    )
    # A map is written as repeated entries of a key and a value.
    _message(pool, "Entry", ("key", 1, "string!"), ("value", 2, "Feature!"))
    _message(pool, "Features", ("feature", 1, "Entry"))
    _message(pool, "FeatureList", ("feature", 1, "Feature"))
    _message(pool, "Entries", ("key", 1, "string!"), ("value", 2, "FeatureList!"))
    _message(pool, "FeatureLists", ("list", 1, "Entries"))
    _message(pool, "Sequence", ("context", 1, "Features!"), ("lists", 2, "FeatureLists!"))
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Sequence"))()
    made.context.feature.add(key="id").value.b.value.append(b"abc")
    made.context.feature.add(key="labels").value.i.value.extend([7, -3, 1 << 50])
    made.context.feature.add(key="mean").value.f.value.extend([0.5, -2])
    steps = made.lists.list.add(key="rgb").value
    for step in (b"\x01\x02", b"\xff\x00"):
        steps.feature.add().b.value.append(step)
    content = made.SerializeToString()
    found = parse_example(content)
    assert found["id"] == [b"abc"]
    assert list(found["labels"]) == [7, -3, 1 << 50]
    assert list(found["mean"]) == [0.5, -2]
    assert parse_lists(content) == {"rgb": [[b"\x01\x02"], [b"\xff\x00"]]}


@pytest.mark.parametrize("at", range(0, 50, 3))
def test_any_flipped_bit_is_noticed(tmp_path: Path, at: int) -> None:
    content = bytearray(tfrecord(b"foobar", b"water")[:50])
    content[min(at, len(content) - 1)] ^= 4
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=r"a: record [01]: expected") as caught:
        list(records(tmp_path / "a"))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    whole = tfrecord(b"foobar", b"water")
    for size in range(1, len(whole)):
        (tmp_path / "a").write_bytes(whole[:size])
        if size == len(tfrecord(b"foobar")):
            assert list(records(tmp_path / "a")) == [b"foobar"]
            continue
        with pytest.raises(DataError, match="record"):
            list(records(tmp_path / "a"))


def test_another_file_is_no_tfrecord(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"PK\x03\x04" * 10)
    with pytest.raises(DataError, match=re.escape("(not a TFRecord?)")):
        list(records(tmp_path / "a"))


def test_the_three_kinds_of_features() -> None:
    values = np.array([0.5, -2, 1e-8], "f4")
    found = parse_example(example(id=[b"abc"], labels=[3, 0, -1, 1 << 40], mean_rgb=values))
    assert found["id"] == [b"abc"]
    assert list(found["labels"]) == [3, 0, -1, 1 << 40]
    assert np.array_equal(found["mean_rgb"], values)


def test_lists_of_features_and_their_context() -> None:
    content = sequence_example({"id": [b"abc"]}, rgb=[b"\x00\x01", b"\xff\x02"], audio=[b"\x03"])
    assert parse_example(content) == {"id": [b"abc"]}
    assert parse_lists(content) == {"rgb": [[b"\x00\x01"], [b"\xff\x02"]], "audio": [[b"\x03"]]}


def test_lists_that_are_not_packed_are_read() -> None:
    # Field 3 (integers) of a feature, with each number as a field of its own; floats likewise.
    integers = b"\x1a\x04\x08\x03\x08\x05"
    floats = b"\x12\x0a\x0d" + np.float32(0.5).tobytes() + b"\x0d" + np.float32(2).tobytes()
    entries = b"".join(
        b"\x0a" + bytes([len(e)]) + e
        for e in (b"\x0a\x01a\x12\x06" + integers, b"\x0a\x01b\x12\x0c" + floats)
    )
    found = parse_example(b"\x0a" + bytes([len(entries)]) + entries)
    assert list(found["a"]) == [3, 5]
    assert list(found["b"]) == [0.5, 2]


def test_damage_raises_value_error_and_nothing_else() -> None:
    whole = sequence_example({"id": [b"abc"], "labels": [3, 1 << 40]}, rgb=[b"\x00\x01"])
    rng = random.Random(0)
    for _ in range(3000):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        for parse in (parse_example, parse_lists):
            with suppress(ValueError):
                parse(bytes(content[: rng.randint(1, len(content))]))
