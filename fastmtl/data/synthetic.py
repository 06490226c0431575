"""Synthetic disaster videos: clips of frame features with seven concepts that come and go; and the
posts of `crisis`.

How a set is drawn, and how hard it is, stands in docs/data.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastmtl.data.budget import Budget
from fastmtl.data.crisis import crisis
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError

__all__ = ["crisis", "disaster", "disaster_multimodal"]

CONCEPTS = (
    "demo",
    "emergency_response",
    "flood_storm",
    "human_relief",
    "damage",
    "victim",
    "briefing",
)
CLIPS = 1540
POSITIVES = (150, 338, 971, 273, 371, 311, 811)
_NUM_DISTRACTORS = 12
_NUM_SCENES = 16
_FACTORS = 3
_SPAN = (0.15, 0.5)
_VIDEO_GAIN = 2.0  # a concept is in a third of the frames, and in all of a vector
_STRONGEST = 1e6
_CHUNK_BYTES = 16 << 20
_ACTIVITY_BYTES = 400  # of a frame, while the strengths of concepts and distractors are drawn

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


def disaster(
    clips: int = CLIPS,
    frames: int = 40,
    features: int = 128,
    *,
    positives: Sequence[int] | None = None,
    signal: float = 3.0,
    difficulty: float = 0.4,
    overlap: float = 0.3,
    cooccurrence: float = 0.5,
    clutter: float = 2.0,
    background: float = 1.0,
    persistence: float = 0.8,
    min_frames: int | None = None,
    missing: float = 0.0,
    seed: int = 0,
    split_seed: int = 0,
) -> MultiTaskData:
    """Clips (N, L, D) with seven concepts, split 60/20/20.

    Each concept has a direction in feature space; a clip that is positive for it shows that
    direction in one contiguous window of its frames, under autocorrelated noise, a background that
    stays through the clip, and distractors that come and go like the concepts.

    Args:
        clips: N.
        frames: L.
        features: D; 2048 is the size of Inception features, 505 MB.
        positives: number of positive clips of each concept; by default 150, 338, 971, 273, 371,
            311, 811 of 1540, in proportion for other numbers of clips.
        signal: mean strength of a concept, in standard deviations of the noise.
        difficulty: concepts differ in strength by factors from 1 - difficulty to 1 + difficulty.
        overlap: expected cosine of two concepts' (or distractors') directions.
        cooccurrence: share of the labels' latent variance that concepts have in common.
        clutter: strength of the distractors.
        background: strength of the clip's constant background.
        persistence: correlation of the noise of successive frames.
        min_frames: with it, clips have from `min_frames` to `frames` frames, and `lengths`.
        missing: share of the labels that is hidden (NaN).
        seed: draws the clips.
        split_seed: draws the split.

    Raises:
        DataError: for an argument out of range.

    Examples:
        >>> data = disaster(clips=154, frames=8, features=16)
        >>> data.x.shape, data.y.sum(0).int().tolist()
        (torch.Size([154, 8, 16]), [15, 34, 97, 27, 37, 31, 81])
    """
    name = "synthetic:disaster"
    _check_sizes(name, clips=clips, frames=frames, features=features)
    _check_memory(name, clips, frames, features, 0)
    _check_knobs(name, overlap, cooccurrence, persistence, difficulty, missing)
    _check_strengths(name, signal=signal, clutter=clutter, background=background)
    streams = np.random.SeedSequence(_checked_seed(name, seed)).spawn(5)
    labels = _labels(name, clips, positives, cooccurrence, np.random.default_rng(streams[0]))
    rng = np.random.default_rng(streams[1])
    lengths = _lengths(name, clips, frames, min_frames, rng)
    strengths = signal * _factors(difficulty, rng)
    activity = _activity(labels, lengths, frames, strengths, clutter, rng)
    directions = _directions(activity.shape[2], features, overlap, rng)
    x = _sequences(activity, directions, background, persistence, streams[2])
    _clear_padding(x, lengths)
    return MultiTaskData.from_arrays(
        x,
        _hide(labels, missing, np.random.default_rng(streams[3])),
        lengths=None if min_frames is None else lengths,
        label_names=CONCEPTS,
        name=name,
        seed=split_seed,
    )


def disaster_multimodal(
    clips: int = CLIPS,
    frames: int = 40,
    text: int = 100,
    audio: int = 73,
    video: int = 128,
    *,
    positives: Sequence[int] | None = None,
    signal: float = 1.5,
    visibility: float = 0.5,
    joint: int = 2,
    interaction: float = 2.0,
    overlap: float = 0.3,
    cooccurrence: float = 0.5,
    clutter: float = 1.5,
    background: float = 1.0,
    persistence: float = 0.8,
    min_frames: int | None = None,
    missing: float = 0.0,
    seed: int = 0,
    split_seed: int = 0,
) -> MultiTaskData:
    """The same clips in three modalities: `text` (N, D), `audio` (N, D) and `video` (N, L, D).

    The arguments of `disaster` mean the same here; those that it does not have are listed.

    Args:
        text: features of this modality.
        audio: features of this modality.
        video: features of this modality.
        visibility: a concept's strength in a modality is `signal` times a factor drawn from
            1 - visibility to 1 + visibility, so concepts differ in where they show.
        joint: number of concepts (0 to 7, drawn at random) that also show in how two modalities go
            together: in each of the two, one more direction appears with a random sign, and the
            signs agree in positive clips and differ in negative ones, so neither modality alone
            tells.
        interaction: strength of these directions.

    Raises:
        DataError: for an argument out of range.

    Examples:
        >>> disaster_multimodal(clips=154, frames=8).modalities
        {'text': (100,), 'audio': (73,), 'video': (8, 128)}
    """
    name = "synthetic:disaster-multimodal"
    sizes = {"text": text, "audio": audio, "video": video}
    _check_sizes(name, clips=clips, frames=frames, **sizes)
    _check_memory(name, clips, frames, video, text + audio)
    _check_knobs(name, overlap, cooccurrence, persistence, visibility, missing)
    _check_strengths(
        name, signal=signal, clutter=clutter, background=background, interaction=interaction
    )
    if not 0 <= joint <= len(CONCEPTS):
        raise DataError.at(name, "joint", f"from 0 to {len(CONCEPTS)} concepts", str(joint))
    streams = np.random.SeedSequence(_checked_seed(name, seed)).spawn(5)
    labels = _labels(name, clips, positives, cooccurrence, np.random.default_rng(streams[0]))
    rng = np.random.default_rng(streams[1])
    lengths = _lengths(name, clips, frames, min_frames, rng)
    signs = _joint_signs(labels, joint, np.random.default_rng(streams[4]))
    x: dict[str, FloatArray] = {}
    for i, (modality, features) in enumerate(sizes.items()):
        steps = frames if modality == "video" else 1
        gain = signal * (_VIDEO_GAIN if modality == "video" else 1.0)
        valid = np.minimum(lengths, steps)
        strengths = gain * _factors(visibility, rng)
        activity = _activity(labels, valid, steps, strengths, clutter, rng)
        extra = interaction * np.broadcast_to(signs[i][:, None], (clips, steps, joint))
        activity = np.concatenate([activity, extra.astype(np.float32)], axis=2)
        directions = _directions(activity.shape[2], features, overlap, rng)
        stream = streams[2].spawn(1)[0]
        value = _sequences(activity, directions, background, persistence, stream)
        _clear_padding(value, valid)
        x[modality] = value if modality == "video" else value[:, 0]
    return MultiTaskData.from_arrays(
        x,
        _hide(labels, missing, np.random.default_rng(streams[3])),
        lengths=None if min_frames is None else lengths,
        label_names=CONCEPTS,
        name=name,
        seed=split_seed,
    )


def _check_sizes(name: str, **sizes: int) -> None:
    for option, value in sizes.items():
        least = 5 if option == "clips" else 1
        if value < least:
            raise DataError.at(name, option, f"at least {least}", str(value))


def _check_memory(name: str, clips: int, frames: int, of_frame: int, of_clip: int) -> None:
    values = clips * (frames * of_frame + of_clip)
    Budget(name).take("clips and frames", 4 * values + _ACTIVITY_BYTES * clips * frames)


def _check_knobs(
    name: str,
    overlap: float,
    cooccurrence: float,
    persistence: float,
    spread: float,
    missing: float,
) -> None:
    shares = {
        "overlap": overlap,
        "cooccurrence": cooccurrence,
        "persistence": persistence,
        "difficulty or visibility": spread,
        "missing": missing,
    }
    for option, value in shares.items():
        if not 0 <= value < 1:
            raise DataError.at(name, option, "a number from 0 to below 1", str(value))


def _check_strengths(name: str, **strengths: float) -> None:
    for option, value in strengths.items():
        if not 0 <= value <= _STRONGEST:
            expected = f"a number from 0 to {_STRONGEST:g}"
            raise DataError.at(name, option, expected, str(value))


def _checked_seed(name: str, seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed: expected an integer >= 0, got {seed!r}")
    if seed < 0:
        raise DataError.at(name, "seed", "an integer >= 0", str(seed))
    return seed


def _labels(
    name: str,
    clips: int,
    positives: Sequence[int] | None,
    cooccurrence: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Labels (N, T) with exact counts: a Gaussian copula, cut where each count is reached."""
    if positives is None:
        positives = [min(max(round(n * clips / CLIPS), 1), clips - 1) for n in POSITIVES]
    if len(positives) != len(CONCEPTS) or not all(0 < n < clips for n in positives):
        expected = f"{len(CONCEPTS)} counts from 1 to {clips - 1}"
        raise DataError.at(name, "positives", expected, str(list(positives)))
    loadings = rng.standard_normal((_FACTORS, len(CONCEPTS)))
    loadings *= np.sqrt(cooccurrence) / np.linalg.norm(loadings, axis=0)
    own = rng.standard_normal((clips, len(CONCEPTS))) * np.sqrt(1 - cooccurrence)
    latent = rng.standard_normal((clips, _FACTORS)) @ loadings + own
    rank = np.argsort(np.argsort(-latent, axis=0, kind="stable"), axis=0, kind="stable")
    return (rank < np.array(positives)).astype(np.float32)


