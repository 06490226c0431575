"""A trained model with all it needs to read new data."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastmtl.data import DataError, MultiTaskData, Standardizer
from fastmtl.data.tasks import Tasks
from fastmtl.training import directory as files
from fastmtl.training.batches import Batches
from fastmtl.training.checkpoint import RunError, load_tensors, take_prefix
from fastmtl.training.config import TrainConfig, resolve_device
from fastmtl.training.factory import rebuild_model
from fastmtl.training.inputs import check_fits, with_classes_of
from fastmtl.training.metrics import decide
from fastmtl.training.signals import StopRequest
from fastmtl.training.state import expect
from fastmtl.training.task_metrics import task_metrics
from fastmtl.training.thresholds import HALF

ClassNames = Mapping[str, Sequence[str]]
_NONE: ClassNames = {}


class Predictor:
    """The model of a finished or interrupted run: its best weights and the data's standardisation.

    Made by `Predictor.load(directory)`. `data` is always in the model's layout (`arrange`), on the
    original scale.

    Args:
        model: with its best weights.
        config: the options of the run; those that did not make it have their defaults.
        description: what data must share with the training data (`describe`).
        standardizer: fitted on the training split, None for a run without.
        device: where it computes.
        threshold: of its decisions.

    Examples:
        >>> predictor = Predictor.load("runs/disaster")  # doctest: +SKIP
        >>> data = load_data(predictor.config, "new.npz", for_training=False)  # doctest: +SKIP
        >>> predictor.probabilities(data)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        description: dict[str, Any],
        standardizer: Standardizer | None,
        device: torch.device,
        threshold: float = HALF,
    ) -> None:
        self.model = model.to(device)
        self.config = config
        self.description = description
        self.standardizer = standardizer
        self.device = device
        self.threshold = threshold

    @classmethod
    def load(
        cls,
        directory: str | os.PathLike[str],
        device: str = "auto",
        *,
        model: nn.Module | None = None,
    ) -> Predictor:
        """Read config.json and model.safetensors of a run.

        Args:
            directory: what `Trainer` got as `out_dir`.
            device: "auto", "cpu", "cuda" or "cuda:N".
            model: an instance of your own model's class, for a run that trained it; it receives
                the weights.

        Raises:
            RunError: naming the file that is absent, damaged, or does not fit the other.
            ValueError: for a device that this machine has not.
        """
        stored = files.read(directory)
        if model is None and stored.model is None:
            raise RunError(
                f"{directory}: holds a model of your own: expected it as model, got none"
            )
        path = Path(directory) / files.MODEL
        tensors, values = load_tensors(path)
        stored.identity.check(path, values)
        try:
            if model is None:
                model = rebuild_model(str(stored.model), stored.arguments)
            model.load_state_dict(take_prefix("model", tensors))
            standardizer = _standardizer(stored, take_prefix("standardizer", tensors))
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise RunError(f"{path}: does not fit {files.CONFIG} ({reason})") from error
        description = {**stored.data, "title": stored.title}
        # Runs of before thresholds could be chosen have none.
        threshold = float(values.get("threshold", HALF))
        return cls(
            model, stored.train, description, standardizer, resolve_device(device), threshold
        )

    @property
    def title(self) -> str:
        """What was trained: model and balancer."""
        default = f"{self.config.model}, {self.config.balancer}"
        return str(self.description.get("title", default))

    @property
    def label_names(self) -> list[str]:
        """Names of the T tasks."""
        return list(self.description["label_names"])

    @property
    def tasks(self) -> Tasks:
        """What the probabilities are of."""
        return Tasks(self.label_names, self.description.get("class_names", {}))

    def check(self, data: MultiTaskData) -> None:
        """Raise DataError if the data has other features or labels than the training data."""
        check_fits(data, self.description)

    def probabilities(self, data: MultiTaskData, split: str = "all") -> Tensor:
        """Probabilities of every sample of a split, (n, T) float64 on the CPU; of a task of classes
        those of all classes (`tasks.columns()`).

        Args:
            data: the samples.
            split: "train", "val", "test" or "all".

        Raises:
            DataError: if the data is not of the training data's kind, or gives NaN.
        """
        check_fits(data, self.description, labels=False)
        if self.standardizer is not None:
            data = self.standardizer.transform(data)
        rows = split_rows(data, split)
        if not len(rows):
            return torch.empty(0, len(self.tasks.columns()), dtype=torch.float64)
        logits = compute_logits(
            self.model, Batches(data, self.device), rows, evaluation_batch(self.config)
        )
        if bool((bad := logits.isnan().any(1)).any()):
            row = int(rows[bad.cpu()][0])
            expected = "features that the model makes numbers of"
            raise DataError.at(data.name, "x", expected, f"NaN for the sample in row {row}")
        return self.tasks.probabilities(logits.double()).cpu()

    def evaluate(self, data: MultiTaskData, split: str = "all") -> dict[str, Any]:
        """`task_metrics` over the samples of a split; arguments as for `probabilities`."""
        self.check(data)
        data = with_classes_of(data, self.description)
        probabilities = self.probabilities(data, split)
        targets = data.y[split_rows(data, split)]
        return task_metrics(self.tasks, probabilities, targets, threshold=self.threshold)


