"""`fastmtl train --processes N`: the same command in N processes, watched until all have ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NoReturn

from torch import distributed, multiprocessing

from fastmtl.cli.errors import FAILED, LAUNCHED, LOST, exit_with, launched
from fastmtl.training.signals import StopRequest, stop_on_signals

# How long the other processes get to store what they have when one has ended.
GRACE_SECONDS = 20.0
_POLL_SECONDS = 0.05


def launch(arguments: Sequence[str], processes: int, *, hint: str) -> NoReturn:
    """Run `fastmtl ARGUMENTS` in that many processes of this machine, and exit as they do.

    They find each other as under torchrun. SIGINT and SIGTERM are passed on. Where one process
    ends before its time, the others are ended; unless it told why itself, one line does, with
    `hint` at its end.
    """
    # In this process, so that no other program can take the port in between.
    store: Any = distributed.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60)
    )
    command = [sys.executable, "-m", "fastmtl", *arguments]
    with stop_on_signals() as stop:
        workers = [
            subprocess.Popen(
                command, env=_environment(rank, processes, store.port), start_new_session=True
            )
            for rank in range(processes)
        ]
        try:
            _watch(workers, stop, hint)
        finally:
            for worker in workers:
                if worker.poll() is None:
                    worker.kill()
                worker.wait()


def _environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """What torchrun would set, and a share of the cores; what the user has set stays."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    defaults = {"OMP_NUM_THREADS": str(max(1, (cores or 1) // processes))}
    if sys.platform == "linux":
        defaults["GLOO_SOCKET_IFNAME"] = "lo"
    return {
        **defaults,
        **os.environ,
        LAUNCHED: "1",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }


def _watch(workers: list[subprocess.Popen[bytes]], stop: StopRequest, hint: str) -> NoReturn:
    passed_on = False
    while True:
        codes = [worker.poll() for worker in workers]
        # One that lost another ends too: not it, but the other is the cause.
        causes = [rank for rank, code in enumerate(codes) if code not in (None, 0, LOST)]
        if causes or None not in codes:
            break
        if stop.signal is not None and not passed_on:
            passed_on = True
            _send(workers, stop.signal)
        time.sleep(_POLL_SECONDS)
    if not causes:
        sys.exit(FAILED if LOST in codes else 0)
    # They end by themselves when one is gone, unless they are at something else.
    if not _ended(workers, GRACE_SECONDS):
        _send(workers, signal.SIGTERM)
        _ended(workers, GRACE_SECONDS)
    code = codes[causes[0]] or 0
    if code >= 0:
        sys.exit(code)
    name = signal.Signals(-code).name
    exit_with(f"process {causes[0]} of {len(workers)} was ended by {name}; {hint}", FAILED)


def follow_launcher() -> None:
    """Be asked to stop where the launcher is killed, on systems that tell."""
    ask = getattr(multiprocessing, "_prctl_pr_set_pdeathsig", None)
    if launched() and ask is not None:
        ask(signal.SIGTERM)


def _ended(workers: list[subprocess.Popen[bytes]], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while any(worker.poll() is None for worker in workers):
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _send(workers: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(number)