def _hide(labels: FloatArray, missing: float, rng: np.random.Generator) -> Tensor:
    hidden = rng.random(labels.shape) < missing
    return torch.from_numpy(np.where(hidden, np.float32("nan"), labels))


def _lengths(
    name: str, clips: int, frames: int, min_frames: int | None, rng: np.random.Generator
) -> IntArray:
    if min_frames is None:
        return np.full(clips, frames, dtype=np.int64)
    if not 1 <= min_frames <= frames:
        raise DataError.at(name, "min_frames", f"from 1 to {frames} frames", str(min_frames))
    return rng.integers(min_frames, frames, size=clips, endpoint=True)


def _factors(spread: float, rng: np.random.Generator) -> FloatArray:
    """Evenly spaced strengths from 1 - spread to 1 + spread, in random order, (T,)."""
    return rng.permutation(np.linspace(1 - spread, 1 + spread, len(CONCEPTS))).astype(np.float32)


def _activity(
    labels: FloatArray,
    lengths: IntArray,
    frames: int,
    strengths: FloatArray,
    clutter: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Strength of each concept, then of each distractor, in each frame: (N, L, K).

    Each of the K shows in one window of 15% to 50% of the clip's frames, with a strength that
    varies by clip (log-normal, mean 1). A distractor is in a quarter of the clips, whatever their
    labels.
    """
    clips = len(labels)
    distractors = rng.random((clips, _NUM_DISTRACTORS)) < 0.25
    scale = np.concatenate([labels * strengths, distractors * np.float32(clutter)], axis=1)
    shape = scale.shape
    scale = scale * np.exp(0.4 * rng.standard_normal(shape) - 0.08)
    span = np.maximum(np.rint(rng.uniform(*_SPAN, shape) * lengths[:, None]), 1)
    start = np.floor(rng.random(shape) * (lengths[:, None] - span + 1))
    step = np.arange(frames)[None, :, None]
    inside = (step >= start[:, None]) & (step < (start + span)[:, None])
    return np.asarray(inside * scale[:, None], dtype=np.float32)


def _joint_signs(
    labels: FloatArray, joint: int, rng: np.random.Generator
) -> list[NDArray[np.float64]]:
    """Signs (N, joint) for text, audio and video, 0 for the modality that has no part."""
    signs = [np.zeros((len(labels), joint)) for _ in range(3)]
    concepts = rng.permutation(len(CONCEPTS))[:joint]
    for column, concept in enumerate(concepts.tolist()):
        first, second = rng.permutation(3)[:2].tolist()
        sign = rng.choice([-1.0, 1.0], size=len(labels))
        signs[first][:, column] = sign
        signs[second][:, column] = sign * (2 * labels[:, concept] - 1)
    return signs


def _directions(count: int, features: int, overlap: float, rng: np.random.Generator) -> FloatArray:
    """Unit vectors (K, D) whose expected cosine is `overlap`."""
    common, own = rng.standard_normal(features), rng.standard_normal((count, features))
    common /= np.linalg.norm(common)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    mixed = np.sqrt(overlap) * common + np.sqrt(1 - overlap) * own
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.asarray(mixed, dtype=np.float32)


def _sequences(
    activity: FloatArray,
    directions: FloatArray,
    background: float,
    persistence: float,
    stream: np.random.SeedSequence,
) -> FloatArray:
    """Features (N, L, D): noise of unit variance, background, and what is active.

    Filled in place, a few clips at a time.
    """
    clips, frames, _ = activity.shape
    features = directions.shape[1]
    noise, scenes = (np.random.default_rng(s) for s in stream.spawn(2))
    scene = scenes.standard_normal((_NUM_SCENES, features), dtype=np.float32)
    scene /= np.linalg.norm(scene, axis=1, keepdims=True)
    place = np.float32(background) * scenes.standard_normal((clips, _NUM_SCENES), dtype=np.float32)
    fresh = np.float32(np.sqrt(1 - persistence**2))
    x = np.empty((clips, frames, features), dtype=np.float32)
    rows = max(_CHUNK_BYTES // (4 * frames * features), 1)
    for begin in range(0, clips, rows):
        part = x[begin : begin + rows]
        noise.standard_normal(out=part, dtype=np.float32)
        for step in range(1, frames):
            part[:, step] *= fresh
            part[:, step] += np.float32(persistence) * part[:, step - 1]
        part += activity[begin : begin + rows] @ directions
        part += (place[begin : begin + rows] @ scene)[:, None]
    return x


def _clear_padding(x: FloatArray, lengths: IntArray) -> None:
    for clip in np.flatnonzero(lengths < x.shape[1]):
        x[clip, lengths[clip] :] = 0.0
