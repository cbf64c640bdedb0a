"""Names of encoders."""

from pathlib import Path


def public_name(source: str) -> str:
    """Return `source`, but only the name of a folder: its path is private."""
    return source if source.startswith("hf:") else Path(source).name
