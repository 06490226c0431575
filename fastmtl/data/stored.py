"""Features that stay in a file: read by row, checked, and converted where they are used."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fastmtl.data.errors import DataError
from fastmtl.data.missing import absent_rows
from fastmtl.data.rows import Rows

_PART_BYTES = 32 << 20
Step = Callable[[Tensor, Tensor | None], Tensor]


class StoredFeatures:
    """Features (N, D) or (N, L, D) of which some rows are read at a time.

    Indexed by rows it gives what a float32 tensor with the same values would, padded steps being 0.
    Training reads in two parts instead: `read` takes rows from the file in their stored dtype, and
    `finish` converts them on the device. What is done to all features (`then`) is done to each row
    that is read.

    Args:
        rows: the array in the file.
        lengths: (N,), the valid steps of each sequence; None if all are.
        optional: whether samples may lack them, which then are NaN at every valid step.

    Examples:
        >>> import tempfile, fastmtl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(folder + "/x.npy", np.arange(20, dtype=np.int8).reshape(10, 2))
        ...     np.save(folder + "/y.npy", np.eye(2)[[0, 1] * 5])
        ...     x = fastmtl.data.load(folder, memory="stream").x
        ...     x[torch.tensor([3, 1])], x.read(torch.tensor([9])).dtype
        (tensor([[6., 7.],
                [2., 3.]]), torch.int8)
    """

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(
        self, rows: Rows, lengths: Tensor | None = None, *, optional: bool = False
    ) -> None:
        self.rows = rows
        self.shape = torch.Size(rows.shape)
        self._lengths = lengths
        self._optional = optional
        self._index: Tensor | None = None
        self._steps: tuple[Step, ...] = ()

    def __len__(self) -> int:
        return self.shape[0]

    def dim(self) -> int:
        """The number of dimensions, 2 or 3."""
        return len(self.shape)

    def numel(self) -> int:
        """The number of values."""
        return self.shape.numel()

    @property
    def row_bytes(self) -> int:
        """What `read` takes for a row."""
        return math.prod(self.rows.shape[1:]) * self.rows.dtype.itemsize

    def then(self, step: Step) -> StoredFeatures:
        """The same features with one more thing done to what is read.

        Args:
            step: called with float32 features (n, ...), which it may change in place, and their
                lengths (n,) or None; gives features of the same n.
        """
        out = copy.copy(self)
        out._steps = (*self._steps, step)
        like = step(torch.empty(1, *self.shape[1:]), None)
        out.shape = torch.Size((len(self), *like.shape[1:]))
        return out

    def select(self, rows: Tensor) -> StoredFeatures:
        """Some of the rows, (n,) indices."""
        out = copy.copy(self)
        out._index = rows if self._index is None else self._index[rows]
        out.shape = torch.Size((len(rows), *self.shape[1:]))
        return out

    def read(self, rows: Tensor, *, pin: bool = False) -> Tensor:
        """Rows as they are stored, with 0 at padded steps, in memory that is pinned with `pin`.

        Args:
            rows: (n,) indices, in any order.
            pin: for a copy to a GPU.

        Raises:
            DataError: for rows that cannot be read, and for features that are NaN or infinite.
            IndexError: for rows that there are not.
        """
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self):
            got = f"{int(rows.min())} to {int(rows.max())}"
            raise IndexError(f"rows: expected from 0 to {len(self) - 1}, got {got}")
        base = rows if self._index is None else self._index[rows]
        # numpy, which leaves the processors to the thread that trains, and asks for large pages:
        # in small ones new memory of this size takes as long as to read the rows.
        values = np.empty((len(rows), *self.rows.shape[1:]), self.rows.dtype)
        out = torch.from_numpy(values)
        if pin:
            out = torch.empty_like(out, pin_memory=True)
            values = out.numpy()
        self.rows.read(base.numpy(), values)
        padded = None
        if self._lengths is not None and values.ndim == 3:
            padded = np.arange(values.shape[1]) >= self._lengths[base].numpy()[:, None]
            if padded.any():
                values[padded] = 0
        if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
            if self._optional:
                lacking = np.isnan(values)
                if padded is not None:
                    lacking |= padded[..., None]
                finite[lacking.reshape(len(values), -1).all(1)] = True
            if finite.all():
                return out
            at = np.argwhere(~finite)[0].tolist()
            names = ("column",) if values.ndim == 2 else ("step", "column")
            place = [f"row {int(base[at[0]])}"]
            place += [f"{name} {i}" for name, i in zip(names, at[1:], strict=True)]
            got = f"NaN or infinity (as float32) at {', '.join(place)}"
            raise DataError.at(self.rows.source, self.rows.field, "finite numbers", got)
        return out

    def absent(self, part: Tensor, rows: Tensor) -> Tensor | None:
        """Which of the `rows` (n,), of which `read` gave `part`, are missing; None if none."""
        base = rows if self._index is None else self._index[rows]
        return absent_rows(part, None if self._lengths is None else self._lengths[base])

    def finish(self, part: Tensor, lengths: Tensor | None) -> Tensor:
        """Features as the model reads them.

        Args:
            part: rows that `read` gave, on any device, which may be changed in place.
            lengths: (n,), their valid steps.
        """
        part = part.float()
        for step in self._steps:
            part = step(part, lengths)
        return part

    def __getitem__(self, rows: Tensor | Sequence[int] | slice) -> Tensor:
        chosen = torch.arange(len(self))[rows] if isinstance(rows, slice) else torch.as_tensor(rows)
        part = self.read(chosen)
        base = chosen if self._index is None else self._index[chosen]
        return self.finish(part, None if self._lengths is None else self._lengths[base])

    def parts(self) -> Iterator[Tensor]:
        """All of it, in order, some rows at a time."""
        size = max(_PART_BYTES // max(4 * self.numel() // max(len(self), 1), 1), 1)
        for start in range(0, len(self), size):
            yield self[start : start + size]


# What a data set has for features: tensors, or what stays in a file and is read by row.
Values = Tensor | StoredFeatures


def absent_if_read(values: Values, lengths: Tensor | None) -> Tensor | None:
    """As `absent_rows`; None for features in a file, which tell when they are read."""
    return absent_rows(values, lengths) if isinstance(values, Tensor) else None
