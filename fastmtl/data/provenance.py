"""What features were made with, as a file of them says: an encoder and its settings by modality."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from fastmtl.data.errors import DataError

# Of the root of an HDF5 file.
ATTRIBUTE = "fastmtl_features"
_MOST_CHARACTERS = 1 << 20

# By modality: encoder (as it is typed), settings, fingerprint (of all that the features depend on).
Encoders = Mapping[str, Mapping[str, Any]]


def parse_encoders(source: str, text: Any) -> Encoders:
    """The encoders that the attribute of a file says.

    Raises:
        DataError: for another text.

    Examples:
        >>> said = '{"text": {"encoder": "hash", "fingerprint": "9f", "settings": {}}}'
        >>> parse_encoders("a.h5", said)["text"]["encoder"]
        'hash'
    """
    try:
        if not isinstance(text, str) or len(text) > _MOST_CHARACTERS:
            raise ValueError("no text")
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("no object")
        for each in found.values():
            kinds = (str, str, dict)
            for key, kind in zip(("encoder", "fingerprint", "settings"), kinds, strict=True):
                if not isinstance(each[key], kind):
                    raise ValueError(f"{key} is no {kind.__name__}")
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        expected = "the encoders of the features as fastmtl extract writes them"
        raise DataError.at(source, ATTRIBUTE, expected, f"something else ({error})") from None
    return found


def of_modalities(encoders: Encoders | None, modalities: Iterable[str]) -> Encoders | None:
    """The encoders of some modalities alone; None where none is known."""
    if encoders is None:
        return None
    return {name: encoders[name] for name in modalities if name in encoders} or None


def check_encoders(source: str, encoders: Encoders | None, expected: Encoders | None) -> None:
    """Raise DataError if features came from other encoders, or settings, than expected.

    Features of which nobody says where they come from are taken to be right.
    """
    for name, ours in (expected or {}).items():
        theirs = (encoders or {}).get(name)
        if theirs is not None and theirs["fingerprint"] != ours["fingerprint"]:
            wanted = f"features of the training data's encoder, {_shown(ours)}"
            raise DataError.at(source, f"x_{name}", wanted, _shown(theirs))


def _shown(each: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in each["settings"].items())
    about = ", ".join(filter(None, [settings, f"fingerprint {each['fingerprint'][:8]}"]))
    return f"{each['encoder']} ({about})"
