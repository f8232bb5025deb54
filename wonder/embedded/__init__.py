"""The model that ships with Wonder: where its folder and its bundles lie."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

SUPPORT_DESK: Final = "support-desk"

EMBEDDED: Final[Mapping[str, Path]] = {SUPPORT_DESK: Path(__file__).parent / "support_desk"}
"""Folder of each embedded model, by the name given to `--model`."""


def embedded_path(name: str) -> Path | None:
    """Return the folder of an embedded model, or None when the name is not one of them."""
    return EMBEDDED.get(name)


def embedded_probes(name: str) -> Path | None:
    """Return the folder whose sub-folders are the probe bundles of an embedded model, or None as above."""
    path = embedded_path(name)
    return None if path is None else path / "probes"


def embedded_compressors(name: str) -> Path | None:
    """Return the folder whose sub-folders are the compressors of an embedded model, or None as above."""
    path = embedded_path(name)
    return None if path is None else path / "compressors"
