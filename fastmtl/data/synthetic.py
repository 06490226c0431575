"""Synthetic disaster videos: clips of frame features with seven concepts that come and go; and the
posts of `crisis`.

How a set is drawn, and how hard it is, stands in docs/data.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastmtl.data.budget import Budget
from fastmtl.data.clips import (
    CLIPS,
    CONCEPTS,
    FloatArray,
    clear_padding,
    draw_activity,
    draw_directions,
    draw_factors,
    draw_joint_signs,
    draw_labels,
    draw_lengths,
    draw_sequences,
    hide,
)
from fastmtl.data.crisis import crisis
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError

__all__ = ["crisis", "disaster", "disaster_multimodal"]

_VIDEO_GAIN = 2.0  # a concept is in a third of the frames, and in all of a vector
_STRONGEST = 1e6
_ACTIVITY_BYTES = 400  # of a frame, while the strengths of concepts and distractors are drawn


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
    labels = draw_labels(name, clips, positives, cooccurrence, np.random.default_rng(streams[0]))
    rng = np.random.default_rng(streams[1])
    lengths = draw_lengths(name, clips, frames, min_frames, rng)
    strengths = signal * draw_factors(difficulty, rng)
    activity = draw_activity(labels, lengths, frames, strengths, clutter, rng)
    directions = draw_directions(activity.shape[2], features, overlap, rng)
    x = draw_sequences(activity, directions, background, persistence, streams[2])
    clear_padding(x, lengths)
    return MultiTaskData.from_arrays(
        x,
        hide(labels, missing, np.random.default_rng(streams[3])),
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
    labels = draw_labels(name, clips, positives, cooccurrence, np.random.default_rng(streams[0]))
    rng = np.random.default_rng(streams[1])
    lengths = draw_lengths(name, clips, frames, min_frames, rng)
    signs = draw_joint_signs(labels, joint, np.random.default_rng(streams[4]))
    x: dict[str, FloatArray] = {}
    for i, (modality, features) in enumerate(sizes.items()):
        steps = frames if modality == "video" else 1
        gain = signal * (_VIDEO_GAIN if modality == "video" else 1.0)
        valid = np.minimum(lengths, steps)
        strengths = gain * draw_factors(visibility, rng)
        activity = draw_activity(labels, valid, steps, strengths, clutter, rng)
        extra = interaction * np.broadcast_to(signs[i][:, None], (clips, steps, joint))
        activity = np.concatenate([activity, extra.astype(np.float32)], axis=2)
        directions = draw_directions(activity.shape[2], features, overlap, rng)
        stream = streams[2].spawn(1)[0]
        value = draw_sequences(activity, directions, background, persistence, stream)
        clear_padding(value, valid)
        x[modality] = value if modality == "video" else value[:, 0]
    return MultiTaskData.from_arrays(
        x,
        hide(labels, missing, np.random.default_rng(streams[3])),
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
