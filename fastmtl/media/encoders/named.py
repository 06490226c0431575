"""Encoders by their names, as they are typed."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from fastmtl._checks import did_you_mean
from fastmtl.data.specs import parse_options
from fastmtl.media.encoders.base import Encoder, Setting
from fastmtl.media.errors import MediaError
from fastmtl.media.sampling import Sampling

# By modality, the encoders and where their functions are. Those with a colon take a name behind it.
KINDS: dict[str, dict[str, tuple[str, str]]] = {
    "video": {
        "pixels": ("pixels", "pixels"),
        "hf:": ("huggingface", "video"),
        "torchvision:": ("torchvision", "video"),
        "pt2:": ("exported", "video"),
    },
    "audio": {
        "stft": ("stft", "stft"),
        "hf:": ("huggingface", "audio"),
        "pt2:": ("exported", "audio"),
    },
    "text": {"hash": ("hashing", "hashed"), "hf:": ("huggingface", "text")},
}
# What of the sampling the features of a modality depend on.
_SAMPLED = {"video": ("rate", "count", "seconds"), "audio": ("seconds",), "text": ()}


def choices(modality: str) -> list[str]:
    """What can be typed for a modality.

    Examples:
        >>> choices("text")
        ['hash', 'hf:NAME']
    """
    return [f"{kind}NAME" if kind.endswith(":") else kind for kind in KINDS[modality]]


def absolute(spec: str) -> str:
    """The same encoder, its file or directory as it is found from anywhere.

    Examples:
        >>> absolute("stft?bands=64")
        'stft?bands=64'
    """
    kind, colon, name = _kind_of(spec)
    path, mark, options = name.partition("?")
    if colon and kind in ("hf", "pt2") and Path(path).exists():
        path = os.path.abspath(path)
    return f"{kind}{colon}{path}{mark}{options}"


def make_encoder(modality: str, spec: str, setting: Setting) -> Encoder:
    """The encoder of a modality that a text names: `stft`, `stft?bands=64`, `hf:NAME?pool=mean`.

    Raises:
        MediaError: for another name, or weights that are not there.
        DataError: for an option that it has not.
    """
    kind, colon, rest = _kind_of(spec)
    kinds = KINDS[modality]
    name, _, query = rest.partition("?")
    if kind + colon not in kinds or bool(colon) != bool(name):
        expected = f"one of {', '.join(choices(modality))}"
        near = did_you_mean(kind, [each.rstrip(":") for each in kinds])
        raise MediaError(f"{modality}: expected {expected}, got {spec!r}{near}")
    module, function = kinds[kind + colon]
    make = getattr(import_module(f"fastmtl.media.encoders.{module}"), function)
    options = _options(spec, make, query)
    encoder: Encoder = make(name, setting, **options) if colon else make(setting, **options)
    return encoder


def described(modality: str, spec: str, encoder: Encoder, sampling: Sampling) -> dict[str, Any]:
    """What a file says of the features of a modality: with the fingerprint of all they depend on.

    That is the kind of encoder, its options and weights, and the settings; where its files lie is
    not.
    """
    settings = {name: getattr(sampling, name) for name in _SAMPLED[modality]}
    about = [_kind_of(spec)[0], encoder.content, settings]
    code = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    return {"encoder": spec, "settings": settings, "fingerprint": code}


def sampling_of(encoders: Mapping[str, Mapping[str, Any]]) -> Sampling:
    """The sampling that files of features say they were made with."""
    settings = {
        name: value for each in encoders.values() for name, value in each["settings"].items()
    }
    return Sampling(**settings)


def _kind_of(spec: str) -> tuple[str, str, str]:
    """The kind of encoder, the colon if there is one, and what follows: name and options."""
    before = spec.partition("?")[0]
    if ":" in before:
        return spec.partition(":")
    return before, "", spec[len(before) :]


def _options(spec: str, make: Callable[..., Any], query: str) -> dict[str, Any]:
    """The options behind a question mark, as the function that makes the encoder declares them."""
    hints = get_type_hints(make)
    parameters = inspect.signature(make).parameters.values()
    kinds = {each.name: hints[each.name] for each in parameters if each.kind is each.KEYWORD_ONLY}
    return parse_options(spec, query, kinds)
