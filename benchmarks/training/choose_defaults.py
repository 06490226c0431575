"""Compare settings of training runs by their validation figures alone.

    python -m benchmarks.training.choose_defaults DATA OUT [--seeds 2] [--only paper decay ...]

The defaults of `fastmtl train` were chosen by this script on the sets below, and confirmed on
others that it does not read. A setting is what it changes of the one that it names. Figures are
those of the validation split; metrics.json's test figures are never looked at. Finished runs in OUT
are kept. Prints a Markdown table: micro-F1 and mAP for each set, and their mean over the sets.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from fastmtl.training import TrainConfig, Trainer
from fastmtl.training.presets import PRESETS

# The sets to choose on: model, file, and options that name the data.
SETS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "yeast, two modalities": (
        "hgfn",
        "mulan/yeast-train.arff",
        {"modalities": "expression=0:79,phylogeny=79:103"},
    ),
    "scene, two halves": (
        "hgfn",
        "mulan/scene-train.arff",
        {"modalities": "first=0:147,second=147:294"},
    ),
    "scene": ("mtmlan", "mulan/scene-train.arff", {}),
    "birds": ("mtmlan", "mulan/birds-train.arff", {}),
}
_GRAPH = {"level_norm": True, "similarity_norm": True, "residual": True}
# Settings by name: the one that each starts from, and what it changes.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "paper": ("", PRESETS["paper"]),
    "monitor": ("paper", {"monitor": "map"}),
    "graph": ("monitor", _GRAPH),
    "dropout": ("graph", {"dropout": 0.3}),
    "batch": ("dropout", {"batch_size": 64}),
    "decay": ("batch", {"weight_decay": 0.1, "lr_decay": 0.95, "warmup": 50}),
    "more dropout": ("decay", {"dropout": 0.5}),
    "smaller batch": ("more dropout", {"batch_size": 32}),
    "fast": ("smaller batch", {"lr": 2e-3}),
    "levels as they are": ("smaller batch", {"level_norm": False}),
    "prior": ("smaller batch", {"prior_bias": True}),
}
FIGURES = ("micro_f1", "map")


def options_of(setting: str) -> dict[str, Any]:
    """All options of a setting."""
    base, changes = SETTINGS[setting]
    return {**(options_of(base) if base else {}), **changes}


def validate(data: Path, out: Path, name: str, setting: str, seed: int) -> dict[str, float]:
    """The validation figures of one run, finished now or before."""
    model, file, named = SETS[name]
    result = out / f"{model}-{Path(file).stem}-{setting.replace(' ', '-')}-{seed}"
    options = options_of(setting)
    config = TrainConfig(
        model=model, data=str(data / file), seed=seed, threads=1, device="cpu", **named, **options
    )
    trainer = Trainer.from_config(config, result)
    begun = (result / "checkpoint.safetensors").exists()
    figures: dict[str, float] = trainer.fit(resume=begun, overwrite=not begun)["val"]
    return {figure: figures[figure] for figure in FIGURES}


def row(setting: str, found: dict[str, list[dict[str, float]]]) -> str:
    """A setting's row: the means over the seeds for each set, and over the sets."""
    means = {
        figure: [statistics.mean(run[figure] for run in runs) for runs in found.values()]
        for figure in FIGURES
    }
    cells = [f"{f1:.4f}, {ap:.4f}" for f1, ap in zip(*means.values(), strict=True)]
    total = ", ".join(f"{statistics.mean(values):.4f}" for values in means.values())
    return f"| {setting} | {' | '.join(cells)} | {total} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    arguments = parser.parse_args()
    print(f"| setting | {' | '.join(SETS)} | mean |\n|{'---|' * (len(SETS) + 2)}")
    for setting in arguments.only:
        found = {
            name: [
                validate(arguments.data, arguments.out, name, setting, seed)
                for seed in range(arguments.seeds)
            ]
            for name in SETS
        }
        print(row(setting, found), flush=True)
    changed = {name: options_of(name) for name in arguments.only}
    (arguments.out / "settings.json").write_text(json.dumps(changed, indent=2) + "\n")


if __name__ == "__main__":
    main()
