"""A decoding process: reads clips as it is told to, and says what it found or what was wrong.

It is a process of its own since a decoder that a damaged file leads astray may crash, hang, or take
all memory; then the process ends, and not the extraction. It loads no PyTorch.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import signal
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from fastmtl.media.encoders.base import Request
from fastmtl.media.errors import MediaError
from fastmtl.media.piece import Piece

_SIZE = struct.Struct("<Q")
# Of addresses, of which a decoder maps more than it uses.
_MOST_MEMORY = 16 << 30
# What of each modality there is to read: a file, or a text.
Sources = Mapping[str, Path | str]
# By modality: what was read, or what was wrong.
Found = dict[str, Piece | str]


def send(stream: IO[bytes], message: Any) -> None:
    """Write a message to the other side."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_SIZE.pack(len(content)))
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message of the other side. Raises EOFError where it is gone."""
    head = stream.read(_SIZE.size)
    if len(head) < _SIZE.size:
        raise EOFError
    (size,) = _SIZE.unpack(head)
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return pickle.loads(content)


def serve() -> None:
    """Answer on standard output what is asked on standard input, until that ends.

    The first message is the requests by modality and the seconds that a clip may take.
    """
    # Ctrl-C is for the extraction, which ends this process when it has stored what it has.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_memory()
    answers = os.fdopen(os.dup(1), "wb")
    # Libraries that print must not do so among the answers.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        requests, seconds = receive(sys.stdin.buffer)
        while True:
            sources = receive(sys.stdin.buffer)
            faulthandler.dump_traceback_later(seconds, exit=True)
            found = read_all(requests, sources)
            faulthandler.cancel_dump_traceback_later()
            send(answers, found)


def read_all(requests: Mapping[str, Request], sources: Sources) -> Found:
    """What the requests find in the sources of a clip, each by its modality."""
    found: Found = {}
    for modality, source in sources.items():
        try:
            found[modality] = requests[modality].read(source)
        except MediaError as error:
            found[modality] = str(error)
        except MemoryError:
            found[modality] = "needs more memory than a decoder may take"
        # Whatever it is, it is this file's, and the next one may be well.
        except Exception as error:
            reason = " ".join(str(error).split())
            found[modality] = f"cannot be read ({type(error).__name__}: {reason})"
    return found


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = _MOST_MEMORY if most == resource.RLIM_INFINITY else min(most, _MOST_MEMORY)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
