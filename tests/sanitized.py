"""The native kernels that sanitizers watch, in place of the installed ones: a pytest plugin, for
`make sanitize`, that has to come before anything imports fastmtl."""

from __future__ import annotations

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

(_path,) = Path(os.environ["FASTMTL_SANITIZED"]).glob("_cpu.*.so")
_spec = spec_from_file_location("fastmtl._cpu", _path)
assert _spec is not None
assert _spec.loader is not None
sys.modules["fastmtl._cpu"] = module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["fastmtl._cpu"])
