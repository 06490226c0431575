from __future__ import annotations

import subprocess
import sys


def test_the_compiler_is_not_loaded() -> None:
    """torch loads it where something is compiled, in seconds."""
    check = "import sys, fastmtl; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
