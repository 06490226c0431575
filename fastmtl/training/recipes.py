"""The models, balancers and losses that a run can name: how each is built, and from which
options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from torch import nn

from fastmtl.balancing import (
    DBMTL,
    FAMO,
    IMTL,
    IMTLG,
    IMTLL,
    MGDA,
    STCH,
    AlignedMTL,
    Balancer,
    CAGrad,
    ConFIG,
    DualProj,
    DynamicMultiTask,
    DynamicWeightAverage,
    Equal,
    FairGrad,
    GeometricMean,
    GradNorm,
    GradVac,
    NashMTL,
    PCGrad,
    RandomLossWeighting,
    TaskDynamicBalancing,
    UncertaintyWeighting,
    UPGrad,
)
from fastmtl.data import MultiTaskData
from fastmtl.models import CMLC, HGFN, MTMLAN, FusionBaseline
from fastmtl.nn import (
    AsymmetricLoss,
    DistributionBalancedLoss,
    FocalLoss,
    MultilabelLoss,
    SharedLinear,
    class_balanced_weights,
)

_Built = TypeVar("_Built", bound=nn.Module)


@dataclass(frozen=True)
class Recipe(Generic[_Built]):
    """How something is made, the options of `TrainConfig` that this depends on, and the class of a
    balancer, which is listed by it."""

    make: Callable[..., _Built]
    reads: tuple[str, ...] = ()
    kind: type[_Built] | None = None

    def build(self, config: object, *given: Any) -> _Built:
        """`make(*given)`, with those options of `config` as keywords."""
        return self.make(*given, **{name: getattr(config, name) for name in self.reads})


def class_name(model: nn.Module) -> str | None:
    """The name in `MODEL_CLASSES` of the model's class, None for a model of the user's own."""
    return next((name for name, kind in MODEL_CLASSES.items() if type(model) is kind), None)


def model_name(model: Any) -> str | None:
    """The name in `MODELS` of such a model, None for a model of the user's own."""
    name = class_name(model)
    if name == "fusion_baseline":
        return str(model.config()["fusion"])
    return "mtmlan-shared" if name == "mtmlan" and model.config()["shared_gru"] else name


def _sequence_model(
    kind: Callable[..., nn.Module], data: MultiTaskData, *, num_layers: int | None, **options: Any
) -> nn.Module:
    return kind(
        data.modalities["x"][-1],
        data.num_tasks,
        num_layers=2 if num_layers is None else num_layers,
        group_sizes=data.tasks.group_sizes,
        **options,
    )


def _fusion_model(
    kind: Callable[..., nn.Module], data: MultiTaskData, *, num_layers: int | None, **options: Any
) -> nn.Module:
    shapes = data.modalities.items()
    return kind(
        {name: shape[-1] for name, shape in shapes},
        data.num_tasks,
        sequence_modalities=[name for name, shape in shapes if len(shape) == 2],
        gru_layers=1 if num_layers is None else num_layers,
        group_sizes=data.tasks.group_sizes,
        **options,
    )


def _loss_only(kind: type[Balancer]) -> Recipe[Balancer]:
    return Recipe(lambda model, data: kind(data.num_tasks), kind=kind)


def _famo(model: nn.Module, data: MultiTaskData, *, balance_lr: float) -> Balancer:
    return FAMO(data.num_tasks, lr=balance_lr)


def _combining(name: str, kind: type[Balancer], **options: Any) -> Recipe[Balancer]:
    """A balancer that combines the tasks' gradients at the layer that they share."""

    def make(model: nn.Module, data: MultiTaskData, *, balance_scope: str) -> Balancer:
        if not any(isinstance(module, SharedLinear) for module in model.modules()):
            raise ValueError(
                f"balancer: {name} needs a layer that the tasks share, got "
                f"{class_name(model)} without shared_features"
            )
        built: Any = kind
        balancer: Balancer = built(model, balance_at="shared", scope=balance_scope, **options)
        return balancer

    return Recipe(make, ("balance_scope",), kind)


def _grad_norm(
    model: nn.Module,
    data: MultiTaskData,
    *,
    alpha: float,
    balance_lr: float,
    balance_at: str | None,
    balance_scope: str,
) -> Balancer:
    return GradNorm(model, alpha, lr=balance_lr, balance_at=balance_at, scope=balance_scope)


def _dynamic(
    kind: type[TaskDynamicBalancing],
    model: nn.Module,
    data: MultiTaskData,
    *,
    balance_lr: float,
    balance_at: str | None,
    balance_scope: str,
    **options: Any,
) -> Balancer:
    return kind(
        model,
        positives=data.positives("train"),
        samples=len(data.indices("train")),
        lr=balance_lr,
        balance_at=balance_at,
        scope=balance_scope,
        **options,
    )


def _focal_loss(data: MultiTaskData, *, gamma: float, **options: Any) -> nn.Module:
    if not any(options.values()) and not data.soft:
        return FocalLoss(gamma=gamma)
    return MultilabelLoss(gamma_pos=gamma, gamma_neg=gamma, **options)


def _asymmetric_loss(data: MultiTaskData, **options: Any) -> nn.Module:
    return AsymmetricLoss(**options)


def _class_balanced_loss(data: MultiTaskData, *, gamma: float, smoothing: float) -> nn.Module:
    pos, neg = class_balanced_weights(data.positives("train"), len(data.indices("train")))
    return MultilabelLoss(
        gamma_pos=gamma, gamma_neg=gamma, pos_weight=pos, neg_weight=neg, smoothing=smoothing
    )


