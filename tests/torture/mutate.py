"""Damage to files, by their bytes and by their structure."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fastmtl.training.checkpoint import load_tensors, read_json, save_tensors, seal

NUMBERS: list[Any] = [0, 1, -1, 7, 255, 2**31, 2**63, 10**30, 1e300, float("inf")]
VALUES: list[Any] = [None, True, "", "x", "[/x]", "\x00", [], {}, [[[]]], *NUMBERS]
TOKENS = [
    *"'\"%{},?<>&\x00\r\ufeff",
    *("@data", "@attribute", "nan", "1e999", "-1", "<label name='a'/>"),
    *("9" * 5000, " " * 5000, "\\'" * 500),
]
JSON_TEXTS = [
    *("[" * 200_000, '{"a":' * 200_000, "[1, 2]", "null", "", '{"a": NaN}', "9" * 5000),
    *('{"a": ' + "9" * 5000 + "}", "\ufeff{}", '{"a": 1, "a": 2}', '"\\ud800"'),
]


def damage_bytes(path: Path, rng: random.Random) -> None:
    """Flip bits, cut, fill, repeat or overwrite a few places."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        if not content:
            break
        at = rng.randrange(len(content))
        size = rng.choice([1, 4, 8, 64])
        kind = rng.randrange(6)
        if kind < 2:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del content[at : rng.choice([at + size, len(content)])]
        elif kind == 3:
            content[at : at + size] = rng.choice([b"\x00", b"\xff", b"\x7f"]) * size
        elif kind == 4:
            content[at:at] = content[at : at + size] * rng.choice([1, 100])
        else:
            number = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1])
            content[at : at + 8] = number.to_bytes(8, "little")
    path.write_bytes(content)


def damage_text(path: Path, rng: random.Random) -> None:
    """Remove, repeat, swap and insert lines and tokens."""
    lines = path.read_text(errors="replace").split("\n")
    for _ in range(rng.choice([1, 1, 2, 5])):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        kind = rng.randrange(5)
        if kind == 0 and len(lines) > 1:
            del lines[at]
        elif kind == 1:
            lines[at:at] = [lines[other]] * rng.choice([1, 50])
        elif kind == 2:
            lines[at], lines[other] = lines[other], lines[at]
        else:
            place = rng.randrange(len(lines[at]) + 1)
            skipped = rng.choice([0, 0, 1, 5])
            token = rng.choice(TOKENS) * rng.choice([1, 1, 3])
            lines[at] = lines[at][:place] + token + lines[at][place + skipped :]
    path.write_text("\n".join(lines), errors="replace")


def damage_npz(path: Path, rng: random.Random) -> None:
    """Give a member another shape, dtype or header, or another place."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    kind = rng.randrange(4)
    if kind == 0:
        shape = tuple(rng.choice([0, 1, 2, 30, -1, 10**6, 2**40]) for _ in range(rng.randrange(4)))
        kinds = ["<f4", "<f8", "|u1", "<U9", "|O", "<c16", "<M8[s]", "|V3"]
        header = {"descr": rng.choice(kinds), "fortran_order": rng.random() < 0.5, "shape": shape}
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, header)
        members[name] = stream.getvalue() + members[name][128:]
    elif kind == 1:
        members[name] = _array_bytes(_other_array(rng))
    elif kind == 2:
        members[rng.choice(["x", "y.npy", "x_a.npy", "lengths.npy", "split.npy"])] = members[name]
    else:
        del members[name]
    compression = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    with zipfile.ZipFile(path, "w", compression) as archive:
        for each, content in members.items():
            archive.writestr(each, content)


def damage_hdf5(path: Path, rng: random.Random) -> None:
    """Put another dataset, a link, or storage elsewhere, in place of one."""
    with h5py.File(path, "a") as file:
        name = rng.choice([*file, "lengths", "group", "split", "x_a"])
        if name in file:
            del file[name]
        kind = rng.randrange(6)
        if kind == 0:
            file[name] = h5py.SoftLink(rng.choice(["/y", "/x", name, "/a/b", ""]) or "/")
        elif kind == 1:
            file[name] = h5py.ExternalLink(str(path), rng.choice(["/x", "/"]))
        elif kind == 2:
            file.create_dataset(name, (30, 6), "f4", external=[("/etc/hostname", 0, 720)])
        elif kind == 3:
            sizes = [1, 30, 30, 10**4, 10**6, 10**9]
            shape = tuple(rng.choice(sizes) for _ in range(rng.randrange(1, 4)))
            file.create_dataset(name, shape, rng.choice(["f8", "i1", "f2"]), chunks=True)
        elif kind == 4:
            file[name] = _other_array(rng, h5=True)
        else:
            file.create_group(name)


def damage_json(path: Path, rng: random.Random) -> None:
    """Change or remove a value at any depth, or write what no parser likes; with a right seal."""
    if rng.random() < 0.2:
        path.write_text(rng.choice(JSON_TEXTS))
        return
    value = read_json(path)
    sealed = value.pop("checksum", None) is not None
    _damage_value(value, rng)
    path.write_text(json.dumps(seal(value) if sealed else value))


def damage_tensors(path: Path, rng: random.Random) -> None:
    """Change the tensors' names or sizes, or what stands beside them, with a right checksum."""
    tensors, values = load_tensors(path)
    name = rng.choice(list(tensors))
    kind = rng.randrange(5)
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        other = rng.choice([*tensors, "x", "model.", "optimizer.x.step", "best.a"])
        tensors[other] = tensors[name].clone()
    elif kind == 2:
        tensors[name] = tensors[name].flatten()[:-1].clone()
    else:
        _damage_value(values, rng)
    try:
        save_tensors(path, tensors, values)
    except ValueError:
        damage_bytes(path, rng)


Damage = Callable[[Path, random.Random], None]
BY_STRUCTURE: dict[str, Damage] = {
    ".npz": damage_npz,
    ".h5": damage_hdf5,
    ".arff": damage_text,
    ".xml": damage_text,
    ".json": damage_json,
    ".safetensors": damage_tensors,
}


def _damage_value(value: Any, rng: random.Random) -> None:
    """Change something inside a dictionary or list, in place."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.8:
        _damage_value(value[key], rng)
    elif rng.random() < 0.2:
        del value[key]
    else:
        value[key] = rng.choice(VALUES)


def _other_array(rng: random.Random, *, h5: bool = False) -> Any:
    values: list[Any] = [
        np.zeros(30), np.zeros((30, 2, 2, 2)), np.full((30, 6), np.nan), np.array(3.0),
        np.full((30, 2), 2), np.arange(30), np.array([b"\xff"] * 30), np.zeros((30, 6), complex),
        np.array([b"val"] * 30), np.zeros((0, 6)), np.full((30, 6), 1e300), np.ones((30, 2), bool),
    ]  # fmt: skip
    if not h5:
        values += [np.array(["train"] * 30), np.array(["[/x]", "\ud800"]), np.array(["a"] * 2)]
    return rng.choice(values)


def _array_bytes(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
