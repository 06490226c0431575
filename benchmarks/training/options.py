"""The options of a training run on the command line of a script."""

from __future__ import annotations

import argparse
from collections.abc import Container

from fastmtl.training import TrainConfig
from fastmtl.training.options import declared


def add_training_options(parser: argparse.ArgumentParser, but: Container[str] = ()) -> None:
    """Give a parser those of `TrainConfig`, None where they are not given."""
    for name, each in declared(TrainConfig).items():
        if name in but:
            continue
        flag = f"--{name.replace('_', '-')}"
        if each.kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction)
        else:
            parser.add_argument(flag, type=each.kind)
