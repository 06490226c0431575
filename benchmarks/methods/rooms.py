"""Rooms: pictures with a class, a depth and a normal at every point, as of indoor scenes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.methods.problem import Network, Problem, Score, convolution
from fastmtl.nn import TaskFork

WALL, FLOOR, BALL, BOX, ROLL = range(5)
CLASSES = 5
SIZE = 32
# The channels of each task's output.
CHANNELS = {"segmentation": CLASSES, "depth": 1, "normals": 3}


class Rooms(Problem):
    """Segmentation by cross-entropy, depth by its absolute error, normals by 1 - cosine."""

    batch_size, epochs = 16, 12

    def __init__(
        self, train: list[Tensor], test: list[Tensor], tasks: tuple[str, ...] = tuple(CHANNELS)
    ) -> None:
        super().__init__("rooms", len(tasks), train, test)
        self.tasks = tasks

    def network(self, width: int = 1) -> Network:
        size = 12 * width
        trunk = nn.Sequential(
            convolution(3, size), convolution(size, 2 * size, 2), convolution(2 * size, 2 * size)
        )
        heads = MapHeads([MapHead(2 * size, size, CHANNELS[task]) for task in self.tasks])
        return Network(trunk, TaskFork(self.num_tasks), heads)

    def losses(self, outputs: list[Tensor], targets: list[Tensor]) -> Tensor:
        classes, depth, normals = targets
        losses = {
            "segmentation": lambda out: F.cross_entropy(out, classes),
            "depth": lambda out: F.l1_loss(out, depth),
            "normals": lambda out: 1 - F.cosine_similarity(out, normals).mean(),
        }
        pairs = zip(self.tasks, outputs, strict=True)
        return torch.stack([losses[task](out) for task, out in pairs])

    def scores(self, outputs: list[Tensor], targets: list[Tensor]) -> list[Score]:
        """Mean intersection over union and accuracy; absolute and relative error; mean angle and
        the share of points within 11.25 degrees."""
        classes, depth, normals = targets
        found = []
        for index, (task, out) in enumerate(zip(self.tasks, outputs, strict=True)):
            if task == "segmentation":
                guess = out.argmax(1)
                found.append(Score(index, mean_overlap(guess, classes)))
                found.append(Score(index, float((guess == classes).float().mean())))
            elif task == "depth":
                error = (out - depth).abs()
                found.append(Score(index, float(error.mean()), higher_is_better=False))
                found.append(Score(index, float((error / depth).mean()), higher_is_better=False))
            else:
                cosine = F.cosine_similarity(out, normals).clamp(-1, 1)
                angle = cosine.acos() * (180 / math.pi)
                found.append(Score(index, float(angle.mean()), higher_is_better=False))
                found.append(Score(index, float((angle < 11.25).float().mean())))
        return found

    def alone(self, task: int) -> Problem:
        return Rooms(self.train, self.test, (self.tasks[task],))


class MapHead(nn.Sequential):
    """(N, C, H, W) -> (N, C', 2 H, 2 W)."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__(
            convolution(inputs, hidden),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(hidden, outputs, 3, 1, 1),
        )


class MapHeads(nn.Module):
    """A network of its own for each task."""

    def __init__(self, heads: list[MapHead]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, views: Tensor) -> list[Tensor]:
        return [head(view) for head, view in zip(self.heads, views, strict=True)]


def mean_overlap(guess: Tensor, classes: Tensor) -> float:
    """Intersection over union, averaged over the classes that there are."""
    ratios = []
    for each in range(CLASSES):
        both, either = (guess == each) & (classes == each), (guess == each) | (classes == each)
        if either.any():
            ratios.append(float(both.sum() / either.sum()))
    return sum(ratios) / len(ratios)


def rooms(samples: int = 240, tests: int = 160) -> Rooms:
    """Three objects each before a wall and a floor, lit from above, dim in the distance."""
    make = torch.Generator().manual_seed(0)
    scenes = draw_rooms(samples + tests, make)
    train, test = zip(*(part.split([samples, tests]) for part in scenes), strict=True)
    return Rooms(list(train), list(test))


