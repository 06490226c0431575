"""Writes docs/gpu.md from benchmarks/results.

    python -m benchmarks.gpu.report [DIR]

takes the run that left DIR among the results first, from its journal alone if need be.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.journal import Journal
from benchmarks.gpu.record import JOURNAL, record_of, save

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "gpu.md"

# The ops with GPU kernels: their tests in tests/gpu/test_parity.py, and what figures call them.
TESTS = {
    "focal_loss": "test_focal_loss",
    "multilabel_loss": "test_multilabel_loss",
    "grouped_focal_loss": "test_grouped_focal_loss",
    "task_grad_norms": "test_task_grads",
    "task_grad_gramian": "test_task_grads",
    "stacked_norms": "test_stacked_norms",
    "fusion_edge_weights": "test_graph_fusion",
    "graph_fusion": "test_graph_fusion",
    "task_gru_layer": "test_task_gru",
    "least_norm_weights": "test_least_norm",
    "pcgrad_weights": "test_gradient_surgery",
    "gradvac_weights": "test_gradient_surgery",
}
FIGURES = {
    "focal_loss": "focal loss",
    "task_grad_norms": "task grad norms",
    "task_grad_gramian": "task grad gramian",
    "fusion_edge_weights": "edge weights",
    "graph_fusion": "graph fusion",
    "task_gru_layer": "recurrence of a GRU layer",
}
NO_KERNEL = {(op, "Triton") for op in ("task_gru_layer", "pcgrad_weights", "gradvac_weights")}
BACKENDS = {"CUDA": ("cuda", "native"), "Triton": ("triton", "triton")}

INTRODUCTION = """\
# GPU kernels

<!-- Written by `python -m benchmarks.gpu.report` from benchmarks/results; not edited by hand. -->

The ops listed below have two GPU backends: CUDA C++ (`csrc/cuda`, the extension
`fastmtl._cuda`) and Triton (`fastmtl/backends/triton`); the layer of GRUs and the weights of
PCGrad and GradVac have CUDA kernels alone.
A CUDA tensor is served by the CUDA extension where it is built and runs on the device, else by
Triton, else by plain PyTorch; `fastmtl info` says which and why, and
`fastmtl.use_backend("native" | "triton" | "reference")` forces one. For graphs of more than 512
edges or 64 vertices, and for more than 768 groups of classes, the CUDA backend uses plain PyTorch;
so do the weights of least norm, of PCGrad and of GradVac for more than 1024 tasks, and the first in
Triton for more than 128. Quadratic programs over v >= 0 are in plain PyTorch on a GPU.

## Building

