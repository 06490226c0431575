"""Several decoding processes, and the clips that they read ahead, in order."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

from fastmtl.media.encoders.base import Request
from fastmtl.media.worker import Found, Sources, receive, send

_Key = TypeVar("_Key")
_PROGRAM = "from fastmtl.media.worker import serve; serve()"
# Each clip takes and gives back the same memory: glibc is to keep up to 256 MiB of it, since the
# pages that the system hands out anew cost as much as the features.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}


class DecodingProcess:
    """One decoding process, started when it is first needed and again when it was lost.

    Args:
        requests: what is read, by modality.
        seconds: that a clip may take.
    """

    def __init__(self, requests: Mapping[str, Request], seconds: float) -> None:
        self._requests = dict(requests)
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def read(self, sources: Sources) -> Found:
        """What is found in the sources of a clip, or what is wrong with each."""
        begun = time.monotonic()
        try:
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            begun = time.monotonic()
            send(process.stdin, dict(sources))
            found: Found = receive(process.stdout)
            return found
        except (EOFError, BrokenPipeError):
            reason = self._lost(time.monotonic() - begun)
        if len(sources) == 1 or self._closed:
            return dict.fromkeys(sources, reason)
        # One of them is the cause.
        return {m: value for m in sources for value in self.read({m: sources[m]}).values()}

    def kill(self) -> None:
        """End the process, for good; what another thread waits for ends with it."""
        self._closed = True
        if process := self._process:
            process.kill()

    def close(self) -> None:
        """Let go of it, when no thread waits for it."""
        self.kill()
        if process := self._process:
            self._process = None
            _ended(process)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise EOFError
        paths = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": paths},
        )
        assert self._process.stdin is not None
        send(self._process.stdin, (self._requests, self._seconds))
        return self._process

    def _lost(self, taken: float) -> str:
        """Why the process ended that was to answer."""
        process, self._process = self._process, None
        if process is None:
            return "the decoding process cannot be started"
        code = _ended(process)
        if taken >= self._seconds:
            return f"was not decoded in {self._seconds:g} s (--timeout)"
        return f"the decoder crashed ({f'signal {-code}' if code < 0 else f'exit code {code}'})"


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Let go of a process that ends; its exit code."""
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            if stream is not None:
                stream.close()
    return process.wait()


class DecodingPool:
    """Decoding processes that read clips ahead; a context manager.

    Args:
        requests: what is read, by modality.
        workers: processes.
        seconds: that a clip may take.
    """

    def __init__(self, requests: Mapping[str, Request], workers: int, seconds: float) -> None:
        self._processes = [DecodingProcess(requests, seconds) for _ in range(workers)]
        self._idle: SimpleQueue[DecodingProcess] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decoding")

    def __enter__(self) -> DecodingPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.close()

    def read(self, clips: Iterable[tuple[_Key, Sources]]) -> Iterator[tuple[_Key, Found]]:
        """What is found in each clip, in their order, a few of them read ahead."""
        waiting: deque[tuple[_Key, Future[Found]]] = deque()
        rest = iter(clips)
        while True:
            for key, sources in islice(rest, 2 * len(self._processes) + 2 - len(waiting)):
                waiting.append((key, self._threads.submit(self._read, sources)))
            if not waiting:
                return
            key, future = waiting.popleft()
            yield key, future.result()

    def _read(self, sources: Sources) -> Found:
        process = self._idle.get()
        try:
            return process.read(sources)
        finally:
            self._idle.put(process)