def _distribution_balanced_loss(data: MultiTaskData, *, gamma: float) -> nn.Module:
    positives, samples = data.positives("train"), len(data.indices("train"))
    return DistributionBalancedLoss(positives, samples, gamma=gamma)


_SEQUENCE = ("hidden_size", "num_layers", "dropout")
_FUSION = (*_SEQUENCE, "attention_size", "head_size", "interaction")
_GRAPH = ("theta", "max_level", "similarity_norm", "level_norm", "residual")
_NORMS = ("alpha", "balance_lr", "balance_at", "balance_scope")
_DYNAMIC = (*_NORMS, "imbalance_penalty")


def _dynamic_recipe(kind: type[TaskDynamicBalancing], *reads: str) -> Recipe[Balancer]:
    return Recipe(partial(_dynamic, kind), (*_DYNAMIC, *reads), kind)


def _baseline(fusion: str) -> Recipe[nn.Module]:
    return Recipe(partial(_fusion_model, partial(FusionBaseline, fusion=fusion)), _FUSION)


SEQUENCE_MODELS: dict[str, Recipe[nn.Module]] = {
    "mtmlan": Recipe(
        partial(_sequence_model, MTMLAN), (*_SEQUENCE, "attention_size", "shared_features")
    ),
    "mtmlan-shared": Recipe(
        partial(_sequence_model, partial(MTMLAN, shared_gru=True)),
        (*_SEQUENCE, "attention_size"),
    ),
    "cmlc": Recipe(partial(_sequence_model, CMLC), _SEQUENCE),
}
FUSION_MODELS: dict[str, Recipe[nn.Module]] = {
    "hgfn": Recipe(partial(_fusion_model, HGFN), (*_FUSION, *_GRAPH)),
    "cfc": _baseline("cfc"),
    "matf": _baseline("matf"),
    "gfn": _baseline("gfn"),
}
MODELS = {**SEQUENCE_MODELS, **FUSION_MODELS}
MODEL_CLASSES: dict[str, Callable[..., nn.Module]] = {
    "mtmlan": MTMLAN,
    "cmlc": CMLC,
    "hgfn": HGFN,
    "fusion_baseline": FusionBaseline,
}
BALANCERS: dict[str, Recipe[Balancer]] = {
    "equal": _loss_only(Equal),
    "uncertainty": _loss_only(UncertaintyWeighting),
    "dwa": _loss_only(DynamicWeightAverage),
    "rlw": _loss_only(RandomLossWeighting),
    "geometric": _loss_only(GeometricMean),
    "famo": Recipe(_famo, ("balance_lr",), FAMO),
    "stch": _loss_only(STCH),
    "imtll": _loss_only(IMTLL),
    "gradnorm": Recipe(_grad_norm, _NORMS, GradNorm),
    "tdb": _dynamic_recipe(TaskDynamicBalancing),
    "dmtl": _dynamic_recipe(DynamicMultiTask, "cycle_reset", "factor_bound"),
    "mgda": _combining("mgda", MGDA, normalize=True),
    "pcgrad": _combining("pcgrad", PCGrad),
    "gradvac": _combining("gradvac", GradVac),
    "cagrad": _combining("cagrad", CAGrad),
    "nashmtl": _combining("nashmtl", NashMTL),
    "fairgrad": _combining("fairgrad", FairGrad),
    "imtlg": _combining("imtlg", IMTLG),
    "imtl": _combining("imtl", IMTL),
    "alignedmtl": _combining("alignedmtl", AlignedMTL),
    "upgrad": _combining("upgrad", UPGrad),
    "dualproj": _combining("dualproj", DualProj),
    "config": _combining("config", ConFIG),
    "dbmtl": _combining("dbmtl", DBMTL),
}
LOSSES: dict[str, Recipe[nn.Module]] = {
    "focal": Recipe(_focal_loss, ("gamma", "smoothing")),
    "asymmetric": Recipe(_asymmetric_loss, ("gamma_pos", "gamma_neg", "clip", "smoothing")),
    "poly1": Recipe(_focal_loss, ("gamma", "poly", "smoothing")),
    "class-balanced": Recipe(_class_balanced_loss, ("gamma", "smoothing")),
    "distribution-balanced": Recipe(_distribution_balanced_loss, ("gamma",)),
}


def _read_by_some(
    kind: str, recipes: Mapping[str, Recipe[Any]]
) -> dict[str, tuple[str, list[str]]]:
    users: dict[str, list[str]] = {}
    for user, recipe in recipes.items():
        for name in recipe.reads:
            users.setdefault(name, []).append(user)
    return {name: (kind, found) for name, found in users.items() if len(found) < len(recipes)}


# The options that mean nothing to some models, balancers or losses, and those they mean something
# to.
ONLY_FOR = {
    **_read_by_some("model", MODELS),
    **_read_by_some("balancer", BALANCERS),
    **_read_by_some("loss", LOSSES),
}
# The options by which data is found and cut: arrays that are given have none of them.
OF_DATA = frozenset({"data", "test", "xml", "modalities", "memory"})
# The options that only make something: what is given as it is was not made by them.
_RECIPES: list[Recipe[Any]] = [*MODELS.values(), *BALANCERS.values()]
MAKING = frozenset(name for recipe in _RECIPES for name in recipe.reads)
