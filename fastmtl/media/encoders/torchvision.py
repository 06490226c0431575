"""Image classifiers of torchvision, without their last layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastmtl.media.encoders.base import Encoder, Setting
from fastmtl.media.encoders.networks import FrameNetwork, placed
from fastmtl.media.errors import MediaError
from fastmtl.media.frames import Picture
from fastmtl.training.checkpoint import digest


def video(name: str, setting: Setting, *, weights: str = "") -> Encoder:
    """Frames by a classifier: what its last linear layer reads, a vector a frame.

    `inception_v3` gives the 2,048 features of the last pooling layer that MTMLAN was published
    with.

    Args:
        name: of a model in torchvision.models.
        setting: the sampling, and where it computes.
        weights: a file of them (a state_dict); by default torchvision's own, which it downloads.
    """
    models = _models()
    if name not in models.list_models():
        raise MediaError(f"torchvision:{name}: expected a name of torchvision.models.list_models()")
    own = models.get_model_weights(name).DEFAULT
    if weights:
        model = models.get_model(name, weights=None, **_options(name))
        _load(name, model, Path(weights))
    else:
        model = models.get_model(name, weights=own)
    content = {"model": name, "weights": digest(model.state_dict())}
    features = _Features(placed(model, setting))
    form = own.transforms()
    crop, shorter = _side(form.crop_size), _side(form.resize_size)
    picture = Picture((crop, crop), shorter=max(shorter, crop), filter="BILINEAR")
    return FrameNetwork(features, picture, setting, mean=form.mean, std=form.std, content=content)


class _Features:
    """What the last linear layer of a classifier reads."""

    def __init__(self, model: nn.Module) -> None:
        layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not layers:
            raise MediaError("torchvision: expected a classifier with a linear layer, got none")
        self._model = model
        self._read: list[Tensor] = []
        layers[-1].register_forward_pre_hook(lambda _, inputs: self._read.append(inputs[0]))

    def __call__(self, frames: Tensor) -> Tensor:
        self._read.clear()
        self._model(frames)
        return self._read.pop().flatten(1)


def _models() -> Any:
    try:
        from torchvision import models
    # A build for another PyTorch raises RuntimeError or OSError.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise MediaError(
            "torchvision: needs torchvision in the version for this PyTorch "
            f"(pip install torchvision), got {type(error).__name__}: {reason}"
        ) from None
    return models


def _options(name: str) -> dict[str, Any]:
    # Inception's own weights come with inputs of another scale, which its file does not say.
    return {"transform_input": True, "init_weights": False} if name == "inception_v3" else {}


def _load(name: str, model: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise MediaError(f"torchvision:{name}: expected a file of weights, got {path}")
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise MediaError(
            f"torchvision:{name}: {path} does not hold its weights ({reason})"
        ) from None


def _side(size: Any) -> int:
    return int(size[0] if isinstance(size, list | tuple) else size)
