"""A trained model with all it needs to read new data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastmtl.data import DataError, MultiTaskData, Standardizer
from fastmtl.data.tasks import Tasks
from fastmtl.training import directory as files
from fastmtl.training import inspection
from fastmtl.training.batches import Batches
from fastmtl.training.calibration import calibrate, calibration_figures
from fastmtl.training.checkpoint import RunError, load_tensors, take_prefix
from fastmtl.training.config import TrainConfig
from fastmtl.training.device import resolve_device
from fastmtl.training.factory import rebuild_model
from fastmtl.training.forward import compute_logits, evaluation_batch
from fastmtl.training.inputs import check_fits, split_rows, with_classes_of
from fastmtl.training.state import expect
from fastmtl.training.task_figures import task_metrics
from fastmtl.training.thresholds import HALF
from fastmtl.training.tuning import Tuning, tune


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
        threshold: of its decisions, one for all labels or (T,).
        tuning: thresholds and temperatures by label as the run stored them, for `tuned`; None where
            it did not.

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
        threshold: float | Tensor = HALF,
        tuning: Tuning | None = None,
    ) -> None:
        self.model = model.to(device)
        self.config = config
        self.description = description
        self.standardizer = standardizer
        self.device = device
        self.threshold = threshold
        self.tuning = tuning
        self.temperatures: Tensor | None = None  # (T,)

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
        tuning = _stored_tuning(Path(directory), _tasks(description))
        device_found = resolve_device(device)
        return cls(model, stored.train, description, standardizer, device_found, threshold, tuning)

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
        return _tasks(self.description)

    def check(self, data: MultiTaskData) -> None:
        """Raise DataError if the data has other features or labels than the training data."""
        check_fits(data, self.description)

    def probabilities(self, data: MultiTaskData, split: str = "all") -> Tensor:
        """Probabilities of every sample of a split, (n, T) float64 on the CPU; of a multi-class
        task those of all classes (`tasks.columns()`).

        Calibrated (`tuned`) they are those of logit / temperature.

        Args:
            data: the samples.
            split: "train", "val", "test" or "all".

        Raises:
            DataError: if the data is not of the training data's kind, or gives NaN.
        """
        logits = self.logits(data, split)
        return self.tasks.probabilities(logits, self.temperatures)

    def logits(self, data: MultiTaskData, split: str = "all") -> Tensor:
        """The logits of every sample of a split, float64 on the CPU; as `probabilities`."""
        check_fits(data, self.description, labels=False)
        data = self._standardized(data)
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
        return logits.double().cpu()

    def evaluate(self, data: MultiTaskData, split: str = "all") -> dict[str, Any]:
        """`task_metrics` over the samples of a split; arguments as for `probabilities`."""
        self.check(data)
        data = with_classes_of(data, self.description)
        probabilities = self.probabilities(data, split)
        targets = data.y[split_rows(data, split)]
        return task_metrics(self.tasks, probabilities, targets, threshold=self.threshold)

    def calibration(self, data: MultiTaskData, split: str = "all") -> dict[str, float | None]:
        """`calibration_figures` of the binary tasks over the samples of a split; arguments as for
        `probabilities`."""
        self.check(data)
        binary, _ = self.tasks.split(self.probabilities(data, split))
        return calibration_figures(binary, data.y[split_rows(data, split), : self.tasks.num_binary])

    def tuned(
        self, tuning: Tuning | None = None, *, thresholds: bool = True, calibrated: bool = False
    ) -> Predictor:
        """The same model with decisions and probabilities of every label's own.

        Calibration changes no decision: the thresholds are moved along with the probabilities.

        Args:
            tuning: by default what the run stored, fitted on its validation split; `tune` fits one
                on other data.
            thresholds: whether to decide by its thresholds.
            calibrated: whether to divide the logits by its temperatures.

        Raises:
            RunError: if none is given and the run stored none.
        """
        tuning = tuning or self.tuning
        if tuning is None:
            raise RunError(
                "tuning: expected the thresholds and temperatures of a finished run, got none; "
                "Predictor.tune fits them on a validation split"
            )
        other = copy(self)
        if thresholds:
            other.threshold = torch.tensor(tuning.thresholds, dtype=torch.float64)
        if calibrated:
            found = torch.tensor(tuning.temperatures, dtype=torch.float64)
            own = torch.as_tensor(other.threshold, dtype=torch.float64)
            binary = found[: self.tasks.num_binary]
            # Thresholds outside [0, 1] decide for all or for none.
            moved = calibrate(own.clamp(0, 1), binary)
            other.threshold = torch.where((own >= 0) & (own <= 1), moved, own)
            other.temperatures = found
        return other

    def tune(self, data: MultiTaskData, split: str = "val") -> Tuning:
        """`fastmtl.training.tune` on the samples of a split; arguments as for `probabilities`."""
        self.check(data)
        threshold = self.threshold if isinstance(self.threshold, float) else HALF
        data = with_classes_of(data, self.description)
        targets = data.y[split_rows(data, split)]
        return tune(self.logits(data, split), targets, threshold, self.tasks)

    def attention(
        self, data: MultiTaskData, rows: str | Tensor | Sequence[int] = "all"
    ) -> dict[str, Tensor]:
        """Attention over time of each modality that is a sequence, float32 on the CPU.

        Of MTMLAN (n, T, L), each task its own; of HGFN and its baselines (n, L). The weights of a
        sample are 1 in sum, 0 at padded steps, and all 0 of a modality that it lacks.

        Args:
            data: the samples, on the original scale; standardised here.
            rows: a split, "all", or indices of samples, whose order is kept.

        Raises:
            DataError: if the data is not of the training data's kind.
            ValueError: if the model has no attention over time.
        """
        return inspection.attention(self.model, *self._inspected(data, rows))

    def fusion_weights(
        self, data: MultiTaskData, rows: str | Tensor | Sequence[int] = "all"
    ) -> tuple[dict[str, Tensor], ...]:
        """`HGFN.fusion_weights` by name: of each level a dict of (n,) by modality or edge.

        Arguments and errors as for `attention`; ValueError if the model has no fusion graph.
        """
        return inspection.fusion_weights(self.model, *self._inspected(data, rows))

    def _inspected(
        self, data: MultiTaskData, rows: str | Tensor | Sequence[int]
    ) -> tuple[Batches, Tensor, int]:
        """Samples as the model reads them, the order of those that are asked for, and how many at a
        time."""
        check_fits(data, self.description, labels=False)
        chosen = split_rows(data, rows) if isinstance(rows, str) else torch.as_tensor(rows)
        if not len(chosen):
            raise ValueError("rows: expected at least one sample, got none")
        if len(chosen) < len(data):
            data, chosen = data.subset(chosen), torch.arange(len(chosen))
        batches = Batches(self._standardized(data), self.device)
        return batches, chosen, evaluation_batch(self.config)

    def _standardized(self, data: MultiTaskData) -> MultiTaskData:
        return data if self.standardizer is None else self.standardizer.transform(data)


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


def _tasks(description: Mapping[str, Any]) -> Tasks:
    return Tasks(list(description["label_names"]), description.get("class_names", {}))


def _stored_tuning(directory: Path, tasks: Tasks) -> Tuning | None:
    """What the run fitted on its validation split; None before it ended."""
    try:
        return Tuning.from_dict((files.stored_metrics(directory) or {})["training"], tasks)
    except (LookupError, TypeError, ValueError):
        return None
