"""The writer of HDF5 data files: by samples, in memory that does not grow with the features."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastmtl._files import replacing
from fastmtl.data.checks import as_array, check_rows, check_strings, repeated
from fastmtl.data.errors import DataError
from fastmtl.data.growing import growing_file
from fastmtl.data.h5_samples import H5Writer, Shape, field_of
from fastmtl.data.rows import Array
from fastmtl.data.tasks import default_label_names

_DTYPES = ("float32", "float16", "int8", "uint8")


@contextmanager
def h5_writer(
    path: str | os.PathLike[str],
    shapes: Mapping[str, Shape],
    *,
    label_names: Sequence[str] = (),
    class_names: Mapping[str, Sequence[str]] | None = None,
    dtype: str = "float32",
    attributes: Mapping[str, str | int | float] | None = None,
    overwrite: bool = False,
) -> Iterator[H5Writer]:
    """Write an .h5 data file that `load` reads, one sample at a time.

    Features go to the disk as they come; names, groups, splits and lengths stay in memory, about
    100 bytes a sample. Each sample is checked before any of it is written. The file appears under
    its name when the block ends well, and not at all otherwise.

    Args:
        path: the file, in .h5 or .hdf5.
        shapes: of one sample, by modality: (D,) of a vector, (L, D) of a sequence padded to L
            steps, (None, D) of one of any length, stored without padding. A modality "x" must be
            the only one, and is written as a single `x`.
        label_names: of the binary tasks, T; none for a file without these.
        class_names: of the multi-class tasks: the names of the C classes, by task.
        dtype: of the features: float32, float16, int8 or uint8.
        attributes: of the file's root, by name.
        overwrite: whether a file that is there may be replaced.

    Raises:
        DataError: for a path, a layout or a sample that cannot be used.
        OSError: naming `path`, where it cannot be written.

    Examples:
        >>> import tempfile, fastmtl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = folder + "/clips.h5"
        ...     with h5_writer(path, {"video": (None, 3)}, label_names=["flood"]) as out:
        ...         for steps in range(1, 11):
        ...             out.add({"video": np.ones((steps, 3))}, y=[steps % 2], name=f"{steps}.mp4")
        ...     fastmtl.data.load(path).modalities
        {'video': (10, 3)}
    """
    source, classes = str(path), {t: list(names) for t, names in (class_names or {}).items()}
    check_new_h5(Path(path), overwrite=overwrite)
    _check_layout(source, shapes, list(label_names), classes, dtype)
    with replacing(path) as temporary, growing_file(temporary) as file:
        file.h5.attrs.update(attributes or {})
        writer = H5Writer(file, source, shapes, list(label_names), classes, dtype)
        yield writer
        writer.finish()


def write_h5(
    path: str | os.PathLike[str],
    x: Any,
    y: Any = None,
    *,
    lengths: Any = None,
    label_names: Sequence[str] | None = None,
    classes: Mapping[str, Any] | None = None,
    class_names: Mapping[str, Sequence[str]] | None = None,
    split: Sequence[str] | None = None,
    group: Sequence[str | int] | None = None,
    sample_names: Sequence[str] | None = None,
    dtype: str = "float32",
    attributes: Mapping[str, str | int | float] | None = None,
    overwrite: bool = False,
) -> None:
    """Write arrays as an .h5 data file; what they are is as in the file (`load`).

    Args:
        path: as for `h5_writer`, and so `class_names`, `dtype`, `attributes` and `overwrite`.
        x: (N, D) or (N, L, D), or N sequences (L_i, D), stored without padding; by modality or one.
        y: (N, T).
        lengths: (N,) valid steps of the sequences in arrays (N, L, D), or such by modality.
        label_names: T names.
        classes: (N,) classes, names or indices, by task.
        class_names: the names of the classes, by task.
        split: (N,).
        group: (N,).
        sample_names: (N,).
        dtype: of the features.
        attributes: of the file's root.
        overwrite: whether a file that is there may be replaced.

    Raises:
        DataError: for arrays or a path that cannot be used.

    Examples:
        >>> import tempfile, fastmtl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_h5(folder + "/toy.h5", np.ones((10, 3)), np.eye(2)[[0, 1] * 5])
        ...     fastmtl.data.load(folder + "/toy.h5")
        MultiTaskData('toy', {'x': (3,)}, 2 tasks, 6 train, 2 val, 2 test)
    """
    parts = {k: _sequences(v) for k, v in (x if isinstance(x, Mapping) else {"x": x}).items()}
    shapes = {name: _shape_of(str(path), name, values) for name, values in parts.items()}
    if y is not None:
        y = as_array(y)
        label_names = default_label_names(y.shape[-1]) if label_names is None else label_names
    steps = lengths if isinstance(lengths, Mapping) else dict.fromkeys(parts, lengths)
    columns = {"y": y, "split": split, "group": group, "sample_names": sample_names}
    columns |= {field_of("lengths", name): steps.get(name) for name in parts}
    columns |= {f"y_{task}": values for task, values in (classes or {}).items()}
    sizes = {field_of("x", name): len(values) for name, values in parts.items()}
    sizes |= {field: len(value) for field, value in columns.items() if value is not None}
    check_rows(str(path), sizes)
    with h5_writer(
        path,
        shapes,
        label_names=label_names or (),
        class_names=class_names,
        dtype=dtype,
        attributes=attributes,
        overwrite=overwrite,
    ) as out:
        for i in range(len(next(iter(parts.values())))):
            out.add(
                {name: values[i][: _at(steps.get(name), i)] for name, values in parts.items()},
                y=_at(y, i),
                classes={task: _at(values, i) for task, values in (classes or {}).items()},
                split=_at(split, i),
                group=_at(group, i),
                name=_at(sample_names, i),
            )


def _at(values: Any, i: int) -> Any:
    """The value at a row, as Python's where it is a numpy one."""
    if values is None:
        return None
    return values[i].item() if isinstance(values[i], np.generic) else values[i]


