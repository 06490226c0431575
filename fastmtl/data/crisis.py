"""Synthetic posts of a crisis: text and image, and three multi-class tasks."""

from __future__ import annotations

import numpy as np

from fastmtl.data.budget import Budget
from fastmtl.data.dataset import MultiTaskData
from fastmtl.data.errors import DataError

# The tasks of CrisisMMD (Alam et al. 2018), and about the shares that their classes have there.
TASKS = {
    "informative": {"not_informative": 0.35, "informative": 0.65},
    "humanitarian": {
        "not_humanitarian": 0.45,
        "other_relevant_information": 0.25,
        "rescue_volunteering_or_donation_effort": 0.15,
        "infrastructure_and_utility_damage": 0.10,
        "affected_individuals": 0.05,
    },
    "damage": {"little_or_no_damage": 0.20, "mild_damage": 0.30, "severe_damage": 0.50},
}
_COMMON = 0.7
_LEAST_POSTS = 100


def crisis(
    posts: int = 1000,
    text: int = 100,
    image: int = 128,
    *,
    signal: float = 2.0,
    missing: float = 0.0,
    seed: int = 0,
    split_seed: int = 0,
) -> MultiTaskData:
    """Posts with a `text` (N, D) and an `image` (N, D) and the three tasks of CrisisMMD, split
    60/20/20.

    A post's classes are where three scores lie that share how grave it is, so that tasks help each
    other. Each class has a direction in each modality, to which a post of the class is moved.

    Args:
        posts: N.
        text: features of this modality.
        image: features of this modality.
        signal: how far, in standard deviations of the noise.
        missing: share of the labels that is hidden.
        seed: draws the posts.
        split_seed: draws the split.

    Raises:
        DataError: for an argument out of range.

    Examples:
        >>> data = crisis(posts=100, text=8, image=6)
        >>> data.tasks.sizes, data.modalities
        ((2, 5, 3), {'text': (8,), 'image': (6,)})
    """
    name, sizes = "synthetic:crisis", {"text": text, "image": image}
    least = {"posts": _LEAST_POSTS, "text": 1, "image": 1, "seed": 0, "signal": 0}
    given = {"posts": posts, "seed": seed, "signal": signal, **sizes}
    for option, value in given.items():
        if not least[option] <= value < np.inf:
            raise DataError.at(name, option, f"a number >= {least[option]}", str(value))
    if not 0 <= missing < 1:
        raise DataError.at(name, "missing", "a number from 0 to below 1", str(missing))
    Budget(name).take("posts", 8 * posts * sum(sizes.values()))
    rng = np.random.default_rng(seed)
    grave = rng.standard_normal(posts)
    codes = {}
    for task, classes in TASKS.items():
        score = _COMMON * grave + np.sqrt(1 - _COMMON**2) * rng.standard_normal(posts)
        # Ranks, so that every class has its share.
        rank = np.argsort(np.argsort(score, kind="stable"), kind="stable") + 0.5
        codes[task] = np.searchsorted(np.cumsum(list(classes.values()))[:-1], rank / posts)
    x = {modality: rng.standard_normal((posts, size)) for modality, size in sizes.items()}
    for task, classes in TASKS.items():
        for features in x.values():
            directions = rng.standard_normal((len(classes), features.shape[1]))
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            features += signal * directions[codes[task]]
    hidden = {task: rng.random(posts) < missing for task in TASKS}
    return MultiTaskData.from_arrays(
        {modality: value.astype(np.float32) for modality, value in x.items()},
        None,
        classes={task: np.where(hidden[task], -1, codes[task]) for task in TASKS},
        class_names={task: list(classes) for task, classes in TASKS.items()},
        name=name,
        seed=split_seed,
    )