def draw_rooms(count: int, make: torch.Generator) -> list[Tensor]:
    """Pictures (N, 3, H, W), classes (N, H, W), depth (N, 1, H, W), normals (N, 3, H, W)."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, 1, 1, generator=make)

    axis = torch.linspace(-1, 1, SIZE)
    down, across = torch.meshgrid(axis, axis, indexing="ij")
    turn = uniform(-0.6, 0.6)
    depth = uniform(4, 6) + turn * across
    normals = _unit(-turn, torch.zeros(1), -torch.ones(1, 1, 1), depth)
    horizon = uniform(0.2, 0.5)
    floor = down > horizon
    classes = torch.where(floor, FLOOR, WALL).expand(count, -1, -1)
    depth = torch.where(floor, depth - 2 * (down - horizon), depth)
    normals = torch.where(
        floor.unsqueeze(1), torch.tensor([0.0, -1.0, 0.0])[:, None, None], normals
    )
    for nearness in (3.5, 2.8, 2.1):  # the nearer ones are painted later
        kind = torch.randint(BALL, CLASSES, (count, 1, 1), generator=make)
        x, y = (across - uniform(-0.7, 0.7)), (down - uniform(-0.3, 0.7))
        radius = uniform(0.2, 0.45)
        u, v = x / radius, y / radius
        tilt = uniform(-0.8, 0.8)
        bulge = {
            BALL: (1 - u.square() - v.square()).clamp(min=0).sqrt(),
            BOX: -tilt * u,
            ROLL: (1 - u.square()).clamp(min=0).sqrt(),
        }
        inside = {
            BALL: u.square() + v.square() < 1,
            BOX: torch.maximum(u.abs(), v.abs()) < 0.9,
            ROLL: (u.abs() < 1) & (v.abs() < 1.2),
        }
        faces = {
            BALL: _unit(u, v, -bulge[BALL], depth),
            BOX: _unit(tilt, torch.zeros(1), -torch.ones(1, 1, 1), depth),
            ROLL: _unit(u, torch.zeros(1), -bulge[ROLL], depth),
        }
        middle = uniform(0, 0.5) + nearness
        for each in (BALL, BOX, ROLL):
            seen = inside[each] & (kind == each)
            classes = torch.where(seen, each, classes)
            depth = torch.where(seen, middle - radius * bulge[each], depth)
            normals = torch.where(seen.unsqueeze(1), faces[each], normals)
    return [_light(classes, depth, normals, make), classes, depth.unsqueeze(1), normals]


def _unit(x: Tensor, y: Tensor, z: Tensor, like: Tensor) -> Tensor:
    """The direction of a vector, (N, 3, H, W)."""
    return F.normalize(torch.stack([part.expand_as(like) for part in (x, y, z)], 1), dim=1)


def _light(classes: Tensor, depth: Tensor, normals: Tensor, make: torch.Generator) -> Tensor:
    """Colours around those of a class, shaded, dim in the distance, and noise."""
    colours = torch.tensor(
        [[0.8, 0.8, 0.7], [0.5, 0.35, 0.2], [0.8, 0.3, 0.3], [0.3, 0.5, 0.8], [0.4, 0.7, 0.4]]
    )
    colours = colours + 0.15 * torch.randn(len(classes), CLASSES, 3, generator=make)
    rows = torch.arange(len(classes))[:, None, None]
    albedo = colours[rows, classes].permute(0, 3, 1, 2)
    light = F.normalize(torch.tensor([0.4, -0.7, -0.6]), dim=0)
    shade = 0.35 + 0.65 * (normals * light[:, None, None]).sum(1, keepdim=True).clamp(min=0)
    picture = albedo * shade * torch.exp(-0.15 * depth).unsqueeze(1)
    return 2 * picture - 0.5 + 0.05 * torch.randn(picture.shape, generator=make)