def _sequences(value: Any) -> list[Array] | Array:
    """An array by its rows, or a list of sequences that differ in length."""
    if isinstance(value, list | tuple) and len({len(as_array(each)) for each in value}) > 1:
        return [as_array(each) for each in value]
    return as_array(value)


def _shape_of(source: str, name: str, values: list[Array] | Array) -> Shape:
    expected = "(N, D), (N, L, D), or N sequences (L_i, D)"
    if isinstance(values, list):
        if values[0].ndim == 2:
            return None, values[0].shape[1]
        raise DataError.at(source, field_of("x", name), expected, f"shape {values[0].shape}")
    if values.ndim == 2:
        return (values.shape[1],)
    if values.ndim == 3:
        return values.shape[1], values.shape[2]
    raise DataError.at(source, field_of("x", name), expected, f"shape {values.shape}")


def check_new_file(
    path: Path, name: str, suffixes: Sequence[str], *, overwrite: bool, field: str = "path"
) -> None:
    """Raise DataError unless a file of the `name` that is expected can be written there."""
    source = str(path)
    if path.suffix.lower() not in suffixes:
        raise DataError.at(source, field, name, repr(path.suffix))
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise DataError.at(source, field, "a file in a writable directory", "another place")
    if path.exists() and not overwrite:
        raise DataError.at(source, field, "a new file", "one that is there (overwrite replaces it)")


def check_new_h5(path: Path, *, overwrite: bool, field: str = "path") -> None:
    """The same of an .h5 file."""
    name = "a name in .h5 or .hdf5"
    check_new_file(path, name, (".h5", ".hdf5"), overwrite=overwrite, field=field)


def _check_layout(
    source: str,
    shapes: Mapping[str, Shape],
    label_names: list[str],
    class_names: Mapping[str, list[str]],
    dtype: str,
) -> None:
    if dtype not in _DTYPES:
        raise DataError.at(source, "dtype", f"one of {', '.join(_DTYPES)}", repr(dtype))
    if not shapes or ("x" in shapes and len(shapes) > 1):
        expected = "at least one modality, and x alone if it is one of them"
        raise DataError.at(source, "shapes", expected, ", ".join(shapes) or "none")
    for name, shape in shapes.items():
        if not name or "/" in name or not _is_shape(shape):
            expected = "(D,), (L, D) or (None, D) of positive integers, by a name without a slash"
            raise DataError.at(source, "shapes", expected, f"{name!r}: {tuple(shape)}")
    named = {"label_names": label_names} | {f"class_names_{t}": n for t, n in class_names.items()}
    for field, names in named.items():
        check_strings(source, field, np.array(names, object))
        if (twice := repeated(names)) is not None:
            raise DataError.at(source, field, "distinct names", f"{twice!r} more than once")


def _is_shape(shape: Sequence[Any]) -> bool:
    sizes = shape[1:] if len(shape) == 2 and shape[0] is None else shape
    return len(shape) in (1, 2) and all(isinstance(size, int) and size > 0 for size in sizes)
