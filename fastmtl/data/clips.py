"""How a clip of the synthetic disaster sets is drawn: labels, what shows when, and features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastmtl.data.errors import DataError

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
_CHUNK_BYTES = 16 << 20

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


def draw_labels(
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


def hide(labels: FloatArray, missing: float, rng: np.random.Generator) -> Tensor:
    """The labels (N, T), a share of them NaN."""
    hidden = rng.random(labels.shape) < missing
    return torch.from_numpy(np.where(hidden, np.float32("nan"), labels))


def draw_lengths(
    name: str, clips: int, frames: int, min_frames: int | None, rng: np.random.Generator
) -> IntArray:
    """How many frames each clip has, (N,)."""
    if min_frames is None:
        return np.full(clips, frames, dtype=np.int64)
    if not 1 <= min_frames <= frames:
        raise DataError.at(name, "min_frames", f"from 1 to {frames} frames", str(min_frames))
    return rng.integers(min_frames, frames, size=clips, endpoint=True)


def draw_factors(spread: float, rng: np.random.Generator) -> FloatArray:
    """Evenly spaced strengths from 1 - spread to 1 + spread, in random order, (T,)."""
    return rng.permutation(np.linspace(1 - spread, 1 + spread, len(CONCEPTS))).astype(np.float32)


def draw_activity(
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


def draw_joint_signs(
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


def draw_directions(
    count: int, features: int, overlap: float, rng: np.random.Generator
) -> FloatArray:
    """Unit vectors (K, D) whose expected cosine is `overlap`."""
    common, own = rng.standard_normal(features), rng.standard_normal((count, features))
    common /= np.linalg.norm(common)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    mixed = np.sqrt(overlap) * common + np.sqrt(1 - overlap) * own
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    return np.asarray(mixed, dtype=np.float32)


def draw_sequences(
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


def clear_padding(x: FloatArray, lengths: IntArray) -> None:
    """Set the frames beyond a clip's length to 0 in (N, L, D)."""
    for clip in np.flatnonzero(lengths < x.shape[1]):
        x[clip, lengths[clip] :] = 0.0
