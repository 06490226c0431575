"""tf.Example and tf.SequenceExample out of their bytes, without protobuf or TensorFlow.

The messages are those of tensorflow/core/example/example.proto and feature.proto; how they are
written down is protobuf's wire format (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastmtl.data.rows import Array

# The values of a feature: byte strings, floats or integers.
Feature = list[bytes] | Array
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def parse_example(content: bytes) -> dict[str, Feature]:
    """The features of a tf.Example, or the context of a tf.SequenceExample.

    Raises:
        ValueError: for bytes that are neither.
    """
    return {
        name: _feature(value)
        for number, features in _fields(content)
        if number == 1
        for name, value in _map(_message(features))
    }


def parse_lists(content: bytes) -> dict[str, list[Feature]]:
    """The feature lists of a tf.SequenceExample: by name the feature of every step.

    Raises:
        ValueError: for bytes that are none.
    """
    return {
        name: [_feature(_message(each)) for number, each in _fields(steps) if number == 1]
        for number, lists in _fields(content)
        if number == 2
        for name, steps in _map(_message(lists))
    }


def _map(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The entries of a map from strings to messages, which is field 1 of `content`."""
    for number, entry in _fields(content):
        if number == 1:
            parts = dict(_fields(_message(entry)))
            yield _message(parts.get(1, b"")).decode(), _message(parts.get(2, b""))


def _feature(content: bytes) -> Feature:
    """A feature is one of three lists: bytes (1), floats (2) or integers (3)."""
    for kind, values in _fields(content):
        parts = [each for number, each in _fields(_message(values)) if number == 1]
        if kind == 1:
            return [_message(each) for each in parts]
        if kind == 2:
            return np.frombuffer(b"".join(_message(each) for each in parts), "<f4")
        if kind == 3:
            return np.array([n for each in parts for n in _integers(each)], np.int64)
    return []


def _integers(value: bytes | int) -> Iterator[int]:
    """One integer, or many of them packed."""
    if isinstance(value, int):
        yield _signed(value)
        return
    position = 0
    while position < len(value):
        number, position = _varint(value, position)
        yield _signed(number)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _message(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message was expected")
    return value


def _fields(content: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The number and value of every field of a message."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        kind = key & 7
        if kind == _VARINT:
            number, position = _varint(content, position)
            yield key >> 3, number
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if kind == _BYTES:
            size, position = _varint(content, position)
        if size is None or position + size > len(content):
            raise ValueError(f"a field at byte {position} that does not end in its message")
        yield key >> 3, content[position : position + size]
        position += size


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and where it ends."""
    number = shift = 0
    while shift < 70 and position < len(content):
        byte = content[position]
        number |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return number & (1 << 64) - 1, position
        shift += 7
    raise ValueError(f"a number at byte {position} that does not end")
