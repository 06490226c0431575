from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from fastmtl import data as sets
from fastmtl._toolchain import cxx_compiler
from fastmtl.data import Standardizer
from fastmtl.export import Deployed, export
from fastmtl.export import write as writing
from fastmtl.training import Predictor, TrainConfig, arrange, build_model
from fastmtl.training.inputs import describe
from fastmtl.training.recipes import FUSION_MODELS, MODELS
from tests.docs.pages import blocks

SEQUENCES = "synthetic:disaster?clips=40&frames=4&features=6&min_frames=2"
MODALITIES = "synthetic:disaster-multimodal?clips=40&frames=3&text=4&audio=5&video=6"
CRISIS = "synthetic:crisis?posts=100&text=5&image=4"
MIXED = "binary tasks and multi-class tasks"
FLAT = "synthetic:disaster?clips=40&frames=1&features=6"


def predictor_of(model: str, data: str = "", **options: Any) -> tuple[Predictor, Any]:
    """An untrained run, and its data."""
    spec = data or (MODALITIES if model in FUSION_MODELS else SEQUENCES)
    samples = arrange(sets.load(spec) if data != MIXED else mixed(), model)
    spec = "" if data == MIXED else spec
    sizes = {"hidden_size": 4, "attention_size": 3} if model != "cmlc" else {"hidden_size": 4}
    config = TrainConfig(model=model, data=spec, device="cpu", **(sizes | options))
    torch.manual_seed(0)
    network = build_model(config, samples)
    standardizer = Standardizer().fit(samples) if config.standardize else None
    device = torch.device("cpu")
    return Predictor(network, config, describe(samples), standardizer, device), samples


def own_lengths(path: Path) -> str:
    """Two sequences that differ in their steps and lengths, and a vector."""
    rng = np.random.default_rng(0)
    np.savez(
        path / "set.npz",
        x_audio=rng.standard_normal((30, 6, 3)),
        x_text=rng.standard_normal((30, 4)),
        x_video=rng.standard_normal((30, 4, 5)),
        lengths_audio=rng.integers(1, 7, 30),
        lengths_video=rng.integers(1, 5, 30),
        y=rng.integers(0, 2, (30, 3)),
    )
    return str(path / "set.npz")


def mixed() -> sets.MultiTaskData:
    """The sequences, of whose labels some are classes."""
    data = sets.load(SEQUENCES)
    classes = {"damage": data.y[:, 5] + data.y[:, 6], "kind": data.y[:, 2]}
    named = {"kind": ["no", "yes"]}
    return sets.MultiTaskData.from_arrays(
        data.x, data.y[:, :3], lengths=data.lengths, classes=classes, class_names=named
    )


def arguments(deployed: Deployed, samples: Any) -> tuple[Tensor, ...]:
    found = [samples.features()[name] for name in deployed.names]
    if deployed.own_lengths:
        found += [samples.lengths_of(name) for name in deployed.sequences]
    elif deployed.sequences:
        steps = next(iter(samples.features()[name] for name in deployed.sequences)).shape[1]
        lengths = samples.lengths
        found.append(torch.full((len(samples),), steps) if lengths is None else lengths)
    return tuple(found)


QUICK_LACKS = [("hgfn", "onnx", True), ("hgfn", "pt2", False)]
SETS = {"flat": FLAT, "crisis": CRISIS, "mixed": MIXED}


@pytest.mark.parametrize(
    "model",
    [
        *MODELS,
        "hgfn without standardisation",
        "mtmlan flat",
        "hgfn crisis",
        "mtmlan mixed",
        "cmlc mixed",
    ],
)
def test_what_is_shipped_gives_what_the_run_predicts(model: str) -> None:
    name, _, variant = model.partition(" ")
    predictor, samples = predictor_of(
        name, SETS.get(variant, ""), standardize=not variant.startswith("without")
    )
    deployed = Deployed(predictor)
    probabilities = deployed(*arguments(deployed, samples))
    torch.testing.assert_close(probabilities.double(), predictor.probabilities(samples))