[Wheels for Linux](packages.md#cuda) have the CUDA extension; `fastmtl info` says what compiled it,
and for which GPUs. `pip install .` builds it where it finds both nvcc and an NVIDIA driver.
`FASTMTL_CUDA=on` builds it with nvcc alone, on a machine without a GPU, and fails where it cannot;
`FASTMTL_CUDA=off` does not try. nvcc is looked for on the path and in `$CUDA_HOME`, `$CUDA_PATH`
and `/usr/local/cuda`. The extension has machine code for compute capabilities 7.5 (T4) while the
compiler still knows it, 8.0 and 9.0, and with CUDA 12.8 or newer 10.0 and 12.0, and PTX of the
newest for what comes after. `CUDA_ARCHS` takes another list (`"90"`, `"80;90"`, `"native"`). It
needs neither torch nor a GPU to be built, and links the CUDA runtime statically. Triton comes with
PyTorch's CUDA builds and compiles its kernels on first use; nothing is tuned at run time.

## What holds

- Sums are added in a fixed order: the same inputs give the same bits in every run on one device.
- No call waits for the device, and all of them can be captured in a CUDA graph.
- Accesses are 16 bytes wide where addresses and strides allow, and one element wide elsewhere;
  offsets have 64 bits.
- The focal loss takes one launch forward while a block can do it, two for larger tensors, and one
  backward.
- Where accesses are wide and targets are bytes or of the dtype of the logits, a thread of the focal
  loss asks for logits, targets and mask of two tiles before it waits for any of them, and a launch
  has as many blocks as the device holds at once. For halves, with gamma 0, 1 or 2, the sigmoid and
  its logarithm are as exact as halves can tell (2^-13). By the machine code for 9.0 the loss in
  bfloat16 with gamma 2 has up to six loads in flight and 41 instructions an element, in each
  direction: at 85% of 3 TB/s and 1.7 GHz those are three of five issue slots of an H100 backward,
  and nine of ten forward, where fewer bytes go with them. No device has run it yet.
- Edge weights and graph fusion copy the vertices of a sample into shared memory as they are,
  asynchronously (`cp.async`, from 8.0 on), while a warp or a block works on the sample before: what
  is under way takes no registers. From there on lanes side by side read and write 16 bytes side by
  side (8 of halves), so that no two of them want one bank at a time. By the compiler's count for
  9.0 the backward pass takes 72 registers in float32 and 80 in halves, the forward pass 96: they
  leave room for 28, 24 and 20 warps on a multiprocessor. For 12 vertices of 1024 features in
  float32 a block keeps 99 KB, so that two are on a multiprocessor with 96 KB under way, several
  times what 3 TB/s need; the exponentials and products of such a sample take about as long as its
  bytes.
  [Small samples](#edge-weights-of-small-samples-by-count) take longer than their bytes. No device
  has run it yet.
- Norms and Gramians of halves take products of halves on the tensor cores, with sums and results in
  float32, for x x^T and for gradients; what is multiplied by x x^T is in float32. No device has run
  them yet.
- The layer of GRUs takes one launch for all tasks, directions and time steps forward, and two
  backward, beside the matrix products over all time steps, while a block can keep the recurrent
  weights of one task and direction: up to h = 192 in float32 on a device with 227 KB of shared
  memory to a block (Hopper), up to h = 144 with 99 KB. Beyond, every time step is a batched product
  and a launch. Sequence starts and lengths are kernel parameters, copied by no one; in a CUDA graph
  they are constants.

## Edge weights of small samples, by count

At 3 TB/s and 1.7 GHz each of an H100's 132 multiprocessors is handed 13.4 bytes a cycle, in which
it issues 4 instructions: 0.3 instructions a byte, or 230 for a sample of 3 vertices of 64 features
in float32. By the machine code for 9.0 a warp issues about 1,000 for such a sample: 70 for the
largest feature of each vertex and 70 for its exponentials, 240 for a tile of 4 x 4 dot products,
300 for the edges, the rest for copies, addresses and statistics. Up to 128 features a lane has one
access or none, and the number stays; 6 vertices, which make three tiles, take about 2,000, and have
twice the bytes. So the share of bandwidth depends on the features, and this is the most that the
instructions leave of it, forward:

| features | 32 | 64 | 128 | 256 | 512 |
| --- | ---: | ---: | ---: | ---: | ---: |
| float32 | 11% | 22% | 45% | 70% | 97% |
| bfloat16, float16 | 6% | 11% | 22% | 35% | 48% |

Memory is not what is short: 20 warps with a sample each have 15 KB under way for 64 features, as
much as 3 TB/s need at 0.65 us. Teams of 8 lanes that keep a sample in registers, four to a warp,
would take about 160 instructions for a sample of 3 x 64, exponentials and edges most of them: all
of the bandwidth in float32, 70% of it in halves. They are not written. At 1,000 instructions a
sample takes the device 1.1 ns, so that up to 2,000 samples take no longer than a launch, and beyond
that the layers that make the vertices move several times their bytes.

## The recurrence of the GRUs, by count

For each (task, direction) a time step multiplies 3 h^2 weights by the state of every sequence.
`csrc/cuda/task_gru.cu` gives a block up to four sequences of one (task, direction) for all steps;
for the paper's layer (B 20, L 40, h 128, T 7, two directions, float32) that is 98 blocks of three.

- Of a block's 192 KB of weights 144 KB lie in registers and 48 KB in shared memory forward, 160 KB
  and 32 KB backward. They are read from memory once, 19 MB for all blocks.
- A step's 147,456 multiply-adds of a block alone would take 1152 cycles at 128 a cycle: 576
  instructions in each of eight warps, two to a scheduler. The machine code for 9.0 has about 1,280
  in a step forward and 1,360 backward: 130 to exchange sums between lanes, 30 to read states and
  weights from shared memory, and about 550 for the gates of two sequences, half of them addresses,
  accesses and conditions. A scheduler issues them in turn: about 2,600 and 2,700 cycles a step, and
  for 40 steps at 1.7 GHz 61 and 64 us, to which the latency of each step's exchanges, gates and
  barrier comes, some hundred cycles that only a measurement tells. Both kernels take 255 registers
  a thread and spill 40 bytes.
- The tensor cores are not used. A tile of up to 8 sequences takes 24 x 16 products `mma.m16n8k8` a
  step in TF32 and 24 x 8 `m16n8k16` of halves, each in about 6 cycles of one of four units: 580
  and 290 cycles in place of 1,500 for multiply-adds and exchanges. The gates' 1,100 stay: at B 20
  a step would take about 0.65 (TF32) and 0.55 (halves) of today's cycles, and at B 256, where
  tiles of 8 halve the waves of blocks, 0.45 and 0.4. As exact as float32 are three products in
  TF32, 1,730 cycles, of weights that are taken apart at every step (twice their bytes fit
  nowhere), 770 more: slower at B 20, and 0.8 at B 256.
- Memory: forward 46 MB (gates read and written, states and W_hn h written), backward 69 MB (with
  both gradients of the gates written); at 3 TB/s 15 and 23 us, during the steps.
- The products with the inputs, 17.6 GFLOP forward in the first layer (D 2048), take 350 us at
  50 TFLOP/s: the recurrence is the smaller part.
- Those products are torch's and follow its setting of their precision (IEEE float32, unless
  `torch.set_float32_matmul_precision` or `torch.backends.cuda.matmul` says otherwise); the products
  of a recurrence in one launch are IEEE float32 always. cuDNN's GRU takes TF32 by default, by a
  setting of its own (`torch.backends.cudnn.allow_tf32`), so that the two are compared in one
  precision at a time.
  In IEEE float32 at B 256, where one matrix product is nearly all there is to either, cuDNN's
  kernels are expected to be the faster ones.

These are predictions, not measurements.

## How the kernels are tested

Without a GPU, in every run of the tests: the CUDA kernels are compiled as C++ and run on the host,
block by block, every thread on its own stack, in orders that change from barrier to barrier, with
shared memory that starts as NaN, checks of alignment, of the stream and of the device of a launch,
and the special-function instructions that device code uses for `exp` and `1/x` wrong by as much as
they may be (`tests/cuda/host_shim`), on tensors of which they may touch no byte more; the Triton
kernels run in Triton's interpreter (`TRITON_INTERPRET=1 pytest tests/gpu`) and are compiled to
machine code for 8.0 and 9.0, as the launches themselves would be. What depends on a real device is
only seen on one.

`make gpu` on a GPU machine builds, calls every kernel once, runs `tests/gpu` on the device (parity
with float64, gradcheck, CUDA graphs, streams, launches, more than 2^31 elements, compute-sanitizer
where it is installed), measures, and writes this page anew. Its stages are `build`, `smoke`,
`parity-cuda`, `figures`, `device`, `parity-triton` and `sanitizer`; what 540 seconds leave undone
(another `--deadline`: `make gpu GPU="--deadline 1200"`), `make gpu GPU=--resume` takes up. A test
or figure that crashes its process, hangs, or loses the CUDA context costs itself alone; every
outcome is on disk as soon as it is known, in `build/gpu/journal.jsonl`, and the report there is of
whatever there is, however the run ended. `make gpu GPU=--rehearse` goes through it without a GPU.

## Which kernels have run on a GPU

"""


def records() -> list[dict[str, Any]]:
    """All results, oldest first."""
    files = sorted(RESULTS.glob("gpu-*.json"))
    return sorted(
        (json.loads(path.read_text()) for path in files), key=lambda r: str(r.get("time"))
    )


def page(results: list[dict[str, Any]]) -> str:
    """The text of docs/gpu.md."""
    text = INTRODUCTION
    if not results:
        text += "None of them: nothing here was ever run on a GPU, and no speed was measured.\n\n"
    text += "| op | kernels | run on a GPU |\n| --- | --- | --- |\n"
    for op in TESTS:
        for kernels in BACKENDS:
            ran = "no kernel" if (op, kernels) in NO_KERNEL else _runs(op, kernels, results)
            text += f"| `{op}` | {kernels} | {ran} |\n"
    for record in reversed(results):
        text += _section(record)
    return text


def _runs(op: str, kernels: str, results: list[dict[str, Any]]) -> str:
    """Where an op's kernels ran: the tests that passed, and whether they were timed."""
    fixture, backend = BACKENDS[kernels]
    runs = []
    for record in results:
        tests = record.get("tests", {})
        start = f"test_parity::{TESTS[op]}[{fixture}"
        passed, failed = (
            sum(name.startswith(start) for name in tests.get(kind, []))
            for kind in ("passed", "failed")
        )
        timed = any(
            figure["what"].startswith(FIGURES.get(op, "nothing"))
            and figure["peer"] == f"fastmtl {backend}"
            for figure in record.get("figures", [])
        )
        if passed or failed or timed:
            outcome = f"{passed} parity tests passed" + (f", {failed} failed" if failed else "")
            runs.append(f"{_where(record)}: {outcome}" + (", timed" if timed else ""))
    return "; ".join(runs) or "never"


def _where(record: dict[str, Any]) -> str:
    device, commit = record.get("device", "Unknown device"), record.get("commit", "unknown")
    return f"{device}, commit {commit}"


def _section(record: dict[str, Any]) -> str:
    """The figures of one run."""
    limits = record.get("limits", {})
    text = f"\n## {_where(record)}\n\n"
    text += f"{record.get('time')}, torch {record.get('torch')}, CUDA {record.get('cuda')}, "
    text += f"{record.get('driver')}."
    if record.get("changed"):
        text += " The working tree had uncommitted changes."
    if "build" in record:
        text += f" Building took {record['build']['seconds']} s."
    if limits:
        text += (
            f" A copy moved {limits['copy_bytes_per_second'] / 1e12:.2f} TB/s (read and written), "
            f"a float32 matrix product ran at {limits['float32_flops'] / 1e12:.1f} TFLOP/s"
        )
        tf32 = limits.get("tf32_flops")
        text += f", in TF32 at {tf32 / 1e12:.1f}." if tf32 else "."
    if counts := record.get("tests", {}).get("counts"):
        text += f" Tests: {counts['passed']} passed, {counts['failed']} failed, "
        text += f"{counts['skipped']} skipped."
    for backend, count in record.get("launches_at_20_7", {}).items():
        text += f" Focal loss at (20, 7), {backend}: {count} launches forward and backward."
    text += "\n"
    if lines := [f"- {error}" for error in record.get("errors", [])]:
        text += "\nWhat failed:\n\n" + "\n".join(lines) + "\n"
    figures = record.get("figures", [])
    for what in dict.fromkeys(figure["what"] for figure in figures):
        text += f"\n### {what[0].upper()}{what[1:]}\n\n"
        rows = [figure for figure in figures if figure["what"] == what]
        counted = any("launches" in row for row in rows)
        text += "| size | dtype | by | time, us | of the limit | times fastmtl |"
        text += " launches |\n" if counted else "\n"
        text += "| --- | --- | --- | ---: | ---: | ---: |" + (" ---: |\n" if counted else "\n")
        for row in rows:
            text += _row(row, rows, counted)
    return text


def _row(row: dict[str, Any], rows: list[dict[str, Any]], counted: bool) -> str:
    best = [
        other["seconds"]
        for other in rows
        if other["size"] == row["size"]
        and other["dtype"] == row["dtype"]
        and other["peer"].startswith("fastmtl")
        and other["seconds"]
    ]
    cells = [row["size"], row["dtype"], row["peer"]]
    if row["seconds"] is None:
        cells += ["out of memory", "", ""]
    else:
        share = row.get("share_of_limit")
        cells.append(f"{row['seconds'] * 1e6:.1f}")
        cells.append("" if share is None else f"{share:.0%}")
        cells.append(f"{row['seconds'] / best[0]:.2f}" if best else "")
    if counted:
        cells.append(str(row.get("launches", "")))
    return "| " + " | ".join(cells) + " |\n"


def summary(record: dict[str, Any]) -> str:
    """What a run did and did not reach, then its section of the page."""
    text = "| part | outcome | seconds | passed | failed | crashed | skipped | unfinished |\n"
    text += "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    for part in record["parts"]:
        cells = [part["name"], part["outcome"], part.get("seconds", "")]
        kinds = ("passed", "failed", "crashed", "skipped", "unfinished")
        cells += [part["items"].get(kind, "") for kind in kinds]
        text += "| " + " | ".join(map(str, cells)) + " |\n"
    text += _section(record)
    for part in record["parts"]:
        if output := part.get("output"):
            text += f"\n### The last of {part['name']}\n\n```\n{output.strip()}\n```\n"
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.report")
    parser.add_argument("run", type=Path, nargs="?", help="the directory of a run")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    if options.run is not None:
        record = record_of(Journal(options.run / JOURNAL))
        path = save(options.run, record, summary(record))
        if path.name.startswith("gpu-"):
            RESULTS.mkdir(exist_ok=True)
            shutil.copyfile(path, RESULTS / path.name)
    text = page(records())
    if options.check:
        return 0 if PAGE.exists() and PAGE.read_text() == text else 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
