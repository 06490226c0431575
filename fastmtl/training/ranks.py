"""The processes that train one model together: what they tell each other, and how they end."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import Signals
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from fastmtl.training.checkpoint import RunError
from fastmtl.training.device import resolve_device
from fastmtl.training.signals import Interrupted, StopRequest

_T = TypeVar("_T")
# What gloo and NCCL say where the other end of a connection is gone.
_LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed out", re.I)


class EndedElsewhere(RuntimeError):
    """Another process of this run failed, and said why."""


class LostProcess(EndedElsewhere):
    """Another process of this run is gone, and whoever started it knows why."""


class Ranks:
    """This process and those that it trains with.

    Args:
        control: a group of all processes that passes objects and flags over gloo, beside the
            gradients' own; None for a process alone.
    """

    def __init__(self, control: distributed.ProcessGroup | None = None) -> None:
        self._control = control
        self.rank = 0 if control is None else distributed.get_rank(control)
        self.size = 1 if control is None else distributed.get_world_size(control)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device that an option names for this process; ValueError if there is none."""
        if self._control is None:
            return resolve_device(name)
        device = rank_device(name, int(os.environ.get("LOCAL_RANK") or self.rank))
        if device.type == "cuda":
            # NCCL talks from the current one.
            torch.cuda.set_device(device)
        return device

    def together(self, act: Callable[[], _T]) -> _T:
        """This process's `act()`, once all have done theirs.

        Where any fails, all do: those that did not fail themselves with EndedElsewhere.
        """
        if self._control is None:
            return act()
        error: Exception | None = None
        try:
            result = act()
        except Exception as caught:
            error = caught
        told: list[str | None] = [None] * self.size
        distributed.all_gather_object(
            told, None if error is None else str(error), group=self._control
        )
        failed = [rank for rank, message in enumerate(told) if message is not None]
        if not failed:
            return result
        if error is not None and failed[0] == self.rank:
            raise error
        raise EndedElsewhere(f"process {failed[0]}: {told[failed[0]]}") from error

    def of_first(self, act: Callable[[], _T]) -> _T:
        """What `act()` gives in the first process, in all of them; likewise if it fails."""
        if self._control is None:
            return act()
        result: list[Any] = [self.together(lambda: act() if self.first else None)]
        distributed.broadcast_object_list(
            result, group=self._control, group_src=0, device=torch.device("cpu")
        )
        value: _T = result[0]
        return value

    def need_same(self, value: str, message: str) -> None:
        """Raise RunError with `message` unless all processes have the same `value`."""
        same = self.of_first(lambda: value) == value

        def tell() -> None:
            if not same:
                raise RunError(message)

        self.together(tell)

    def add(self, *values: Tensor) -> None:
        """Replace every tensor by the sum of those of all processes."""
        if self._control is not None:
            for value in values:
                distributed.all_reduce(value)

    def gather(self, values: Tensor, rows: int) -> Tensor:
        """The `values` (n, ...) of all processes, one after the other; the first `rows` of them."""
        if self._control is None or not rows:
            return values
        parts = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(parts, values.contiguous())
        return torch.cat(parts)[:rows]

    def replicate(self, model: nn.Module) -> nn.Module:
        """The model in DistributedDataParallel, as the first process has it.

        Without device_ids, which would move the lengths of sequences to the device.
        """
        if self._control is None or isinstance(model, DistributedDataParallel):
            return model
        return DistributedDataParallel(model)

    def stop(self, request: StopRequest) -> StopRequest:
        """The request that all processes follow at the same step, whichever of them it reached."""
        return request if self._control is None else _SharedStop(request, self._control)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside the block, what is said of a lost connection becomes LostProcess."""
        try:
            with warnings.catch_warnings():
                # Of weights of width 1, whose strides mean nothing.
                warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
                yield
        except RuntimeError as error:
            lost = isinstance(error, distributed.DistError) or _LOST.search(str(error))
            if self._control is None or isinstance(error, EndedElsewhere) or not lost:
                raise
            raise LostProcess(
                "another process of this run has ended, and this one with it; what was stored goes "
                "on with --resume"
            ) from error


class _SharedStop(StopRequest):
    """Every check learns of the requests of the check before, and so never waits for a step."""

    def __init__(self, request: StopRequest, group: distributed.ProcessGroup) -> None:
        super().__init__()
        self._request, self._group = request, group
        self._told: tuple[Any, Tensor] | None = None

    def check(self) -> None:
        if self._told is not None:
            work, number = self._told
            work.wait()
            if found := int(number):
                self._told = None
                raise Interrupted(Signals(found).name)
        number = torch.tensor([int(self._request.signal or 0)])
        work = distributed.all_reduce(
            number, distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        self._told = work, number

    def settle(self) -> None:
        # What still runs when Python ends takes the process down with it.
        if self._told is not None:
            self._told[0].wait()
            self._told = None


# The processes of the default group that is initialised, so that each makes one group of them.
_known: tuple[object, Ranks] = (None, Ranks())


def current_ranks() -> Ranks:
    """All processes where torch.distributed runs several, this one alone elsewhere.

    Where it runs several, all have to call it.
    """
    global _known
    running = distributed.is_available() and distributed.is_initialized()
    if not running or distributed.get_world_size() == 1:
        return Ranks()
    if _known[0] is not distributed.group.WORLD:
        _known = (distributed.group.WORLD, Ranks(distributed.new_group(backend="gloo")))
    return _known[1]


def started_with() -> int:
    """How many processes this one was started as one of: WORLD_SIZE, as torchrun sets it.

    Raises ValueError if that is no number.
    """
    text = os.environ.get("WORLD_SIZE") or "1"
    if not text.isdecimal() or not int(text):
        raise ValueError(f"WORLD_SIZE: expected how many processes there are, got {text!r}")
    return int(text)


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that this one was started with by torchrun, for the block.

    They talk over gloo, and over NCCL where tensors are on GPUs.

    Raises:
        ValueError: for a WORLD_SIZE that is no number.
        LostProcess: if the others cannot be reached.

    Examples:
        >>> with joined() as ranks:
        ...     ranks.size
        1
    """
    if started_with() == 1:
        yield Ranks()
        return
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if _has_nccl() else "gloo")
        ranks = current_ranks()
    except (RuntimeError, ValueError) as error:
        raise LostProcess(f"the other processes cannot be reached ({error})") from error
    try:
        yield ranks
    except (EndedElsewhere, torch.OutOfMemoryError):
        # Those that are gone, or do not know yet, would be waited for.
        raise
    except BaseException:
        distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()


def _has_nccl() -> bool:
    return torch.cuda.is_available() and distributed.is_nccl_available()


def rank_device(name: str, local_rank: int) -> torch.device:
    """The device of process `local_rank` of several on this machine.

    Raises ValueError for a GPU by number, which all would take, or without enough GPUs.
    """
    device = resolve_device(name)
    if device.type != "cuda":
        return device
    if device.index is not None:
        raise ValueError(f"device: expected auto, cpu or cuda for several processes, got {name!r}")
    if local_rank >= (count := torch.cuda.device_count()):
        raise ValueError(
            f"device: expected a GPU for each of {local_rank + 1} processes, got {count} (cpu "
            "works for any number)"
        )
    return torch.device("cuda", local_rank)
