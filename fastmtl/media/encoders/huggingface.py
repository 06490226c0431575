"""Image, audio and text models of `transformers`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastmtl.media.encoders.base import Encoder, Request, Setting
from fastmtl.media.encoders.networks import (
    FrameNetwork,
    SoundNetwork,
    as_features,
    batches,
    half,
    placed,
)
from fastmtl.media.errors import MediaError
from fastmtl.media.frames import Picture
from fastmtl.media.piece import Array, Piece
from fastmtl.media.texts import Text
from fastmtl.training.checkpoint import digest

POOLS = ("auto", "cls", "mean")
_FILTERS = {0: "NEAREST", 1: "LANCZOS", 2: "BILINEAR", 3: "BICUBIC", 4: "AREA"}
# Where a tokenizer sets no limit.
_TOKENS = 512


def video(name: str, setting: Setting, *, pool: str = "auto") -> Encoder:
    """Frames by an image model: a vector a frame.

    Args:
        name: of a model on the Hub, or its directory.
        setting: the sampling, and where it computes.
        pool: "cls" is the first token of the last layer, "mean" the mean of all; "auto" is what
            the model gives for an image where it is made for that (CLIP, SigLIP), else "cls", or
            the mean over places where there are no tokens.
    """
    model, content = _model(name, setting, pool)
    processor = _plain(_loader("AutoImageProcessor", name, "frames").to_dict())
    project = getattr(model, "get_image_features", None) if pool == "auto" else None

    tower = getattr(model, "vision_model", model)

    def compute(frames: Tensor) -> Tensor:
        if project is not None:
            return _projected(project(pixel_values=frames))
        hidden: Tensor = tower(pixel_values=frames).last_hidden_state
        if hidden.dim() == 4:
            return hidden.mean((2, 3))
        return hidden.mean(1) if pool == "mean" else hidden[:, 0]

    mean, std = [0.0] * 3, [1.0] * 3
    if processor.get("do_normalize"):
        mean, std = processor["image_mean"], processor["image_std"]
    return FrameNetwork(
        compute,
        _picture(name, processor),
        setting,
        scale=processor["rescale_factor"] if processor.get("do_rescale") else 1.0,
        mean=mean,
        std=std,
        content=content,
    )


def audio(
    name: str, setting: Setting, *, window: float = 10.0, step: float = 1.0, pool: str = "auto"
) -> Encoder:
    """Sound by an audio model, in stretches of `window` seconds.

    Models that follow time (wav2vec 2.0, HuBERT, WavLM) give the mean over every `step` seconds,
    others (AST, CLAP, Whisper's encoder) a vector a stretch.

    Args:
        name: of a model on the Hub, or its directory.
        setting: the sampling, and where it computes.
        window: seconds that the model hears at a time.
        step: seconds of a vector.
        pool: of a stretch's vector, as for images; "auto" is what the model gives for sound where
            it is made for that (CLAP), else "mean".
    """
    if not 0.1 <= step <= window <= 300:
        raise MediaError(f"step: expected 0.1 <= step <= window <= 300, got {step} and {window}")
    model, content = _model(name, setting, pool)
    extractor = _loader("AutoFeatureExtractor", name, "sound")
    rate = int(getattr(extractor, "sampling_rate", 16000))
    project = getattr(model, "get_audio_features", None) if pool == "auto" else None
    follows = hasattr(model, "_get_feat_extract_output_lengths")

    tower = getattr(model, "audio_model", model)

    def compute(stretches: list[Array]) -> Tensor:
        inputs = extractor(stretches, sampling_rate=rate, return_tensors="pt")
        inputs = {
            key: value.to(setting.device, half(setting) if value.is_floating_point() else None)
            for key, value in inputs.items()
        }
        if project is not None:
            return _projected(project(**inputs))[:, None]
        hidden: Tensor = tower(**inputs).last_hidden_state
        if follows:
            steps = max(1, round(len(stretches[0]) / rate / step))
            return nn.functional.adaptive_avg_pool1d(hidden.float().mT, steps).mT
        hidden = hidden.flatten(2).mT if hidden.dim() == 4 else hidden
        return hidden[:, :1] if pool == "cls" else hidden.mean(1, keepdim=True)

    content = {**content, "step": step, "extractor": _plain(extractor.to_dict())}
    return SoundNetwork(compute, rate, window, setting, content=content)


def text(name: str, setting: Setting, *, pool: str = "auto", tokens: int = _TOKENS) -> Encoder:
    """Texts by a language model: a vector a text.

    Args:
        name: of a model on the Hub, or its directory.
        setting: where it computes.
        pool: "cls" is the first token of the last layer, "mean" the mean of all; "auto" is what
            the model gives for a text where it is made for that (CLIP), else "mean".
        tokens: of which a text may have so many, or as many as the model takes; it is cut there.
    """
    if tokens < 3:
        raise MediaError(f"tokens: expected at least 3, got {tokens}")
    model, content = _model(name, setting, pool)
    tokenizer = _loader("AutoTokenizer", name, "text")
    return _TextNetwork(model, tokenizer, setting, pool, tokens, content)


class _TextNetwork:
    """An `Encoder` of texts."""

    sequence = False

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        setting: Setting,
        pool: str,
        tokens: int,
        content: dict[str, Any],
    ) -> None:
        config: Any = model.config
        config = getattr(config, "text_config", None) or config
        room = getattr(config, "max_position_embeddings", None) or tokens
        # RoBERTa counts its positions from behind that of the padding.
        room -= config.pad_token_id + 1 if "roberta" in str(config.model_type) else 0
        self._most = min(tokens, tokenizer.model_max_length, room)
        self.request: Request = Text()
        self.content = {**content, "tokens": self._most, "vocabulary": _vocabulary(tokenizer)}
        self._tokenizer, self._setting, self._pool = tokenizer, setting, pool
        self._tower = getattr(model, "text_model", model)
        self._project = getattr(model, "get_text_features", None) if pool == "auto" else None
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.size = self._features([self._tokens(" ")[: self._most]]).shape[1]

    def encode(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The features (D,) of each text; cut where it has more tokens than are taken."""
        ids = [self._tokens(str(piece.values)) for piece in pieces]
        # Those of about one length beside each other, so that little is padded.
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out: dict[int, Array] = {}
        for part in batches(order, self._setting.batch_size):
            out.update(zip(part, self._features([ids[i] for i in part]), strict=True))
        return [Piece(out[i], len(each) > self._most) for i, each in enumerate(ids)]

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, verbose=False)["input_ids"]
        # With what an uncut text ends with: [SEP], </s>.
        return ids or [self._tokenizer.pad_token_id or 0]

    @torch.inference_mode()
    def _features(self, texts: list[list[int]]) -> Array:
        """(n, D) float32."""
        cut = [t if len(t) <= self._most else [*t[: self._most - 1], t[-1]] for t in texts]
        filled = self._tokenizer.pad({"input_ids": cut}, return_tensors="pt").to(
            self._setting.device
        )
        ids, mask = filled["input_ids"], filled["attention_mask"]
        if self._project is not None:
            return as_features(_projected(self._project(input_ids=ids, attention_mask=mask)))
        hidden = self._tower(input_ids=ids, attention_mask=mask).last_hidden_state
        if self._pool == "cls":
            return as_features(hidden[:, 0])
        valid = mask[..., None].to(hidden.dtype)
        return as_features((hidden * valid).sum(1) / valid.sum(1))


