"""The stages of a run on a GPU: what is done, in which order, and for how long at most.

What a run is for comes first, as far as it can: the build, a first call of every kernel, the CUDA
kernels' numbers, the figures; then what can wait for another call with --resume.
"""

from __future__ import annotations

import os
import sys

from benchmarks.gpu.runner import Part, Stage

# Which tests of tests/gpu/test_parity.py are of which op, by pytest's -k; each of the names that no
# earlier one takes. An illegal access ends the process of one op alone.
OPS = {
    "grouped_focal_loss": "grouped",
    "multilabel_loss": "multilabel",
    "focal_loss": "focal or extreme or not_a_number or aligned",
    "task_gru": "gru",
    "graph_fusion": "fusion or edge",
    "least_norm": "least_norm",
    "gradient_surgery": "surgery",
    "nonnegative_qp": "nonnegative",
    "norms": "norms or grads or gramian",
}
TOOLS = ("memcheck", "racecheck", "synccheck")
_PYTEST = [
    *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"),
    *("-p", "benchmarks.gpu.outcomes"),
]


def stages(rehearsal: bool = False) -> list[Stage]:
    """All of them; a rehearsal is for a machine without a GPU."""
    interpreted = {"TRITON_INTERPRET": "1"} if rehearsal else {}
    triton = _parity("triton", 240, interpreted)
    return [
        Stage("build", [_build_for_the_host() if rehearsal else _build()], 600),
        Stage("smoke", [_module("smoke", "benchmarks.gpu.smoke", 90, always=True)], 90),
        Stage("parity-cuda", _parity("cuda", 150, {}), 180, side_by_side=4),
        Stage("figures", [_module("figures", "benchmarks.gpu.figures", 300)], 300),
        Stage("device", [_tests("device", "tests/gpu/test_device.py", 150)], 150),
        Stage("parity-triton", triton, 300, side_by_side=4),
        Stage("sanitizer", [_sanitizer(tool) for tool in TOOLS], 360),
    ]


def _build() -> Part:
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps"]
    environment = {"CUDA_ARCHS": os.environ.get("CUDA_ARCHS", "native"), "FASTMTL_CUDA": "on"}
    command += ["-e", "."]
    return Part("build", command, 240, items=False, always=True, environment=environment)


def _build_for_the_host() -> Part:
    command = [sys.executable, "-c", "from tests.cuda import host; host.kernels()"]
    return Part("build", command, 600, items=False, always=True)


def _module(name: str, module: str, seconds: float, always: bool = False) -> Part:
    return Part(name, [sys.executable, "-m", module], seconds, always=always)


def _tests(name: str, file: str, seconds: float, *options: str, **environment: str) -> Part:
    return Part(name, [*_PYTEST, file, *options], seconds, environment=environment)


def _parity(kernels: str, seconds: float, environment: dict[str, str]) -> list[Part]:
    parts, earlier = [], "nothing"
    for op, names in (OPS | {"others": "test"}).items():
        chosen = f"{kernels} and ({names}) and not ({earlier})"
        earlier = f"{earlier} or {names}"
        name = f"parity-{kernels}-{op}"
        file = "tests/gpu/test_parity.py"
        parts.append(_tests(name, file, seconds, "-k", chosen, **environment))
    return parts


def _sanitizer(tool: str) -> Part:
    name, file = f"sanitizer-{tool}", "tests/gpu/test_sanitizer.py"
    return _tests(name, file, 120, "-k", tool, FASTMTL_GPU_TEST_SECONDS="110")
