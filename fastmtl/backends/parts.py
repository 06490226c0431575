"""How many tasks a kernel takes at a time where memory is needed for those in work alone."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor

# Elements that a part of the tasks should at least have: below, a call costs more than it saves.
_WORTHWHILE = 1 << 19


def task_parts(x: Tensor, weight_hh: Tensor) -> list[slice]:
    """The tasks of a GRU layer in parts, each with as many pairs of task and direction as the CPU
    has threads, or a multiple, and not tiny; all of them at once on another device.

    x is (R, I) or (T, R, I) and weight_hh (T, dirs, 3h, h).
    """
    tasks, directions, width, _ = weight_hh.shape
    if x.device.type != "cpu":
        return [slice(0, tasks)]
    threads = torch.get_num_threads()
    step = threads // gcd(threads, directions)
    elements = max(1, step * directions * width * x.shape[-2])
    step *= -(-_WORTHWHILE // elements)
    return [slice(begin, min(begin + step, tasks)) for begin in range(0, tasks, step)]
