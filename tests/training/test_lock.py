from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from fastmtl.training import RunError
from fastmtl.training.lock import locked

HOLDING = """
import sys, time
from fastmtl.training.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_is_gone_with_its_block(tmp_path):
    for _ in range(2):
        with locked(tmp_path) as lock:
            lock.check()
            assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
        assert not list(tmp_path.iterdir())


def test_another_process_is_named_and_a_killed_one_holds_nothing(tmp_path):
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(RunError, match=rf": in use by process {process.pid} on "), locked(tmp_path):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_taken_from_another_directory_is_noticed(tmp_path):
    with locked(tmp_path) as lock:
        (tmp_path / ".lock").unlink()
        with pytest.raises(RunError, match="was removed or replaced"):
            lock.check()
        with locked(tmp_path) as other:
            other.check()
            with pytest.raises(RunError, match="was removed or replaced"):
                lock.check()


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(UserWarning, match="cannot be locked here"), locked(tmp_path) as lock:
        lock.check()
    assert not list(tmp_path.iterdir())
