"""What the blocks of a network do, before training and after it.

    python -m benchmarks.training.look_inside [--data FILE] [--epochs N] [options of fastmtl train]

Prints a Markdown table with a row for every block that has parameters of its own: the root mean
square of its output over a batch of the validation split; the deviation of an output over the
samples beside that (0: the block says the same of every sample); the share of outputs that are
below 0, where LeakyReLU passes a hundredth; and the norm of the loss's gradient beside that of the
parameters (0: it cannot learn). Two columns each, at initialisation and after training. Also, as
mean and deviation over the samples, the importances and edge weights of HGFN; and of MTMLAN the
number of steps that each task attends to, e to the entropy of its weights, and the mean over the
tasks of each step's weight.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.training.options import add_training_options
from fastmtl.models import HGFN, MTMLAN
from fastmtl.training import TrainConfig, Trainer

SAMPLES = 256


class Look(NamedTuple):
    """What was seen of a block."""

    size: float  # root mean square of the output
    varies: float  # deviation over the samples / root mean square
    below: float  # share below 0
    learns: float  # norm of the gradient / norm of the parameters


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The modules with parameters of their own, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if name and next(module.parameters(recurse=False), None) is not None
    }


def look(trainer: Trainer) -> dict[str, Look]:
    """Every block of a trainer's model, on a batch of the validation split."""
    model = trainer.model.eval()
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            value = output[0] if isinstance(output, tuple) else output
            outputs[name] = value.detach().float()

        return hook

    found = blocks(model)
    hooks = [module.register_forward_hook(keep(name)) for name, module in found.items()]
    batch = next(iter(trainer.batches(trainer.rows["val"][:SAMPLES], SAMPLES)))
    model.zero_grad()
    trainer.loss(batch.forward(model), batch.targets).sum().backward()
    for hook in hooks:
        hook.remove()
    size = len(batch.targets)
    looks = {}
    for name, module in found.items():
        if name not in outputs:
            continue
        own = [each for each in module.parameters(recurse=False) if each.grad is not None]
        grads = torch.stack([each.grad.norm() for each in own if each.grad is not None])
        norms = torch.stack([each.detach().norm() for each in own])
        looks[name] = _look(outputs[name], size, float(grads.norm() / norms.norm()))
    model.zero_grad()
    return looks


def _look(output: Tensor, samples: int, learns: float) -> Look:
    size = float(output.square().mean().sqrt())
    # The samples may stand together with what a block is applied to for each of them.
    axis = next(axis for axis, rows in enumerate(output.shape) if rows % samples == 0)
    by_sample = output.unflatten(axis, (samples, -1))
    varies = float(by_sample.std(axis).square().mean().sqrt()) / max(size, 1e-30)
    return Look(size, varies, float((output < 0).float().mean()), learns)


def weights(trainer: Trainer) -> dict[str, str]:
    """What HGFN and MTMLAN weigh by: mean and deviation over the samples of each weight."""
    model = trainer.model.eval()
    batch = next(iter(trainer.batches(trainer.rows["val"][:SAMPLES], SAMPLES)))
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        if isinstance(model, HGFN):
            levels = batch.call(model.fusion_weights)
            found = {f"level {level}": each for level, each in enumerate(levels, 1)}
        elif isinstance(model, MTMLAN):
            attention = batch.call(model.attention)  # (B, T, L)
            found["steps attended to"] = torch.special.entr(attention).sum(2).exp()
            found["weight of each step"] = attention.mean(1)
    return {
        name: ", ".join(f"{m:.3f} ± {s:.3f}" for m, s in zip(w.mean(0), w.std(0), strict=True))
        for name, w in found.items()
    }


def table(before: dict[str, Look], after: dict[str, Look]) -> str:
    """Both looks as Markdown."""
    lines = ["| block | size | varies | below 0 | gradient |", "|---|---|---|---|---|"]
    for name, first in before.items():
        pairs = zip(first, after[name], strict=True)
        lines.append(f"| {name} | {' | '.join(f'{a:.2g}, {b:.2g}' for a, b in pairs)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_training_options(parser)
    given = {k: value for k, value in vars(parser.parse_args()).items() if value is not None}
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer.from_config(TrainConfig(**given), Path(out) / "run")
        before, at_first = look(trainer), weights(trainer)
        trainer.fit()
        print(table(before, look(trainer)))
        for name, trained in weights(trainer).items():
            print(f"\n{name}: {at_first[name]}\ntrained: {trained}")


if __name__ == "__main__":
    main()