def _model(name: str, setting: Setting, pool: str) -> tuple[Any, dict[str, Any]]:
    """The model, and what its features depend on: its configuration, its weights, and the pool."""
    if pool not in POOLS:
        raise MediaError(f"pool: expected one of {', '.join(POOLS)}, got {pool!r}")
    if find_spec("transformers") is None:
        raise MediaError('hf: needs transformers (pip install "fastmtl-torch[media]")')
    import transformers

    with _plainly(name, "a model"), _quietly():
        model, told = transformers.AutoModel.from_pretrained(name, output_loading_info=True)
    # A pooling layer that the weights are without is drawn at random; no features come from it.
    absent = sorted(key for key in told["missing_keys"] if "pool" not in key)
    if absent:
        raise MediaError(f"hf:{name}: its weights are not all there: without {absent[0]}")
    weights = {k: v for k, v in model.state_dict().items() if k not in told["missing_keys"]}
    content = {"class": type(model).__name__, "weights": digest(weights), "pool": pool}
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    return placed(model, setting), content


def _loader(kind: str, name: str, what: str) -> Any:
    """The processor, feature extractor or tokenizer of a model."""
    import transformers

    with _plainly(name, f"a model of {what} ({kind})"), _quietly():
        return getattr(transformers, kind).from_pretrained(name)


@contextmanager
def _plainly(name: str, expected: str) -> Iterator[None]:
    """Whatever `transformers` raises for a name, in one line."""
    try:
        yield
    except MediaError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise MediaError(f"hf:{name}: expected {expected}, got none ({reason})") from None


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the bars and the advice of `transformers`."""
    from transformers.utils import logging as told

    level, shown = told.get_verbosity(), told.is_progress_bar_enabled()
    told.set_verbosity(logging.CRITICAL)
    told.disable_progress_bar()
    try:
        yield
    finally:
        told.set_verbosity(level)
        if shown:
            told.enable_progress_bar()


def _picture(name: str, processor: dict[str, Any]) -> Picture:
    """The form of frames that an image processor asks for."""
    size, crop = (processor.get(key) or {} for key in ("size", "crop_size"))
    chosen = _FILTERS.get(int(processor.get("resample") or 0), "BICUBIC")
    cropped = _sides(crop) if processor.get("do_center_crop") and crop else None
    whole = _sides(size)
    if whole and not cropped:
        return Picture(whole, filter=chosen)
    if shorter := size.get("shortest_edge") or min(whole or cropped or (0,)):
        square = cropped or (shorter, shorter)
        return Picture(square, shorter=max(shorter, *square), filter=chosen)
    raise MediaError(f"hf:{name}: expected a size of images in its processor, got {size}")


def _sides(size: dict[str, Any]) -> tuple[int, int] | None:
    if size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    return None


def _plain(value: Any) -> Any:
    """What of a processor's settings JSON can hold."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "items"):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, np.ndarray):
        return digest({"values": torch.from_numpy(value)})
    return _plain(vars(value)) if hasattr(value, "__dict__") else str(value)


def _projected(output: Any) -> Tensor:
    """What a model of two modalities makes of one, whichever way its version gives it."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _vocabulary(tokenizer: Any) -> str:
    """A hash of which token has which number."""
    numbers = sorted(tokenizer.get_vocab().items())
    return digest({}, repr(numbers))