def slow(*names: str) -> list[Any]:
    """What takes an exporter long, and has its parts among the others."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("suffix", ["pt2", *slow("onnx")])
def test_every_sequence_has_lengths_of_its_own(suffix: str, tmp_path: Path) -> None:
    predictor, samples = predictor_of("hgfn", own_lengths(tmp_path))
    deployed = Deployed(predictor)
    inputs, wanted = arguments(deployed, samples), predictor.probabilities(samples)
    torch.testing.assert_close(deployed(*inputs).double(), wanted)
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
        runtime = pytest.importorskip("onnxruntime")
    facts = export(predictor, tmp_path / f"model.{suffix}")
    assert facts["inputs"] == ["audio", "text", "video", "lengths_audio", "lengths_video"]
    if suffix == "pt2":
        found = torch.export.load(tmp_path / "model.pt2").module()(*inputs)
    else:
        session = runtime.InferenceSession(tmp_path / "model.onnx")
        named = {k: v.numpy() for k, v in zip(facts["inputs"], inputs, strict=True)}
        found = torch.from_numpy(session.run(None, named)[0])
    torch.testing.assert_close(found.double(), wanted)


@pytest.mark.parametrize(
    ("model", "suffix", "own"),
    [
        pytest.param(*case, marks=[] if case in QUICK_LACKS else [pytest.mark.slow])
        for case in product(("hgfn", "cfc", "gfn", "matf"), ("pt2", "onnx"), (True, False))
    ],
)
def test_samples_that_lack_modalities(model: str, suffix: str, own: bool, tmp_path: Path) -> None:
    predictor, samples = predictor_of(model, own_lengths(tmp_path) if own else "")
    text = samples.x["text"].clone()
    text[2:5] = torch.nan
    samples = replace(samples, x={**samples.x, "text": text})
    if own:
        lengths = {**samples.lengths, "video": samples.lengths["video"].clone()}
        lengths["video"][7:9] = 0
        samples = replace(samples, lengths=lengths)
    deployed = Deployed(predictor, missing=True)
    inputs, wanted = arguments(deployed, samples), predictor.probabilities(samples)
    torch.testing.assert_close(deployed(*inputs).double(), wanted)
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
        runtime = pytest.importorskip("onnxruntime")
    facts = export(predictor, tmp_path / f"model.{suffix}", missing=True)
    assert facts["missing"]
    if suffix == "pt2":
        found = torch.export.load(tmp_path / "model.pt2").module()(*inputs)
    else:
        session = runtime.InferenceSession(tmp_path / "model.onnx")
        named = {k: v.numpy() for k, v in zip(facts["inputs"], inputs, strict=True)}
        found = torch.from_numpy(session.run(None, named)[0])
    torch.testing.assert_close(found.double(), wanted)


def test_a_single_modality_is_not_missing() -> None:
    with pytest.raises(ValueError, match="missing: expected a model of several modalities, got"):
        Deployed(predictor_of("mtmlan")[0], missing=True)


@pytest.mark.parametrize("model", ["hgfn crisis", *slow("hgfn", "mtmlan", "mtmlan mixed")])
def test_a_program_runs_without_fastmtl(model: str, tmp_path: Path) -> None:
    name, _, variant = model.partition(" ")
    predictor, samples = predictor_of(name, SETS.get(variant, ""))
    facts = export(predictor, tmp_path / "model.pt2")
    extra = {"fastmtl.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert json.loads(extra["fastmtl.json"]) == facts
    assert facts["label_names"] == predictor.label_names
    assert facts.get("class_names", {}) == samples.class_names
    assert len(facts.get("columns", facts["label_names"])) == sum(samples.tasks.sizes)
    assert not [n for n in program.graph.nodes if "fastmtl" in str(n.target)]
    deployed = Deployed(predictor)
    inputs = arguments(deployed, samples)
    probabilities = program.module()(*inputs)
    torch.testing.assert_close(probabilities.double(), predictor.probabilities(samples))


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["program", "AOTInductor"]
)
@pytest.mark.parametrize("model", ["mtmlan", *slow("hgfn")])
def test_a_number_of_steps_is_written_out(model: str, compiled: bool, tmp_path: Path) -> None:
    if compiled and cxx_compiler() is None:
        pytest.skip("there is no C++ compiler")
    data = SEQUENCES if model == "mtmlan" else own_lengths(tmp_path)
    predictor, samples = predictor_of(model, data)
    steps = max(samples.modalities[name][0] for name in predictor.description["sequences"])
    assert export(predictor, tmp_path / "model.pt2", steps=steps)["steps"] == steps
    program = torch.export.load(tmp_path / "model.pt2")
    assert not [n for n in program.graph.nodes if "scan" in str(n.target)]
    run = program.module()
    if compiled:
        package = torch._inductor.aoti_compile_and_package(program)
        run = torch._inductor.aoti_load_package(package)
    inputs = [
        F.pad(x, (0, 0, 0, steps - x.shape[1])) if x.dim() == 3 else x
        for x in arguments(Deployed(predictor), samples)
    ]
    wanted = predictor.probabilities(samples)
    torch.testing.assert_close(run(*inputs).double(), wanted)


def test_a_number_of_steps_needs_a_recurrence(tmp_path: Path) -> None:
    for model, data, suffix, reason in (
        ("mtmlan", "", "safetensors", "steps: expected with pt2, got it with safetensors"),
        ("hgfn", CRISIS, "pt2", "steps: expected a model that reads sequences, got one of none"),
    ):
        with pytest.raises(ValueError, match=reason):
            export(predictor_of(model, data)[0], tmp_path / "file", suffix, steps=4)


@pytest.mark.parametrize(
    "model",
    [
        *("hgfn crisis", "mtmlan mixed"),
        *slow("mtmlan", "hgfn", "cmlc", "cfc", "matf", "gfn", "mtmlan-shared", "cmlc mixed"),
    ],
)
def test_onnx(model: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, _, variant = model.partition(" ")
    name, _, shared = model.partition("-")
    options = {"shared_features": 5} if shared else {}
    predictor, samples = predictor_of(name, SETS.get(variant, ""), **options)
    path = tmp_path / "model.onnx"
    facts = export(predictor, path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    assert {key: json.loads(value) for key, value in told.items()} == facts
    deployed = Deployed(predictor)
    named = dict(zip(facts["inputs"], arguments(deployed, samples), strict=True))
    (found,) = session.run(None, {key: value.numpy() for key, value in named.items()})
    wanted = predictor.probabilities(samples)
    torch.testing.assert_close(torch.from_numpy(found).double(), wanted)


@pytest.mark.parametrize("model", ["mtmlan", "cmlc"])
def test_weights_are_loaded_as_the_page_says(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, samples = predictor_of(model)
    facts = export(predictor, tmp_path / "model.safetensors")
    x, lengths = arguments(Deployed(predictor), samples)
    names: dict[str, Any] = {"x": x.numpy(), "lengths": lengths}
    monkeypatch.chdir(tmp_path)
    exec(next(b.text for b in blocks("docs/export.md") if "safe_open" in b.text), names)
    torch.testing.assert_close(names["probabilities"].double(), predictor.probabilities(samples))
    assert names["facts"] == facts


@pytest.mark.parametrize("model", ["hgfn", "hgfn without", "cfc"])
def test_weights_of_several_modalities(model: str, tmp_path: Path) -> None:
    name, _, without = model.partition(" ")
    predictor, _ = predictor_of(name, standardize=not without)
    path = tmp_path / "model.safetensors"
    assert export(predictor, path)["inputs"] == ["text", "audio", "video", "lengths"]
    with safe_open(path, "pt") as file:
        stored = set(file.keys())
    assert {f"model.{key}" for key in predictor.model.state_dict()} <= stored
    assert ("standardizer.audio.mean" in stored) is not bool(without)


@pytest.mark.parametrize("suffix", ["onnx", "safetensors", *slow("pt2")])
def test_thresholds_and_temperatures_of_each_label(suffix: str, tmp_path: Path) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxscript")
    predictor, samples = predictor_of("mtmlan", MIXED)
    tuned = predictor.tuned(predictor.tune(samples, "all"), calibrated=True)
    facts = export(tuned, tmp_path / f"model.{suffix}")
    assert facts["threshold"] == tuned.threshold.tolist()
    deployed = Deployed(tuned)
    found = deployed(*arguments(deployed, samples))
    torch.testing.assert_close(found.double(), tuned.probabilities(samples), atol=1e-6, rtol=0)


def test_weights_do_not_leave_out_modalities(tmp_path: Path) -> None:
    predictor, _ = predictor_of("hgfn")
    with pytest.raises(ValueError, match="missing: expected with onnx or pt2, got safetensors"):
        export(predictor, tmp_path / "model.safetensors", missing=True)


def test_the_predictor_stays_as_it_is() -> None:
    predictor, _ = predictor_of("mtmlan")
    Deployed(predictor)
    assert all(parameter.requires_grad for parameter in predictor.model.parameters())


def test_a_file_that_is_wrong_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, _ = predictor_of("mtmlan")

    def wrong(deployed: Deployed, facts: dict[str, Any]) -> Any:
        return b"", lambda *inputs: deployed(*inputs) + 1e-3

    monkeypatch.setitem(writing.FORMATS, "pt2", wrong)
    with pytest.raises(RuntimeError, match=r"expected the model's probabilities .*got 0\.001 off"):
        export(predictor, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_other_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, _ = predictor_of("mtmlan")
    with pytest.raises(
        ValueError, match="format: expected one of onnx, pt2, safetensors, got 'h5'"
    ):
        export(predictor, tmp_path / "model.h5")
    with pytest.raises(
        ValueError, match="format: expected one of onnx, pt2, safetensors, got 'tf'"
    ):
        export(predictor, tmp_path / "model.onnx", "tf")
    monkeypatch.setattr(writing, "find_spec", lambda name: name != "onnxscript" and find_spec(name))
    with pytest.raises(ImportError, match="onnx needs onnxscript"):
        export(predictor, tmp_path / "model.onnx")
