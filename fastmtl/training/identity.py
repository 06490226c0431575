"""What tells the files of one run from those of another."""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastmtl.training.checkpoint import RunError, digest

# What a resumed run may change, so that it does not define the run.
CHANGEABLE = ("epochs", "device", "threads", "data", "test", "xml", "memory", "log")


@dataclass(frozen=True)
class Identity:
    """Stands in every file that a run is continued or used from.

    Args:
        run: drawn once, when the run begins.
        options: a fingerprint of what defines the run: options, model, balancer.
        data: a fingerprint of the values it is trained on.
    """

    run: str
    options: str
    data: str

    @classmethod
    def new(cls, record: Mapping[str, Any], data: str) -> Identity:
        """That of a run that begins.

        Args:
            record: JSON-able values by section; of "train" what `CHANGEABLE` names is left out.
            data: what `fingerprint` gave.
        """
        train = {k: value for k, value in record["train"].items() if k not in CHANGEABLE}
        options = digest({}, json.dumps({**record, "train": train}, sort_keys=True))
        return cls(uuid.uuid4().hex, options, data)

    def to_dict(self) -> dict[str, str]:
        """JSON-able values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Identity:
        """The identity that `to_dict` gave."""
        return cls(**{field.name: str(values[field.name]) for field in dataclasses.fields(cls)})

    def check(self, path: str | os.PathLike[str], values: object) -> None:
        """Raise RunError unless the file `path` says that it belongs to this run.

        Args:
            path: the file.
            values: what it holds beside its tensors.
        """
        try:
            found = Identity.from_dict(values["run"])  # type: ignore[index]
        except (LookupError, TypeError):
            raise RunError(f"{path}: does not say which run it belongs to") from None
        for field, of in (("run", "another run"), ("options", "a run with other options"),
                          ("data", "a run on other data")):  # fmt: skip
            if getattr(found, field) != getattr(self, field):
                raise RunError(f"{path}: belongs to {of} than the config.json beside it")
