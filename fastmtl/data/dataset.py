"""The data set that models are trained on: features, labels, lengths and splits in one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fastmtl._checks import did_you_mean
from fastmtl.data.arrays import fields_from_arrays
from fastmtl.data.checks import repeated
from fastmtl.data.columns import Columns, cut
from fastmtl.data.errors import DataError
from fastmtl.data.lengths import Lengths, lengths_at, of_modality
from fastmtl.data.missing import need_some
from fastmtl.data.provenance import Encoders, of_modalities
from fastmtl.data.splits import SPLITS
from fastmtl.data.stored import StoredFeatures, Values, absent_if_read
from fastmtl.data.tasks import Tasks

Features = Values | dict[str, Values]


@dataclass(frozen=True, eq=False, repr=False)
class MultiTaskData:
    """Samples of a multi-task, multi-label or multimodal problem, with their splits.

    - `x`: float32 features, a tensor (N, D) or (N, L, D), or a dict of such by modality; each a
      `StoredFeatures` that is read by row where the features stay in their file;
    - `y`: (N, T) float32 labels of 0, 1, or between them, and NaN for a missing one; of a
      multi-class task the number of the class, from 0;
    - `split`: (N,) int64, 0 for train, 1 for val, 2 for test;
    - `label_names`: T distinct names;
    - `class_names`: those of each multi-class task, by the task's name; the last of the T tasks;
    - `lengths`: (N,) int64 number of valid steps, or None where every step is valid. It holds for
      every modality that is a sequence, all of one number of steps then; or a dict of such by
      modality, of those that are padded. Features at the padded steps are 0. A sample that lacks
      one of several modalities has NaN in all its valid steps there, or the length 0;
    - `group`: (N,) int64 ids, samples of one group were kept in one split; or None;
    - `sample_names`: N strings, what the samples are called; or None;
    - `encoders`: what made the features, by modality, where a file says so (`fastmtl extract`);
    - `name`: what the set is called in messages;
    - `warnings`: one line each on what a user should know and can train without repairing.

    Make one from your own arrays with `MultiTaskData.from_arrays`, from a file with `load`.
    """

    x: Features
    y: Tensor
    split: Tensor
    label_names: list[str]
    lengths: Lengths = None
    group: Tensor | None = None
    sample_names: list[str] | None = None
    encoders: Encoders | None = None
    name: str = "data"
    warnings: tuple[str, ...] = ()
    class_names: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def from_arrays(
        cls,
        x: Any,
        y: Any,
        *,
        lengths: Any = None,
        label_names: Any = None,
        classes: Mapping[str, Any] | None = None,
        class_names: Mapping[str, Any] | None = None,
        split: Any = None,
        group: Any = None,
        sample_names: Any = None,
        name: str = "data",
        seed: int = 0,
        for_training: bool = True,
    ) -> MultiTaskData:
        """Check arrays or tensors, and complete their split.

        Without a split the samples are split 60/20/20, without validation rows 20% of the training
        rows become them; both by whole groups. Arrays of float32 are not copied.

        Args:
            x: (N, D) or (N, L, D) of any real dtype, or a mapping of such by modality. A row of one
                of several that is all NaN is missing.
            y: (N, T) of 0, 1, or between them, and NaN for missing; or None where `classes` has all
                labels.
            lengths: (N,) integers, the valid steps of each sequence, for all modalities that are
                sequences; these then have one number of steps L. Or a mapping of such by modality,
                with 0 for a sample that lacks it.
            label_names: T distinct names of the columns of `y`.
            classes: (N,) for each multi-class task, by its name: numbers from 0, with -1 or NaN for
                missing, or names, with "" for missing. These tasks stand behind those of `y`.
            class_names: the names of the classes of such tasks, in the order of their numbers.
            split: (N,) of "train", "val", "test".
            group: (N,) integers or strings; samples of one group stay in one split.
            sample_names: (N,) strings, what the samples are called: clips, files. They need not
                differ.
            name: what the set is called in messages.
            seed: draws what of the split is not given.
            for_training: False lifts what only training needs (a label for each task and samples
                to train and validate on) and lets `y` be None, which gives it no columns.

        Raises:
            DataError: for arrays that cannot be used.

        Examples:
            >>> data = MultiTaskData.from_arrays(torch.randn(10, 4), [[0, 1], [1, 0]] * 5)
            >>> data.num_tasks, [len(data.indices(s)) for s in ("train", "val", "test")]
            (2, [6, 2, 2])
            >>> damage = ["none", "mild", "severe", "mild", "", "mild", "none", "severe"] * 2
            >>> data = MultiTaskData.from_arrays(torch.eye(16), None, classes={"damage": damage})
            >>> data.class_names, data.y[:5, 0].tolist()
            ({'damage': ['mild', 'none', 'severe']}, [1.0, 0.0, 2.0, 0.0, nan])
        """
        return cls(
            **fields_from_arrays(
                x,
                y,
                lengths=lengths,
                label_names=label_names,
                classes=classes or {},
                class_names=class_names or {},
                split=split,
                group=group,
                sample_names=sample_names,
                name=name,
                seed=seed,
                for_training=for_training,
            )
        )

    @property
    def num_samples(self) -> int:
        """N, over all splits."""
        return self.y.shape[0]

    @property
    def num_tasks(self) -> int:
        """T, the number of columns of `y`."""
        return self.y.shape[1]

    @property
    def tasks(self) -> Tasks:
        """What the columns of `y` are."""
        return Tasks(self.label_names, self.class_names)

    @property
    def soft(self) -> bool:
        """Whether some labels lie between 0 and 1."""
        return bool(((self.y > 0) & (self.y < 1)).any())

    @property
    def modalities(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample, (D,) or (L, D), by modality; a single tensor is called "x"."""
        return {name: tuple(value.shape[1:]) for name, value in self.features().items()}

    def features(self) -> dict[str, Values]:
        """The features by modality; a single tensor is called "x"."""
        return self.x if isinstance(self.x, dict) else {"x": self.x}

    def tensors(self) -> dict[str, Tensor]:
        """The features by modality, read into memory if they are not there."""
        return {name: x if isinstance(x, Tensor) else x[:] for name, x in self.features().items()}

    def lengths_of(self, modality: str) -> Tensor | None:
        """Valid steps (N,) of a modality, None where it has no padded ones."""
        flat = self.features()[modality].dim() == 2
        return None if flat else of_modality(self.lengths, modality)

    def __len__(self) -> int:
        return self.num_samples

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.indices(s))} {s}" for s in SPLITS)
        return f"MultiTaskData({self.name!r}, {self.modalities}, {self.num_tasks} tasks, {counts})"

    def indices(self, split: str) -> Tensor:
        """Rows of a split in ascending order, int64.

        Args:
            split: "train", "val" or "test".

        Raises:
            ValueError: for another name.

        Examples:
            >>> data = MultiTaskData.from_arrays(torch.eye(3), torch.eye(3), split=["test", "train",
            ...     "val"], for_training=False)
            >>> data.indices("test")
            tensor([0])
        """
        if split not in SPLITS:
            raise ValueError(f"split: expected 'train', 'val' or 'test', got {split!r}")
        return (self.split == SPLITS.index(split)).nonzero().flatten()

    def subset(self, rows: str | Tensor | Sequence[int]) -> MultiTaskData:
        """Some of the samples, copied; features that stay in a file stay there.

        Args:
            rows: the name of a split, or indices, whose order is kept.

        Examples:
            >>> from fastmtl.data import synthetic
            >>> len(synthetic.disaster(50, 4, 8).subset("train"))
            30
        """
        if isinstance(rows, str):
            rows = self.indices(rows)
        rows, x = torch.as_tensor(rows, dtype=torch.int64), self.x
        return replace(
            self,
            x={k: _rows(v, rows) for k, v in x.items()} if isinstance(x, dict) else _rows(x, rows),
            y=self.y[rows],
            split=self.split[rows],
            lengths=lengths_at(self.lengths, rows),
            group=None if self.group is None else self.group[rows],
            sample_names=self.names_of(rows),
        )

    def names_of(self, rows: Tensor) -> list[str] | None:
        """What the samples of some rows (n,) are called; None where samples have no names."""
        names = self.sample_names
        return None if names is None else [names[row] for row in rows.tolist()]

    def positives(self, split: str = "train") -> Tensor:
        """Number of positive samples of each task, those with y >= 1/2: n_j, (T,) int64.

        Of a multi-class task those outside its most frequent class, which are the positives of two
        classes where the positive one is the rarer.

        Args:
            split: "train", "val" or "test".

        Examples:
            >>> from fastmtl.data import synthetic
            >>> synthetic.disaster(154, 4, 8).positives("train").shape
            torch.Size([7])
        """
        return self.tasks.positives(self.y[self.indices(split)])

    def with_modalities(self, modalities: Mapping[str, Columns] | Sequence[str]) -> MultiTaskData:
        """The same samples with other modalities.

        Args:
            modalities: a mapping from names to columns (a slice, or a sequence of indices) cuts a
                single `x` along its last dimension; a sequence of names keeps these of the
                modalities there are, in that order.

        Raises:
            DataError: if a name or a column is not there.

        Examples:
            >>> data = MultiTaskData.from_arrays(torch.randn(10, 5), torch.eye(2).repeat(5, 1))
            >>> data.with_modalities({"text": slice(0, 3), "audio": [3, 4]}).modalities
            {'text': (3,), 'audio': (2,)}
        """
        if not modalities:
            raise DataError.at(self.name, "modalities", "at least one modality", "none")
        if not isinstance(modalities, Mapping):
            if (twice := repeated(modalities)) is not None:
                got = f"{twice!r} more than once"
                raise DataError.at(self.name, "modalities", "distinct names", got)
            kept, lengths = {m: self._modality(m) for m in modalities}, self.lengths
            if isinstance(lengths, dict):
                lengths = {m: each for m, each in lengths.items() if m in kept} or None
            need_some(
                self.name, {m: absent_if_read(v, of_modality(lengths, m)) for m, v in kept.items()}
            )
            encoders = of_modalities(self.encoders, kept)
            return replace(self, x=kept, lengths=lengths, encoders=encoders)
        if isinstance(self.x, dict):
            got = "a set that has the modalities " + ", ".join(self.x)
            raise DataError.at(self.name, "modalities", "one tensor x to cut columns from", got)
        return replace(self, x={m: cut(self.name, m, self.x, c) for m, c in modalities.items()})

    def _modality(self, name: str) -> Values:
        there = self.features()
        if name not in there:
            got = repr(name) + did_you_mean(name, there)
            raise DataError.at(self.name, "modalities", f"any of {', '.join(there)}", got)
        return there[name]


def _rows(values: Values, rows: Tensor) -> Values:
    return values.select(rows) if isinstance(values, StoredFeatures) else values[rows]
