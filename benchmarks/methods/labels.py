"""Problems of many labels: features from a file, and pictures that are drawn like faces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.methods.problem import Network, Problem, Score, convolution
from fastmtl import data
from fastmtl.nn import SharedLinear, TaskLinear
from fastmtl.ops import focal_loss

Trunk = Callable[[int], nn.Module]


class Labels(Problem):
    """Each label is a task: binary cross-entropy, measured by average precision.

    `trunk` makes what is before the shared layer for a width, ending in 64 features a width.
    """

    batch_size = 64

    def __init__(
        self,
        name: str,
        trunk: Trunk,
        train: list[Tensor],
        test: list[Tensor],
        *,
        epochs: int,
        lr: float = 2e-3,
    ) -> None:
        super().__init__(name, train[1].shape[1], train, test)
        self.trunk, self.epochs, self.lr = trunk, epochs, lr

    def positives(self) -> list[float]:
        counts: list[float] = self.train[1].sum(0).clamp(min=1).tolist()
        return counts

    def network(self, width: int = 1) -> Network:
        size = 64 * width
        return Network(
            self.trunk(width),
            SharedLinear(size, size, self.num_tasks),
            LabelHeads(size, self.num_tasks),
        )

    def losses(self, outputs: list[Tensor], targets: list[Tensor]) -> Tensor:
        return focal_loss(outputs[0], targets[0], gamma=0.0)

    def scores(self, outputs: list[Tensor], targets: list[Tensor]) -> list[Score]:
        pairs = zip(outputs[0].unbind(1), targets[0].unbind(1), strict=True)
        return [Score(task, average_precision(*pair)) for task, pair in enumerate(pairs)]

    def alone(self, task: int) -> Problem:
        train, test = ([x, y[:, task : task + 1]] for x, y in (self.train, self.test))
        return Labels(self.name, self.trunk, train, test, epochs=self.epochs, lr=self.lr)


class LabelHeads(nn.Module):
    """(T, N, I) -> logits (N, T)."""

    def __init__(self, features: int, num_tasks: int) -> None:
        super().__init__()
        self.last = TaskLinear(features, 1, num_tasks)

    def forward(self, views: Tensor) -> list[Tensor]:
        return [self.last(views.relu()).squeeze(2).T]


def average_precision(logits: Tensor, targets: Tensor) -> float:
    """Precision, averaged over the positives in the order of their logits.

    Examples:
        >>> average_precision(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 0.0, 1.0]))
        0.8333333730697632
    """
    order = torch.nan_to_num(logits, nan=-torch.inf).argsort(descending=True, stable=True)
    hits = targets[order]
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / hits.sum().clamp(min=1))


def from_file(path: Path, *, rows: int, epochs: int, lr: float) -> Labels:
    """The features of a data file, flattened and standardised, of at most so many training and
    half as many test samples; labels that have a positive in both."""
    content = data.load(path)
    parts = content.x.values() if isinstance(content.x, dict) else [content.x]
    x = torch.cat([part[:].float().flatten(1) for part in parts], 1)
    kept = {"train": content.indices("train")[:rows], "test": content.indices("test")[: rows // 2]}
    train, test = kept["train"], kept["test"]
    x = (x - x[train].mean(0)) / x[train].std(0).clamp(min=1e-3)
    y = content.y.float()
    y = y[:, (y[train].sum(0) > 0) & (y[test].sum(0) > 0)]

    def trunk(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(x.shape[1], 64 * width), nn.ReLU())

    split = [[x[rows], y[rows]] for rows in (train, test)]
    return Labels(path.stem, trunk, *split, epochs=epochs, lr=lr)


def faces(samples: int = 1500, tests: int = 1000, size: int = 24) -> Labels:
    """Pictures (3, size, size) of ten factors that depend on each other, and 40 attributes, each
    of two or three of the factors and noise, that 3% to 50% of the pictures have."""
    make = torch.Generator().manual_seed(0)
    factors = torch.randn(samples + tests, 6, generator=make) @ torch.randn(6, 10, generator=make)
    factors = factors / factors.std(0) + 0.5 * torch.randn(factors.shape, generator=make)
    x = draw_faces(factors, size, make)
    chosen = torch.rand(40, 10, generator=make).argsort(1) < 2 + torch.arange(40).unsqueeze(1) % 2
    weights = chosen * torch.randn(40, 10, generator=make)
    values = factors @ weights.T
    values = values / values.std(0) + 0.3 * torch.randn(values.shape, generator=make)
    shares = torch.linspace(0.03, 0.5, 40)
    thresholds = [
        column.quantile(1 - share) for column, share in zip(values.T, shares, strict=True)
    ]
    y = (values > torch.stack(thresholds)).float()

    def trunk(width: int) -> nn.Module:
        return nn.Sequential(
            convolution(3, 8 * width, 2),
            convolution(8 * width, 16 * width, 2),
            convolution(16 * width, 16 * width, 2),
            nn.Flatten(),
            nn.Linear(16 * width * (size // 8) ** 2, 64 * width),
            nn.ReLU(),
        )

    cut = [samples, tests]
    (x_train, x_test), (y_train, y_test) = x.split(cut), y.split(cut)
    return Labels("faces", trunk, [x_train, y_train], [x_test, y_test], epochs=15)


def draw_faces(factors: Tensor, size: int, make: torch.Generator) -> Tensor:
    """(N, 10) -> (N, 3, size, size): a face, hair, eyes, a mouth, glasses and a beard."""
    count = len(factors)
    share = torch.sigmoid(factors)[:, :, None, None].unbind(1)  # of the range of each
    axis = torch.linspace(-1, 1, size)
    down, across = torch.meshgrid(axis, axis, indexing="ij")
    colours = torch.tensor(
        [[0.95, 0.8, 0.7], [0.4, 0.25, 0.2], [0.9, 0.8, 0.3], [0.1, 0.05, 0.0], [0.7, 0.1, 0.2]]
    )
    light_skin, dark_skin, light_hair, dark_hair, lips = colours[:, :, None, None]
    black = torch.zeros(3, 1, 1)

    def disc(x: Tensor, y: Tensor | float, radius: Tensor) -> Tensor:
        distance = ((across - x).square() + (down - y).square()).sqrt()
        return torch.sigmoid(30 * (radius - distance))

    def mix(first: Tensor, second: Tensor, part: Tensor) -> Tensor:
        return first + (second - first) * part.unsqueeze(1)

    picture = torch.rand(count, 3, 1, 1, generator=make).expand(-1, -1, size, size)
    hair = mix(light_hair, dark_hair, share[3])
    picture = mix(picture, hair, disc(torch.zeros(1), -0.15, 0.55 + 0.35 * share[2]))
    skin = mix(light_skin, dark_skin, share[1])
    width = 0.45 + 0.25 * share[0]
    face = torch.sigmoid(20 * (1 - ((across / width) ** 2 + (down / 0.75) ** 2).sqrt()))
    picture = mix(picture, skin, face)
    picture = mix(picture, hair, face * share[9] * torch.sigmoid(20 * (down - 0.25)))
    apart, radius = 0.15 + 0.15 * share[4], 0.04 + 0.1 * share[5]
    for side in (-apart, apart):
        ring = disc(side, -0.15, radius + 0.12) - disc(side, -0.15, radius + 0.05)
        picture = mix(picture, black, ring * (share[8] > 0.6))
        picture = mix(picture, black, disc(side, -0.15, radius))
    curve = 0.4 + (share[6] - 0.5) * 2 * (across.square() - 0.05)
    mouth = torch.sigmoid(30 * (0.06 - (down - curve).abs()))
    picture = mix(picture, lips, mouth * torch.sigmoid(30 * (0.1 + 0.25 * share[7] - across.abs())))
    return picture - 0.5 + 0.15 * torch.randn(picture.shape, generator=make)
