"""Files mapped into memory whose pages are given back, so that a reader of everything stays small."""

import mmap
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

PAGES: Final = 65_536
"""What the kernel may map around a touched byte."""


class MappedFiles:
    """Read-only maps, opened once each."""

    def __init__(self, resident_bytes: int = 2**28) -> None:
        """Start with none.

        Args:
            resident_bytes: About how much may stay in this process's memory; the kernel's own cache is not counted.
        """
        self._limit = resident_bytes
        self._maps: dict[Path, mmap.mmap] = {}
        self._touched = 0

    def array(self, path: Path, dtype: Any, *, offset: int = 0, count: int = -1) -> NDArray[Any]:
        """A part of a file as numbers; a view, not to be kept after `close`."""
        if path not in self._maps:
            with path.open("rb") as file:
                if path.stat().st_size == 0:
                    return np.empty(0, dtype)
                self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self._maps[path], dtype, count, offset)

    def touched(self, places: int, width: int) -> None:
        """Say that so many places of so many bytes were read; pages are given back when it is enough."""
        self._touched += places * (width + PAGES)
        if self._touched > self._limit:
            self.release()

    def release(self) -> None:
        """Give every page back; what is read again is mapped again."""
        for held in self._maps.values():
            held.madvise(mmap.MADV_DONTNEED)
        self._touched = 0

    def close(self) -> None:
        """Let the files go."""
        self._maps.clear()
