"""Writing a trained model to a file of another format."""

from __future__ import annotations

import copy
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

import fastmtl
from fastmtl.export.deployed import Deployed
from fastmtl.export.lowering import decompositions
from fastmtl.training import Predictor
from fastmtl.training.checkpoint import take_prefix, with_prefix, write_atomic
from fastmtl.training.options import check_choice

# What the file's probabilities may differ by from the model's.
TOLERANCE = 1e-5
_OPSET = 18


def export(
    predictor: Predictor,
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    missing: bool = False,
    steps: int | None = None,
) -> dict[str, Any]:
    """Write a trained model to a file, and return what the file says.

    An ONNX file or a program runs without fastmtl. It takes features as they are in data, one
    tensor a modality, and where the model reads sequences their `lengths` (B,), int64, or the
    `lengths_<modality>` of each where the training data had these; batch and number of steps are
    free. It gives the probabilities (B, T), of a multi-class task those of each.
    Standardisation is inside; the names of labels and of classes, the decision threshold, the
    inputs and the versions are in its metadata, one JSON value each in ONNX and the file
    `fastmtl.json` in a .pt2.

    A safetensors file has the weights as `model.NAME`, mean and scale of each modality as
    `standardizer.NAME.mean` and `.scale` where the run standardised, and in its metadata the same,
    with the model's class and its constructor's arguments.

    Before a file is written its probabilities are compared with the model's, for ONNX where
    onnxruntime is installed.

    Args:
        predictor: the run.
        path: the file.
        format: "onnx" (opset 18; needs onnxscript), "pt2" (a `torch.export.ExportedProgram` of
            torch's own operators) or "safetensors"; by default the suffix of the path.
        missing: whether the file takes samples that lack some of several modalities, whose rows are
            NaN or have the length 0.
        steps: the number of steps that every sequence has, shorter ones being padded, in a .pt2
            whose recurrence is written out, as AOTInductor takes it; None for any.

    Raises:
        ValueError: for another format, for `missing` with a single modality, and for `steps`
            without a sequence or with a format that needs none.
        ImportError: for ONNX without onnxscript.
        RuntimeError: if the file's probabilities are not the model's.
        OSError: if the file cannot be written.

    Examples:
        >>> export(Predictor.load("runs/disaster"), "disaster.onnx")["inputs"]  # doctest: +SKIP
        ['x', 'lengths']
    """
    kind = format_of(path, format)
    if missing:
        check_missing(kind, len(predictor.description["features"]))
    if steps is not None:
        check_steps(kind, len(predictor.description["sequences"]))
    deployed = Deployed(predictor, missing=missing, steps=steps)
    threshold = predictor.threshold
    facts: dict[str, Any] = {
        "fastmtl": fastmtl.__version__,
        "torch": torch.__version__,
        "title": predictor.title,
        "inputs": deployed.inputs(),
        "features": deployed.sizes,
        "label_names": predictor.label_names,
        # A list where every label has its own.
        "threshold": threshold.tolist() if isinstance(threshold, Tensor) else threshold,
        "missing": missing,
        "steps": steps,
    }
    if predictor.tasks.class_names:
        facts |= {"class_names": predictor.tasks.class_names, "columns": predictor.tasks.columns()}
    with _quiet():
        content, run = FORMATS[kind](deployed, facts)
    if run is not None:
        _check(deployed, run)
    write_atomic(path, content)
    return facts


def format_of(path: str | os.PathLike[str], format: str | None = None) -> str:
    """The format that is asked for, by name or by the path's suffix; ValueError for another, and
    ImportError where what writes it is not installed."""
    kind = Path(path).suffix.lstrip(".").lower() if format is None else format
    check_choice("format", kind, FORMATS)
    if kind == "onnx" and not find_spec("onnxscript"):
        raise ImportError(
            'format: onnx needs onnxscript; pip install "fastmtl-torch[onnx]", or write a .pt2'
        )
    return kind


def check_missing(kind: str, modalities: int) -> None:
    """Raise ValueError where a file cannot say that modalities may be missing."""
    if modalities < 2:
        raise ValueError("missing: expected a run of several modalities, got one of a single one")
    if kind == "safetensors":
        raise ValueError(
            "missing: expected with onnx or pt2, got safetensors, which is weights alone"
        )


