"""What decoding processes are asked for in tests: requests that go wrong, and how often."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastmtl.media.errors import MediaError
from fastmtl.media.piece import Piece


@dataclass(frozen=True)
class Obeys:
    """Does what the text says, or gives its length."""

    def read(self, source: Path | str) -> Piece:
        """(2,) float32."""
        match str(source):
            case "hang":
                time.sleep(1000)
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os._exit(3)
            case "print":
                print("a library that prints")
                sys.stdout.flush()
            case "refuse":
                raise MediaError("is refused")
            case "fail":
                raise KeyError("no such key")
            case "memory":
                raise MemoryError
        return Piece(np.full(2, len(str(source)), np.float32))
