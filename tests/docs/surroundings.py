"""What the reader of a page has before its blocks: files, and the names of Python's blocks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import fastmtl
from fastmtl.export import export
from fastmtl.training import Predictor, TrainConfig, Trainer
from tests.convert import layouts
from tests.media.clips import write_set

Names = dict[str, Any]
_LABELS = {"scene": 6, "yeast": 14}
_FEATURES = {"scene": 294, "yeast": 103}


def files() -> None:
    """The data sets that the pages name, small, in the working directory."""
    rng = np.random.default_rng(0)

    def save(name: str, rows: int = 40, tasks: int = 3, **x: tuple[int, ...]) -> None:
        features = {key: rng.normal(size=(rows, *shape)) for key, shape in x.items()}
        np.savez(name, **features, y=rng.integers(0, 2, (rows, tasks)))

    for name in ("features", "more", "new", "clips", "natural_scene"):
        save(f"{name}.npz", x=(3, 8))
    save("mosi.npz", x_text=(6,), x_audio=(5,), x_video=(3, 4))
    save("yt8m_top100.npz", tasks=5, x_video=(8,), x_audio=(6,))
    for name in _LABELS:
        _mulan(name, rng)
    _published()


def _published() -> None:
    """Sets in the layouts that they are published in."""
    layouts.crisismmd(Path("crisismmd_datasplit_all"))
    layouts.video_folders(Path("videos"))
    layouts.nuswide(Path("NUS-WIDE-OBJECT"))
    Path("bags-train.arff").write_text(layouts.BAGS)
    layouts.youtube8m(Path("yt8m/frame"), frames=True)


def _mulan(name: str, rng: np.random.Generator) -> None:
    labels = [f"label{index}" for index in range(_LABELS[name])]
    lines = [f"@attribute {label} {{0,1}}" for label in labels]
    lines += [f"@attribute f{index} numeric" for index in range(_FEATURES[name])]
    for split in ("train", "test"):
        rows = [
            ",".join(
                map(str, [*rng.integers(0, 2, len(labels)), *rng.normal(size=_FEATURES[name])])
            )
            for _ in range(40)
        ]
        text = "\n".join([f"@relation {name}", *lines, "@data", *rows, ""])
        Path(f"{name}-{split}.arff").write_text(text)
    each = "".join(f'<label name="{label}"></label>' for label in labels)
    Path(f"{name}.xml").write_text(
        f'<labels xmlns="http://mulan.sourceforge.net/labels">{each}</labels>'
    )


def clips() -> None:
    """Short clips, and two manifests of them."""
    shutil.copy(write_set(Path(), 20), "new.csv")


class Net(nn.Module):
    """The network that the page on balancing builds up."""

    def __init__(self, num_tasks: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
        self.shared = fastmtl.nn.SharedLinear(32, 16, num_tasks)
        self.heads = nn.ModuleList(nn.Linear(16, 1) for _ in range(num_tasks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, T)."""
        views = self.shared.views(self.trunk(x))
        return torch.cat([head(h) for head, h in zip(self.heads, views, strict=True)], 1)


def _training() -> Names:
    x, y = torch.randn(16, 64), torch.randint(0, 2, (16, 3))
    facts = {"num_tasks": 3, "n_j": y.sum(0), "N": 16}
    return {"model": Net(3), "x": x, "y": y, "loader": [(x, y)] * 2, **facts}


def _balancing(stack: ExitStack) -> Names:
    # One process and gloo; the page's `net` is what is not wrapped for it.
    store = torch.distributed.FileStore("store", 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    stack.callback(torch.distributed.destroy_process_group)
    return {**_training(), "loss": fastmtl.nn.FocalLoss(), "net": Net(3), "Net": Net}


def _cli(stack: ExitStack) -> Names:
    """A run on clips.npz."""
    config = TrainConfig(data="clips.npz", epochs=1, hidden_size=4, device="cpu")
    Trainer.from_config(config, "runs/first").fit()
    return {}


def _export(stack: ExitStack) -> Names:
    """The same, exported."""
    _cli(stack)
    export(Predictor.load("runs/first"), "model.safetensors")
    if find_spec("onnxscript"):
        export(Predictor.load("runs/first"), "model.onnx")
    return {"x": np.zeros((5, 3, 8), np.float32), "lengths": np.full(5, 3)}


def _data(stack: ExitStack) -> Names:
    rows = np.arange(40)
    return {
        "video": rows[:, None, None] * np.ones((3, 4)),
        "text": rows[:, None] * np.ones(6),
        "image": rows[:, None] * np.ones(5),
        "labels": rows[:, None] % [2, 3] == 0,
        "frames": rows % 3 + 1,
        "source_video": rows // 4,
        "split": np.array(["train", "train", "val", "test"])[rows // 4 % 4],
    }


def _libmtl(stack: ExitStack) -> Names:
    return {"batches": [(torch.randn(8, 64), torch.randn(8), torch.ones(8))] * 2}


def _nothing(stack: ExitStack) -> Names:
    return {}


def _models(stack: ExitStack) -> Names:
    names: Names = {"text": torch.randn(6, 100), "audio": torch.randn(6, 73)}
    return {**names, "video": torch.randn(6, 4, 64), "lengths": torch.tensor([1, 2, 3, 4, 1, 2])}


def _ops(stack: ExitStack) -> Names:
    targets = torch.randint(0, 2, (6, 3)).float()
    targets[0, 1] = torch.nan
    return {"logits": torch.randn(6, 3), "targets": targets, "gamma": 2.0, "mask": targets >= 0}


def _systems(stack: ExitStack) -> Names:
    X, y = torch.randn(40, 5), torch.randint(0, 2, (40, 3))
    return {"X": X, "y": y, "X_new": X + 0.1}


def _report(stack: ExitStack) -> Names:
    """A fusion model, of three modalities that the page calls clips."""
    rng = np.random.default_rng(0)
    sizes = {"x_text": (6,), "x_audio": (5,), "x_video": (3, 4)}
    features = {key: rng.normal(size=(40, *shape)) for key, shape in sizes.items()}
    np.savez("clips.npz", **features, y=rng.integers(0, 2, (40, 3)))
    config = TrainConfig("hgfn", data="clips.npz", epochs=1, hidden_size=4, device="cpu")
    Trainer.from_config(config, "runs/clips").fit()
    return {}


NAMES: dict[str, Callable[[ExitStack], Names]] = {
    "README.md": lambda stack: _training(),
    "docs/balancing.md": _balancing,
    "docs/cli.md": _cli,
    "docs/data.md": _data,
    "docs/export.md": _export,
    "docs/media.md": _nothing,
    "docs/migration/libmtl.md": _libmtl,
    "docs/migration/torchjd.md": _nothing,
    "docs/models.md": _models,
    "docs/ops.md": _ops,
    "docs/report.md": _report,
    "docs/systems.md": _systems,
    "docs/training.md": lambda stack: {},
}
