"""What the scripts of this folder share: the files of the data sets, figures, cells of a table."""

from __future__ import annotations

import statistics

FILES = {
    "natural_scene": "natural_scene.npz",
    "mosi": "mosi.npz",
    "yt8m_top100": "yt8m_top100.npz",
    "scene": "mulan/scene-train.arff",
    "yeast": "mulan/yeast-train.arff",
}
METRICS = ("micro_f1", "hamming_loss", "map")


def mean_and_deviation(values: list[float]) -> str:
    """The mean, with the deviation where there is more than one value.

    Examples:
        >>> mean_and_deviation([0.5]), mean_and_deviation([0.5, 0.7])
        ('0.5000', '0.6000 ± 0.1414')
    """
    text = f"{statistics.mean(values):.4f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.4f}"
