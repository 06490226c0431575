"""What media and encoders are refused with. Decoders import it, so it loads nothing."""

from __future__ import annotations


class MediaError(ValueError):
    """A media file or an encoder that cannot be used, told in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class BrokenClip(MediaError):
    """A clip that cannot be used, which stops the extraction."""
