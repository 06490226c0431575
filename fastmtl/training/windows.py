"""Features in a file, read ahead of the training that uses them."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from fastmtl.data import StoredFeatures

# Read at once, of all modalities. Three are held: one in use, one waiting, one being read.
WINDOW_BYTES = 64 << 20

_T = TypeVar("_T")


def windows(
    stored: Mapping[str, StoredFeatures], order: Tensor, batch_size: int, device: torch.device
) -> Iterator[tuple[int, dict[str, Tensor], dict[str, Tensor]]]:
    """The samples of `order` in their stored dtypes on `device`, some mini-batches at a time.

    A window of up to 64 MiB is read as a whole, its rows in the order in which they lie in the
    file and not in which they are used, by a thread that is one window ahead; on a GPU through
    pinned memory, so that the copy does not hold up training either. So the order of samples can be
    any, that of a shuffle over all of them above all.

    Args:
        stored: features by modality; without any there is one window, with nothing in it.
        order: (n,), the rows of the samples.
        batch_size: samples in a mini-batch, of which a window has a whole number.
        device: where they are wanted.

    Yields:
        Where in `order` the window begins, its rows by modality, and by modality which of them
        (n,) are missing, on the CPU, where some are.

    Raises:
        DataError: as `StoredFeatures.read`.
    """
    if not stored:
        yield 0, {}, {}
        return
    row_bytes = sum(features.row_bytes for features in stored.values())
    size = max(WINDOW_BYTES // (row_bytes * batch_size), 1) * batch_size
    pin = device.type == "cuda"

    def read() -> Iterator[tuple[int, dict[str, Tensor], dict[str, Tensor]]]:
        for begin in range(0, len(order), size):
            rows = order[begin : begin + size]
            found = {name: x.read(rows, pin=pin) for name, x in stored.items()}
            lacking = ((name, stored[name].absent(x, rows)) for name, x in found.items())
            yield begin, found, {name: each for name, each in lacking if each is not None}

    for begin, found, absent in ahead(read()):
        yield begin, {name: x.to(device, non_blocking=True) for name, x in found.items()}, absent


def ahead(items: Iterator[_T]) -> Iterator[_T]:
    """The items, each made by a thread while the one before is in use; so are errors raised.

    Examples:
        >>> list(ahead(iter("abc")))
        ['a', 'b', 'c']
    """
    made: queue.Queue[tuple[_T | None, BaseException | None]] = queue.Queue(maxsize=1)
    left = threading.Event()

    def put(item: _T | None, error: BaseException | None = None) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                made.put((item, error), timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put(item)
                if left.is_set():
                    return
        except BaseException as error:
            put(None, error)
        else:
            put(None)

    thread = threading.Thread(target=work, name="fastmtl reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        left.set()
        thread.join()
