"""The error that every unusable data set raises."""

from __future__ import annotations


class DataError(ValueError):
    """A data set that cannot be used, told in one line: file, field, what was expected, what came.

    Every loader raises it, and nothing else, for a file it cannot read or believe, so a program
    can print `str(error)` and stop.

    Examples:
        >>> import fastmtl
        >>> try:
        ...     fastmtl.data.load("nowhere.npz")
        ... except fastmtl.data.DataError as error:
        ...     print(error)
        nowhere.npz: file: expected an existing file, got a path where nothing is
    """

    @classmethod
    def at(cls, source: str, field: str, expected: str, got: str) -> DataError:
        """The error for `field` of `source`, in the one shape that all messages have."""
        message = f"{source}: {field}: expected {expected}, got {got}"
        return cls(" ".join(message.split()))
