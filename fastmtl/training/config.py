"""Everything that defines a training run, declared once: checks, help and JSON follow from it."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastmtl._checks import did_you_mean
from fastmtl.data.placement import MEMORY
from fastmtl.nn.balance_at import BALANCE_AT
from fastmtl.nn.scope import SCOPES
from fastmtl.training.history import MONITORS
from fastmtl.training.options import check_options, declared, option
from fastmtl.training.precision import PRECISIONS
from fastmtl.training.recipes import (
    BALANCERS,
    FUSION_MODELS,
    LOSSES,
    MODELS,
    ONLY_FOR,
    SEQUENCE_MODELS,
)
from fastmtl.training.thresholds import THRESHOLDS

# What can be written of every step.
LOGS = ("csv", "tensorboard")
# OpenMP ends the process where the system cannot start as many as it was asked for.
MOST_THREADS = 1024
# Models or balancers that the help of an option names.
_MOST_NAMED = 8


@dataclass(frozen=True)
class TrainConfig:
    """The options of a training run.

    AdamW minimises the tasks' losses as the balancer weighs them; training stops after
    `patience` epochs without a better one by `monitor` on the validation split: "loss" is the mean
    of the unweighted task losses, the others are figures of `task_metrics`, "macro_f1" of tasks of
    classes. None stands for what the default in words says.

    Raises:
        ValueError: for a value out of range, naming the option, what was expected and what came.

    Examples:
        >>> config = TrainConfig(model="mtmlan", balancer="tdb", epochs=5)
        >>> TrainConfig.from_dict(config.to_dict()) == config
        True
        >>> TrainConfig(lr=0)
        Traceback (most recent call last):
            ...
        ValueError: lr: expected a finite number > 0, got 0
    """

    model: str = option(
        "mtmlan",
        f"{', '.join(SEQUENCE_MODELS)} (sequences); {', '.join(FUSION_MODELS)} (modalities).",
        "Model",
        choices=tuple(MODELS),
    )
    balancer: str = option(
        "dmtl",
        "How tasks are weighed or gradients combined; `fastmtl balancers` lists the methods.",
        "Balancing",
        choices=tuple(BALANCERS),
    )
    data: str = option(
        "synthetic:disaster",
        "A .npz, .h5, .csv, .parquet or .arff file, a directory, or synthetic:NAME[?...].",
        "Data",
    )
    test: str | None = option(None, "A second file, the test split.", "Data")
    xml: str | None = option(None, "The labels of a Mulan .arff file.", "Data")
    modalities: str | None = option(
        None, "Keep (text,audio) or cut columns (text=0:79,audio=79:103).", "Data"
    )
    memory: str = option(
        "auto",
        "Features: load them, stream them from the file, or auto (stream large ones).",
        "Data",
        choices=MEMORY,
    )
    standardize: bool = option(
        True, "Scale features by the training split's mean and deviation.", "Data"
    )
    epochs: int = option(50, "Epochs at most.", "Training", minimum=1)
    batch_size: int = option(32, "Samples in a step.", "Training", minimum=1)
    accumulate: int = option(
        1,
        "Parts that a step's samples are taken in, one after the other, to save memory.",
        "Training",
        minimum=1,
    )
    lr: float = option(1e-3, "Learning rate of AdamW.", "Training", above=0)
    warmup: int = option(
        50, "Steps over which the learning rate rises to lr.", "Training", minimum=0
    )
    lr_schedule: str = option(
        "decay",
        "Fall of the learning rate: decay (lr_decay), constant, cosine (to 0), plateau (by half).",
        "Training",
        choices=("decay", "constant", "cosine", "plateau"),
    )
    lr_decay: float = option(
        0.95, "Factor of the learning rate after each epoch.", "Training", above=0, maximum=1
    )
    weight_decay: float = option(
        0.1, "Share of a weight taken off per step and lr (AdamW), not of biases.", "Training",
        minimum=0,
    )  # fmt: skip
    prior_bias: bool = option(
        False, "Start the logits at the labels' frequencies in training.", "Training"
    )
    loss: str = option(
        "focal",
        f"What the tasks minimise: {', '.join(LOSSES)}.",
        "Training",
        choices=tuple(LOSSES),
    )
    gamma: float = option(2.0, "Focusing parameter of the loss.", "Training", minimum=0)
    gamma_pos: float = option(1.0, "Focusing parameter of positives.", "Training", minimum=0)
    gamma_neg: float = option(4.0, "Focusing parameter of negatives.", "Training", minimum=0)
    clip: float = option(
        0.05, "Probability up to which a negative costs nothing.", "Training", minimum=0, below=1
    )
    poly: float = option(
        1.0, "What is added to the coefficient of the loss's first term, 1.", "Training", minimum=0
    )
    smoothing: float = option(
        0.0, "How far labels are moved towards 1/2.", "Training", minimum=0, below=1
    )
    patience: int = option(
        10, "Epochs without a better one before stopping.", "Training", minimum=1
    )
    monitor: str = option(
        "map",
        "What makes an epoch better, on the validation split: loss, map, micro_f1 or macro_f1.",
        "Training",
        choices=MONITORS,
    )
    clip_grad_norm: float | None = option(
        None, "Bound of the global gradient norm.", "Training", above=0, unset="no bound"
    )
    ema: float | None = option(
        None,
        "Decay per step of a moving average of the weights, measured and kept in their place.",
        "Training",
        minimum=0,
        below=1,
        unset="none",
    )
    threshold: str = option(
        "half",
        "What the threshold of decisions is chosen for, on the validation split: micro_f1, "
        "hamming_loss, or half for 0.5.",
        "Training",
        choices=THRESHOLDS,
    )
    alpha: float = option(1.0, "Exponent of the relative losses.", "Balancing", minimum=0)
    balance_lr: float = option(0.025, "Step size of the task weights.", "Balancing", above=0)
    balance_at: str | None = option(
        None,
        f"Layer of the gradient norms: {', '.join(BALANCE_AT)}.",
        "Balancing",
        choices=BALANCE_AT,
        unset="shared, else first",
    )
    balance_scope: str = option(
        "layer",
        "What shared gradients are of: the shared layer, or the trunk, all that tasks share.",
        "Balancing",
        choices=SCOPES,
    )
    imbalance_penalty: bool = option(
        True, "Weigh tasks by the inverse of their share of positives.", "Balancing"
    )
    cycle_reset: bool = option(
        True, "Re-balance each cycle from equal weights, not from the last ones.", "Balancing"
    )
    factor_bound: float | None = option(
        2.0, "Bound of the factors that re-balance.", "Balancing", above=1, unset="no bound"
    )
    hidden_size: int = option(128, "Width of the hidden layers.", "Model", minimum=1)
    attention_size: int = option(64, "Width of the attention over time.", "Model", minimum=1)
    num_layers: int | None = option(
        None, "Layers of the GRUs.", "Model", minimum=1, unset="mtmlan 2, hgfn 1"
    )
    shared_features: int | None = option(
        None, "Width of a trainable shared layer.", "Model", minimum=1, unset="none"
    )
    dropout: float = option(0.5, "Dropout probability.", "Model", minimum=0, below=1)
    theta: float = option(0.5, "Offset of the similarity in the edge weights.", "Model", above=0)
    max_level: int = option(3, "Levels of fusion.", "Model", minimum=1)
    similarity_norm: bool = option(
        True, "Standardise vertices to compare them, so that edge weights differ.", "Model"
    )
    level_norm: bool = option(False, "Standardise the fused vector of each level.", "Model")
    residual: bool = option(True, "Put the modalities' vectors beside the fused ones.", "Model")
    head_size: int = option(64, "Width of the task heads.", "Model", minimum=1)
    interaction: bool = option(False, "Let the tasks exchange features, as MTI-Net does.", "Model")
    seed: int = option(
        0,
        "Fixes split, initial weights, order of samples, dropout.",
        "Training",
        minimum=0,
        maximum=2**63 - 1,
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N.", "Run")
    precision: str = option(
        "float32",
        f"What training multiplies in: {', '.join(PRECISIONS)}; weights stay float32.",
        "Run",
        choices=tuple(PRECISIONS),
    )
    compile: bool = option(False, "Train the model as torch.compile makes it.", "Run")
    threads: int | None = option(
        None, "CPU threads.", "Run", minimum=1, maximum=MOST_THREADS, unset="torch's choice"
    )

    log: str | None = option(
        None,
        "Write losses and task weights of every step: csv, or tensorboard.",
        "Run",
        choices=LOGS,
        unset="none",
    )

    def __post_init__(self) -> None:
        check_options(self)

    def to_dict(self) -> dict[str, Any]:
        """The options as a dictionary that json can write."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> TrainConfig:
        """The configuration that `to_dict` gave.

        Args:
            options: values by the names of fields.

        Raises:
            ValueError: for an option that does not exist, and for a value out of range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(options) - set(names)):
            got = ", ".join(name + did_you_mean(name, names) for name in unknown)
            raise ValueError(f"options: expected fields of TrainConfig, got {got}")
        return cls(**options)


def option_help(name: str) -> str:
    """What an option of `TrainConfig` does, in a line; it begins with who reads it if not all do.

    Examples:
        >>> option_help("theta")
        'hgfn: offset of the similarity in the edge weights.'
    """
    text = declared(TrainConfig)[name].option.help
    if name not in ONLY_FOR:
        return text
    kind, users = ONLY_FOR[name]
    who = ", ".join(users) if len(users) <= _MOST_NAMED else f"{len(users)} {kind}s"
    return f"{who}: {text[0].lower()}{text[1:]}"


def _arguments() -> str:
    """The Args section of TrainConfig's docstring."""
    lines = ["    Args:"]
    for name, each in declared(TrainConfig).items():
        default = each.option.unset or repr(each.default)
        text = f"{name}: {option_help(name)} Default: {default}."
        lines += textwrap.wrap(text, 100, initial_indent=" " * 8, subsequent_indent=" " * 12)
    return "\n".join(lines) + "\n\n"


if TrainConfig.__doc__:
    TrainConfig.__doc__ = TrainConfig.__doc__.replace(
        "    Raises:", _arguments() + "    Raises:", 1
    )