def _standardizer(stored: files.StoredRun, state: dict[str, Tensor]) -> Standardizer | None:
    """The standardisation of a run; ValueError if it is not there, or not of its features."""
    sizes = stored.data["features"] if stored.train.standardize else {}
    names = [f"{name}.{part}" for name in sizes for part in ("mean", "scale")]
    expect("standardizer", state, names)
    if not names:
        return None
    for name in names:
        size = sizes[name.rpartition(".")[0]]
        if state[name].shape != (size,):
            got = tuple(state[name].shape)
            raise ValueError(f"standardizer.{name}: expected shape ({size},), got {got}")
    return Standardizer().load_state_dict(state)


def predictions_csv(
    rows: Tensor,  # (n,)
    probabilities: Tensor,  # (n, T)
    label_names: Sequence[str],
    threshold: float = HALF,
    class_names: ClassNames = _NONE,
    *,
    names: Sequence[str] | None = None,  # (n,)
) -> str:
    """CSV of one line a sample: its index in the data, its name, T probabilities, T decisions.

    Without `names` there is no column for them.

    With `class_names` a task of them has a probability for each class, in the column
    `probability/TASK/CLASS`, and its decision is the name of the most probable one.

    Examples:
        >>> print(predictions_csv(torch.tensor([3]), torch.tensor([[0.25, 0.75]]), ["sea", "sun"]))
        index,probability/sea,probability/sun,decision/sea,decision/sun
        3,0.25,0.75,0,1
        <BLANKLINE>
    """
    tasks = Tasks(label_names, class_names)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    called = [] if names is None else ["name"]
    header = [f"probability/{name}" for name in tasks.columns()]
    writer.writerow(["index", *called, *header, *(f"decision/{name}" for name in label_names)])
    decisions = _decisions(tasks, probabilities, threshold)
    each = zip(rows.tolist(), probabilities.tolist(), decisions, strict=True)
    for i, (row, values, chosen) in enumerate(each):
        called = [] if names is None else [names[i]]
        writer.writerow([row, *called, *(f"{value:.6g}" for value in values), *chosen])
    return text.getvalue()


def predictions_json(
    rows: Tensor,  # (n,)
    probabilities: Tensor,  # (n, T)
    label_names: Sequence[str],
    threshold: float = HALF,
    class_names: ClassNames = _NONE,
    *,
    names: Sequence[str] | None = None,  # (n,)
) -> str:
    """The same as JSON: a list of an object a sample, with an object by label for each kind, in
    which the probabilities of a task of classes are an object by class.

    Examples:
        >>> print(predictions_json(torch.tensor([3]), torch.tensor([[0.25, 0.75]]), ["sea", "sun"]))
        [
        {"index": 3, "probability": {"sea": 0.25, "sun": 0.75}, "decision": {"sea": 0, "sun": 1}}
        ]
        <BLANKLINE>
    """
    tasks = Tasks(label_names, class_names)
    lines = []
    decisions = _decisions(tasks, probabilities, threshold)
    each = zip(rows.tolist(), probabilities.tolist(), decisions, strict=True)
    for i, (row, values, chosen) in enumerate(each):
        called = {} if names is None else {"name": names[i]}
        rounded = iter(float(f"{value:.6g}") for value in values)
        by_label: dict[str, Any] = {name: next(rounded) for name in tasks.binary}
        by_label |= {
            task: {name: next(rounded) for name in of_task} for task, of_task in class_names.items()
        }
        kinds = {"probability": by_label, "decision": dict(zip(label_names, chosen, strict=True))}
        lines.append(json.dumps({"index": row, **called, **kinds}, allow_nan=False))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _decisions(tasks: Tasks, probabilities: Tensor, threshold: float) -> list[list[int | str]]:
    """What is decided for each sample and task: 0 or 1, or the name of a class."""
    binary, others = tasks.split(probabilities)
    decided: list[list[Any]] = [each.tolist() for each in decide(binary, threshold).int().unbind(1)]
    for task, of_classes in others.items():
        names = tasks.class_names[task]
        decided.append([names[number] for number in of_classes.argmax(1).tolist()])
    return [list(each) for each in zip(*decided, strict=True)]


def split_rows(data: MultiTaskData, split: str) -> Tensor:
    """Indices (n,) of the samples of a split, or of all samples for "all"."""
    return torch.arange(data.num_samples) if split == "all" else data.indices(split)


def evaluation_batch(config: TrainConfig) -> int:
    """Samples at a time where no gradients are kept: more than in training, and in step with it."""
    return 4 * config.batch_size


@torch.inference_mode()
def compute_logits(
    model: nn.Module,
    batches: Batches,
    rows: Tensor,  # (n,)
    batch_size: int,
    stop: StopRequest | None = None,
) -> Tensor:
    """Logits of the samples `rows` in evaluation mode, on the device of `batches`.

    Raises Interrupted between two batches if `stop` was requested.
    """
    training = model.training
    model.eval()
    parts = []
    try:
        for batch in batches(rows, batch_size):
            if stop is not None:
                stop.check()
            parts.append(batch.forward(model))
    finally:
        model.train(training)
    return torch.cat(parts) if parts else batches.targets.new_empty(0, batches.targets.shape[1])