def check_steps(kind: str, sequences: int) -> None:
    """Raise ValueError where a number of steps cannot be fixed."""
    if kind != "pt2":
        raise ValueError(f"steps: expected with pt2, got it with {kind}, which takes any number")
    if not sequences:
        raise ValueError("steps: expected a model that reads sequences, got one of none")


Run = Callable[..., Tensor]


def _onnx(deployed: Deployed, facts: dict[str, Any]) -> tuple[bytes, Run | None]:
    from fastmtl.export.onnx_ops import task_gru_layer

    gru = torch.ops.fastmtl.task_gru_layer.default
    program = deployed.program().run_decompositions(decompositions(besides="task_gru_layer"))
    written: Any = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=_OPSET,
        custom_translation_table={gru: task_gru_layer},
        input_names=deployed.inputs(),
        output_names=["probabilities"],
        verbose=False,
    )
    written.model.metadata_props.update({key: json.dumps(value) for key, value in facts.items()})
    content: bytes = written.model_proto.SerializeToString()
    return content, _in_onnxruntime(content, deployed) if find_spec("onnxruntime") else None


def _in_onnxruntime(content: bytes, deployed: Deployed) -> Run:
    from onnxruntime import InferenceSession

    session = InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> Tensor:
        arrays = {k: v.numpy() for k, v in zip(deployed.inputs(), inputs, strict=True)}
        return torch.from_numpy(session.run(None, arrays)[0])

    return run


def _pt2(deployed: Deployed, facts: dict[str, Any]) -> tuple[bytes, Run | None]:
    formulas = decompositions(unrolled=deployed.steps is not None)
    program = deployed.program().run_decompositions(formulas)
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"fastmtl.json": json.dumps(facts)})
    return file.getvalue(), program.module()


def _safetensors(deployed: Deployed, facts: dict[str, Any]) -> tuple[bytes, Run | None]:
    model: Any = deployed.model
    facts["model"] = type(model).__name__
    facts["arguments"] = model.config() if hasattr(model, "config") else {}
    if deployed.temperatures is not None:
        facts["temperatures"] = deployed.temperatures.tolist()
    tensors = with_prefix("model", model.state_dict())
    if deployed.standardizer is not None:
        tensors |= with_prefix("standardizer", deployed.standardizer.state_dict())
    # Names of one storage would be refused.
    content = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
        {key: json.dumps(value) for key, value in facts.items()},
    )
    return content, _from_tensors(safetensors.torch.load(content), deployed)


def _from_tensors(tensors: dict[str, Tensor], deployed: Deployed) -> Run:
    """The model as a reader of the file has it."""
    model = copy.deepcopy(deployed.model)
    model.load_state_dict(take_prefix("model", tensors))
    moments = take_prefix("standardizer", tensors)

    def run(*inputs: Tensor) -> Tensor:
        x, lengths = deployed.arguments(*inputs)
        for name in x if moments else ():
            x[name] = (x[name] - moments[f"{name}.mean"]) / moments[f"{name}.scale"]
        logits: Tensor = model(x if deployed.multimodal else x["x"], lengths)
        return deployed.tasks.probabilities(logits, deployed.temperatures)

    return run


FORMATS: dict[str, Callable[[Deployed, dict[str, Any]], tuple[bytes, Run | None]]] = {
    "onnx": _onnx,
    "pt2": _pt2,
    "safetensors": _safetensors,
}


def _check(deployed: Deployed, run: Run) -> None:
    """Raise RuntimeError unless `run` gives the model's probabilities, for another batch too."""
    with torch.inference_mode():
        for batch, steps in ((2, 4), (6, 9)):
            inputs = deployed.example(batch, steps)
            error = float((run(*inputs) - deployed(*inputs)).abs().max())
            if not error <= TOLERANCE:
                raise RuntimeError(
                    f"export: expected the model's probabilities to {TOLERANCE}, got {error:.2g} "
                    "off; nothing was written"
                )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporters say of themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
