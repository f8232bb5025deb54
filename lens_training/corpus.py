"""Where documents come from: a folder of text, lines of JSON, or a dataset on disk; always in the same order."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from lens_training.spec import CorpusSpec, digest_of
from wonder.errors import ExtraMissing, SpecError

ENDINGS: Final = {"text": ".txt", "jsonl": ".jsonl"}


@dataclass(frozen=True)
class Cursor:
    """How far a corpus was read: everything before is done."""

    file: int = 0
    at: int = 0
    """Bytes of the file, or rows of the dataset."""


@dataclass(frozen=True)
class Document:
    """One text, and where to go on after it."""

    text: str
    after: Cursor


class Corpus:
    """The documents of a specification."""

    def __init__(self, spec: CorpusSpec) -> None:
        """Look the files up.

        Raises:
            SpecError: There are none.
            ExtraMissing: It is a dataset, and `datasets` is not installed.
        """
        self.spec = spec
        self._rows: Any = _dataset(spec) if spec.source == "dataset" else None
        self._files: list[Path] = [] if self._rows is not None else _files(spec)

    @property
    def inventory(self) -> str:
        """Digest of what is there by name and size, so that a corpus which changed meanwhile is noticed."""
        if self._rows is not None:
            return digest_of([str(getattr(self._rows, "_fingerprint", "")), len(self._rows)])
        return digest_of([[path.name, path.stat().st_size] for path in self._files])

    @property
    def size(self) -> int:
        """Bytes, or rows of a dataset."""
        return len(self._rows) if self._rows is not None else sum(path.stat().st_size for path in self._files)

    def done(self, cursor: Cursor) -> int:
        """How much of `size` lies before a cursor."""
        if self._rows is not None:
            return cursor.at
        return sum(path.stat().st_size for path in self._files[: cursor.file]) + cursor.at

    def documents(self, start: Cursor) -> Iterator[Document]:
        """The documents from a cursor on.

        Raises:
            SpecError: One is too long, is not UTF-8, or has no such field.
        """
        if self._rows is not None:
            for row in range(start.at, len(self._rows)):
                yield Document(self._text(self._rows[row], f"row {row}"), Cursor(0, row + 1))
            return
        for number in range(start.file, len(self._files)):
            path, at = self._files[number], start.at if number == start.file else 0
            if self.spec.source == "text" and self.spec.document == "file":
                self._check_size(path.stat().st_size, str(path))
                yield Document(_decoded(path.read_bytes(), str(path)), Cursor(number + 1))
            else:
                yield from self._lines(path, number, at)

    def _lines(self, path: Path, number: int, at: int) -> Iterator[Document]:
        limit = self.spec.max_document_bytes
        with path.open("rb") as file:
            file.seek(at)
            while line := file.readline(limit + 2):
                where = f"{path}, byte {at}"
                self._check_size(len(line.rstrip(b"\r\n")), where)
                at += len(line)
                text = _decoded(line.rstrip(b"\r\n"), where)
                if self.spec.source == "jsonl" and text:
                    text = self._text(_parsed(text, where), where)
                yield Document(text, Cursor(number, at))

    def _text(self, row: Any, where: str) -> str:
        text = row.get(self.spec.field) if isinstance(row, dict) else None
        if not isinstance(text, str):
            has = ", ".join(sorted(map(str, row))) if isinstance(row, dict) else f"a {type(row).__name__}"
            raise SpecError(f"{where} has no text in {self.spec.field!r}; it has {has}: name the field")
        self._check_size(len(text.encode(errors="surrogatepass")), where)
        return text

    def _check_size(self, size: int, where: str) -> None:
        if size > self.spec.max_document_bytes:
            raise SpecError(
                f"{where} has a document of more than {self.spec.max_document_bytes:,} bytes: divide it, raise "
                "max_document_bytes, or read text files with document='line'"
            )


def _files(spec: CorpusSpec) -> list[Path]:
    root, ending = Path(spec.path), ENDINGS[spec.source]
    found = [root] if root.is_file() else sorted(path for path in root.rglob(f"*{ending}") if path.is_file())
    if not found:
        raise SpecError(f"{root} is no file and no folder with *{ending}: correct the corpus's path or its source")
    return found


def _dataset(spec: CorpusSpec) -> Any:
    if find_spec("datasets") is None:
        raise ExtraMissing(
            "a corpus of source 'dataset' needs the package datasets: pip install 'wonder-temporal[data]', or use jsonl"
        )
    from datasets import load_from_disk  # noqa: PLC0415 - an extra

    try:
        found = load_from_disk(spec.path)
    except (OSError, ValueError) as error:
        raise SpecError(f"{spec.path} is no dataset on disk ({error}): name a folder of save_to_disk") from None
    if isinstance(found, dict):
        raise SpecError(f"{spec.path} holds {', '.join(found)}: name the folder of one of them")
    return found


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SpecError(f"{where} is not UTF-8 ({error.reason} at {error.start}): convert it") from None


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise SpecError(f"{where} is not a line of JSON ({error}): repair it") from None
