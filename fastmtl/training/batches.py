"""Mini-batches of samples whose features stay on the device, in memory, or in their file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastmtl.data import MultiTaskData, StoredFeatures
from fastmtl.data.lengths import Lengths, lengths_at
from fastmtl.data.missing import absent_rows, need_some
from fastmtl.training.windows import windows

Features = Tensor | dict[str, Tensor]
# Larger data stays in (pinned) host memory: activations and optimizer need the rest of the GPU.
DEVICE_SHARE = 0.5


class Batch(NamedTuple):
    """One mini-batch of B samples."""

    x: Features  # (B, D) or (B, L, D), or a dictionary of them
    targets: Tensor  # (B, T), NaN where a label is missing
    lengths: Lengths  # (B,), int64, on the CPU, or a dictionary of them
    counts: Tensor  # (T,), how many labels of each task are present
    present: dict[str, Tensor] | None = None  # (B,) bool of each modality that some samples lack

    def forward(self, model: nn.Module) -> Tensor:
        """What the model gives for it. It is told of missing modalities where there are any."""
        output: Tensor = self.call(model)
        return output

    def call(self, function: Callable[..., Any], **options: Any) -> Any:
        """What a model, or a method of one, gives for it."""
        told = {} if self.present is None else {"present": self.present}
        return function(self.x, self.lengths, **told, **options)


class Batches:
    """The samples of `data` on `device`, given out in mini-batches of any order.

    The features are moved once; a batch is one gather per tensor, without worker processes or
    collation. Data larger than half of a GPU's free memory stays on the host. Features that stay in
    a file are read ahead (`windows`), and give the same batches in the same order.

    Args:
        data: the samples, in the model's layout (`arrange`).
        device: where the batches are wanted.

    Examples:
        >>> import fastmtl
        >>> data = fastmtl.data.load("synthetic:disaster?clips=40&frames=3&features=8")
        >>> batches = Batches(data, torch.device("cpu"))
        >>> [batch.targets.shape[0] for batch in batches(torch.arange(40), 16)]
        [16, 16, 8]
    """

    def __init__(self, data: MultiTaskData, device: torch.device) -> None:
        self.device = device
        features = data.features()
        self.stored = {k: v for k, v in features.items() if isinstance(v, StoredFeatures)}
        tensors = {k: v for k, v in features.items() if isinstance(v, Tensor)}
        store = _storage(tensors, device)
        self.features = {name: value.to(store) for name, value in tensors.items()}
        self.names = list(features)
        self.multimodal = isinstance(data.x, dict)
        self.targets = data.y.to(device)
        self.name = data.name
        lacking = ((k, absent_rows(x, data.lengths_of(k))) for k, x in tensors.items())
        self.absent = {k: each.cpu() for k, each in lacking if each is not None}
        # Of a missing sequence one step is read, and left out.
        self.lengths = data.lengths
        if isinstance(data.lengths, dict):
            self.lengths = {k: each.clamp(min=1) for k, each in data.lengths.items()}
        # Where padded steps are cleared again after they were standardised.
        lengths = ((name, data.lengths_of(name)) for name in self.stored)
        self.valid = {name: each.to(device) for name, each in lengths if each is not None}
        present = ~data.y.isnan()
        # Without missing labels the counts are the batch size, and need no gather.
        self.present = None if bool(present.all()) else present.to(device, data.y.dtype)

    def __call__(self, order: Tensor, batch_size: int) -> Iterator[Batch]:
        """Mini-batches of some samples; the last may be smaller.

        Args:
            order: (n,), the rows of the samples.
            batch_size: samples in a mini-batch.
        """
        order_device = order.to(self.device)
        for begin, read, lacking in windows(self.stored, order, batch_size, self.device):
            count = len(next(iter(read.values()))) if read else len(order)
            for start in range(begin, begin + count, batch_size):
                host = order[start : start + batch_size]
                index = order_device[start : start + batch_size]
                parts = {
                    name: self._take(value, host, index) for name, value in self.features.items()
                }
                parts |= self._finish(read, start - begin, index)
                absent = {k: each[host] for k, each in self.absent.items()}
                there = slice(start - begin, start - begin + len(host))
                absent |= {k: each[there] for k, each in lacking.items()}
                yield Batch(
                    {name: parts[name] for name in self.names} if self.multimodal else parts["x"],
                    self.targets.index_select(0, index),
                    lengths_at(self.lengths, host),
                    self._counts(index),
                    self._present(absent, host),
                )

    def _finish(self, read: dict[str, Tensor], start: int, index: Tensor) -> dict[str, Tensor]:
        """The batch that begins at `start` of what was read, as the model reads it."""
        lengths = {name: each.index_select(0, index) for name, each in self.valid.items()}
        return {
            name: self.stored[name].finish(value[start : start + len(index)], lengths.get(name))
            for name, value in read.items()
        }

    def _present(self, absent: dict[str, Tensor], host: Tensor) -> dict[str, Tensor] | None:
        """What `absent` leaves of a batch; None for one that lacks nothing."""
        absent = {name: each for name, each in absent.items() if bool(each.any())}
        if not absent:
            return None
        need_some(self.name, {name: absent.get(name) for name in self.names}, host)
        return {name: (~each).to(self.device) for name, each in absent.items()}

    def _take(self, value: Tensor, host: Tensor, index: Tensor) -> Tensor:
        if value.device == index.device:
            return value.index_select(0, index)
        return value.index_select(0, host).pin_memory().to(self.device, non_blocking=True)

    def _counts(self, index: Tensor) -> Tensor:
        if self.present is not None:
            return self.present.index_select(0, index).sum(0)
        return self.targets.new_full((self.targets.shape[1],), len(index))


def _storage(tensors: dict[str, Tensor], device: torch.device) -> torch.device:
    if device.type != "cuda":
        return device
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    free, _ = torch.cuda.mem_get_info(device)
    return device if size <= DEVICE_SHARE * free else torch.device("cpu")
