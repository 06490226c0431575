"""Data sets of one's own: samples (x, y) or (x, y, lengths), one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset

from fastmtl.data import checks
from fastmtl.data.budget import Budget
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError
from fastmtl.data.placement import check_memory, too_large
from fastmtl.data.rows import Array, Rows
from fastmtl.data.sample_rows import Fetched, SampleRows, check_like, parse, put

# By index, or one after another; or such by the name of the split.
Samples = Dataset[Any] | Iterable[Any] | Mapping[str, Dataset[Any] | Iterable[Any]]


def from_samples(
    samples: Samples,
    *,
    label_names: Any = None,
    class_names: Mapping[str, Any] | None = None,
    split: Any = None,
    group: Any = None,
    sample_names: Any = None,
    name: str = "data",
    seed: int = 0,
    for_training: bool = True,
    memory: str = "load",
) -> MultiTaskData:
    """A data set out of samples, each a pair (x, y) or a triple (x, y, lengths).

    `x` is an array or tensor (D,) or (L, D), or a mapping of such by modality, and `y` (T,) of 0, 1
    and NaN. Sequences may differ in L: they are padded to the longest, and their lengths are L
    where none are given. A given one is an integer for all modalities, or a mapping of integers.
    Of the modalities that others have a mapping may lack some: that sample is without them. Their
    order is that in which they come up.

    Args:
        samples: a `torch.utils.data.Dataset` or a sequence, of which samples are taken by index; or
            any other iterable, which is read once and has to fit into half of the memory (or
            FASTMTL_MEMORY_LIMIT). Or a mapping from train, val and test to such.
        label_names: as for `MultiTaskData.from_arrays`, and so `split` and `group`, in the order of
            the samples; a mapping has its own split.
        class_names: the classes of the tasks among `label_names` that have several; their columns
            of `y` hold the number of the class, from 0, and -1 or NaN for missing. They stand
            behind the others.
        split: as `label_names`.
        group: as `label_names`.
        sample_names: as `label_names`.
        name: what the set is called in messages.
        seed: as for `MultiTaskData.from_arrays`.
        for_training: as for `MultiTaskData.from_arrays`.
        memory: "load" keeps the features in memory, "stream" asks for a sample again whenever it is
            used, from another thread: it must be the same each time. "auto" streams what would take
            more than a quarter of the available memory, judged by the first sample. What has no
            index is loaded.

    Raises:
        DataError: for samples that cannot be used.

    Examples:
        >>> from torch.utils.data import TensorDataset
        >>> import torch
        >>> from_samples(TensorDataset(torch.randn(10, 4), torch.eye(2).repeat(5, 1)))
        MultiTaskData('data', {'x': (4,)}, 2 tasks, 6 train, 2 val, 2 test)
    """
    check_memory(memory)
    parts: Mapping[str, Any] = samples if isinstance(samples, Mapping) else {"": samples}
    indexed = all(map(_is_indexed, parts.values()))
    if memory == "stream" and not indexed:
        expected = "samples that are taken by index (memory stream)"
        raise DataError.at(name, "samples", expected, "some that are not")
    reader = _Reader(name, keep=memory != "stream")
    of_split: list[str] = []
    for part_name, part in parts.items():
        for sample in _each(part):
            reader.add(sample)
            of_split.append(part_name)
            if memory == "auto" and indexed and len(of_split) == 1:
                count = sum(len(each) for each in parts.values())
                reader.keep = not too_large(reader.arrays_of(count))
    if not of_split:
        raise DataError.at(name, "samples", "at least one", "none")
    labels, binary, classes = _by_kind(name, reader.labels(), label_names, class_names or {})
    x = reader.padded() if reader.keep else reader.rows(list(parts.values()))
    return MultiTaskData.from_arrays(
        x if reader.by_modality else x["x"],
        labels,
        lengths=reader.lengths(),
        label_names=binary,
        classes=classes,
        class_names=class_names,
        split=of_split if isinstance(samples, Mapping) else split,
        group=group,
        sample_names=sample_names,
        name=name,
        seed=seed,
        for_training=for_training,
    )


def _by_kind(
    source: str, y: Array, label_names: Any, class_names: Mapping[str, Any]
) -> tuple[Array | None, Any, dict[str, Array]]:
    """The binary columns of labels (N, T) and their names, and the others by name."""
    if not class_names:
        return y, label_names, {}
    names = [] if label_names is None else checks.check_label_names(source, label_names, y.shape[1])
    if absent := [task for task in class_names if task not in names]:
        expected = f"{absent[0]!r} among them, which has class_names"
        raise DataError.at(source, "label_names", expected, ", ".join(names) or "none")
    binary = [i for i, name in enumerate(names) if name not in class_names]
    classes = {task: y[:, names.index(task)] for task in class_names}
    return y[:, binary] if binary else None, [names[i] for i in binary] or None, classes


def as_data(data: MultiTaskData | Samples, seed: int, memory: str) -> MultiTaskData:
    """The data set itself, or that of samples."""
    if isinstance(data, MultiTaskData):
        return data
    if not isinstance(data, Iterable) and not hasattr(data, "__getitem__"):
        raise TypeError(f"data: expected a MultiTaskData or samples, got {type(data).__name__}")
    return from_samples(data, seed=seed, memory=memory)


def _is_indexed(part: Any) -> bool:
    # An IterableDataset has both, and raises.
    taken = hasattr(part, "__getitem__") and hasattr(part, "__len__")
    return taken and not isinstance(part, IterableDataset)


def _each(part: Any) -> Iterable[Any]:
    """By index, which a Dataset need not end with an IndexError, or as they come."""
    if _is_indexed(part):
        return (part[i] for i in range(len(part)))
    whole: Iterable[Any] = part
    return whole


class _Reader:
    """Collects samples, their features too if they are to be kept."""

    def __init__(self, source: str, *, keep: bool) -> None:
        self.source = source
        self.keep = keep
        self.by_modality = False
        self._budget = Budget(source)
        self._like: dict[str, Array] = {}
        self._features: dict[str, list[Array | None]] = {}
        self._steps: dict[str, list[int]] = {}
        self._labels: list[Array] = []
        self._lengths: list[Any] = []

    def add(self, sample: Any) -> None:
        """One more, of the form of the first."""
        row = len(self._labels)
        x, y, lengths = parse(self.source, row, sample)
        if not row:
            self.by_modality = isinstance(sample[0], Mapping)
        if self.by_modality == isinstance(sample[0], Mapping):
            for name in [each for each in x if each not in self._like]:
                self._like[name] = x[name]
                self._features[name], self._steps[name] = [None] * row, [0] * row
        check_like(self.source, row, x, self._like)
        if self._labels and y.shape != self._labels[0].shape:
            expected = f"labels of shape {self._labels[0].shape} as sample 0 has"
            raise DataError.at(self.source, f"y of sample {row}", expected, f"{y.shape}")
        if self._labels and (lengths is None) != (self._lengths[0] is None):
            raise DataError.at(self.source, f"sample {row}", "lengths in all or in none", "others")
        self._labels.append(y)
        self._lengths.append(lengths)
        for name, steps in self._steps.items():
            value = x.get(name)
            steps.append(0 if value is None else len(value))
            if self.keep:
                # Once as it came, and once beside the others.
                self._budget.take(f"x of sample {row}", 0 if value is None else 2 * value.nbytes)
                self._features[name].append(None if value is None else value.copy())

    def arrays_of(self, count: int) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shapes and dtypes of the features of so many samples like the first."""
        return [((count, *value.shape), value.dtype) for value in self._like.values()]

    def padded(self) -> dict[str, Array | Rows]:
        """The features, (N, D) or (N, L, D), sequences padded to the longest with 0."""
        out: dict[str, Array | Rows] = {}
        for name, values in self._features.items():
            dtype = np.result_type(*{v.dtype for v in values if v is not None})
            array = np.zeros((len(values), *self._shape(name)), self._with_nan(name, dtype))
            for row, value in enumerate(values):
                if value is None:
                    array[row] = np.nan
                else:
                    put(value, array[row])
            out[name] = array
            values.clear()
        return out

    def rows(self, parts: Sequence[Any]) -> dict[str, Array | Rows]:
        """The features, to be asked for."""
        shapes = {name: self._shape(name) for name in self._like}
        fetched = Fetched(self.source, parts, self._like)
        return {
            name: SampleRows(fetched, name, shape, self._with_nan(name, self._like[name].dtype))
            for name, shape in shapes.items()
        }

    def labels(self) -> Array:
        """(N, T)."""
        return np.stack(self._labels)

    def lengths(self) -> Any:
        """Those that were given, or those of sequences that differ; None where there are none."""
        if isinstance(self._lengths[0], Mapping):
            names = {name: None for each in self._lengths for name in each}
            found = {n: np.array([each.get(n, -1) for each in self._lengths]) for n in names}
            return {n: np.where(self._lacking(n), 0, each) for n, each in found.items()}
        if self._lengths[0] is not None:
            return np.array(self._lengths)
        differing = {
            name: np.array(steps)
            for name, steps in self._steps.items()
            if self._like[name].ndim == 2 and len(set(steps)) > 1
        }
        if not self.by_modality:
            return differing.get("x")
        return differing or None

    def _lacking(self, name: str) -> Any:
        """Which samples (N,) are without a modality."""
        return np.array(self._steps.get(name, [1])) == 0

    def _with_nan(self, name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of features, or one that has NaN if they need it."""
        return np.result_type(dtype, np.float32) if self._lacking(name).any() else dtype

    def _shape(self, name: str) -> tuple[int, ...]:
        like = self._like[name]
        return like.shape if like.ndim == 1 else (max(self._steps[name]), *like.shape[1:])
