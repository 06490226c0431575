"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Data = Annotated[str, typer.Option(help="The data: what train's --data takes.")]
Test = Annotated[str | None, typer.Option(help="A second file, the test split.")]
Xml = Annotated[str | None, typer.Option(help="The labels of a Mulan .arff file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads.", show_default="torch's choice")]
