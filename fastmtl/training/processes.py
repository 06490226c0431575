"""Tasks in several processes at a time, which stop when this one does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from types import FrameType
from typing import TypeVar

from fastmtl.training.signals import Interrupted, stop_on_signals

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
# How long a signal may wait to be noticed.
_POLL_SECONDS = 0.2
# In a worker: whether it is between two tasks, and whether no further one may begin.
_idle, _stopping = threading.Event(), threading.Event()


def run_in_processes(
    do: Callable[[_Task], _Result],
    tasks: Sequence[_Task],
    jobs: int,
    finished: Callable[[_Task, _Result], None],
) -> None:
    """Do `tasks`, `jobs` at a time, and call `finished` after each.

    On SIGINT or SIGTERM, and when a task fails, those under way are stopped as that signal stops
    a run here: after the step, with its state stored. Raises Interrupted, or what the task raised.

    Args:
        do: what to do with a task, importable by name.
        tasks: what it is to be done with.
        jobs: processes at a time.
        finished: gets the task and what came of it, in this process.
    """
    # A forked child of a process with OpenMP threads can hang.
    context = multiprocessing.get_context("spawn")
    # Its other end closes when this process wants the workers to stop, and when it dies.
    told, tell = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        min(jobs, len(tasks)), mp_context=context, initializer=_stop_with, initargs=(told,)
    )
    with stop_on_signals() as stop, told, tell, pool:
        futures = {pool.submit(_work, do, task): task for task in tasks}
        open_futures = set(futures)
        try:
            while open_futures:
                done, open_futures = wait(open_futures, _POLL_SECONDS, FIRST_COMPLETED)
                for future in done:
                    finished(futures[future], future.result())
                stop.check()
        except BrokenProcessPool:
            raise OSError("a process was killed while it trained: out of memory?") from None
        finally:
            if open_futures:
                tell.close()
                pool.shutdown(wait=False, cancel_futures=True)


def _stop_with(told: Connection) -> None:
    """In a worker: have it stop when the other end of `told` closes, and only then."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # away from the terminal's Ctrl-C, which is for the parent
    _idle.set()
    parent = multiprocessing.parent_process()

    def handle(number: int, frame: FrameType | None) -> None:
        if not _idle.is_set():
            raise Interrupted(signal.Signals(number).name)

    def watch() -> None:
        told.poll(None)
        _stopping.set()
        os.kill(os.getpid(), signal.SIGTERM)
        if parent is not None:
            parent.join()
        # Nobody is left to give work or to end this process.
        _idle.wait()
        os._exit(1)

    signal.signal(signal.SIGTERM, handle)
    threading.Thread(target=watch, daemon=True).start()


def _work(do: Callable[[_Task], _Result], task: _Task) -> _Result:
    if _stopping.is_set():
        raise Interrupted("SIGTERM")
    _idle.clear()
    try:
        return do(task)
    finally:
        _idle.set()


def threads_for(jobs: int) -> int:
    """CPU threads for each of so many processes."""
    return max(1, (os.cpu_count() or 1) // jobs)
