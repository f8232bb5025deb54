"""What documents are about, as somebody has written it down: labels for probes, by document or by row."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lens_training.corpus import ENDINGS
from lens_training.run_spec import EvaluationSpec, RunSpec
from lens_training.tokens import TokenStore
from wonder.errors import SpecError

Key = tuple[int, int | None]
"""Document, and position where a label is of one row alone."""
Labels = dict[str, dict[Key, str]]
"""Name → where → label."""


def read_labels(spec: RunSpec, store: TokenStore) -> Labels:
    """The labels that an evaluation asks for.

    Raises:
        SpecError: They are not there, are of other documents, or are no labels.
    """
    wanted = spec.evaluation
    if not wanted.labels and not wanted.label_file:
        return {}
    lines = _from_file(wanted, len(store)) if wanted.label_file else _from_corpus(spec, store)
    found: Labels = {}
    for where, key, values in lines:
        names = wanted.labels or [name for name in values if name not in {"document", "position"}]
        for name in names:
            if name not in values:
                raise SpecError(f"{where} has no label {name!r}; it has {', '.join(map(str, values))}: correct labels")
            found.setdefault(name, {})[key] = _label(values[name], name, where)
    if not found:
        raise SpecError(f"{wanted.label_file or spec.corpus.path} holds no labels: give some, or leave labels empty")
    return found


def of_rows(found: Mapping[Key, str], documents: Sequence[int], positions: Sequence[int]) -> list[str | None]:
    """The label of each row; None where it has none."""
    return [
        found.get((document, pos), found.get((document, None)))
        for document, pos in zip(documents, positions, strict=True)
    ]


def _from_file(spec: EvaluationSpec, documents: int) -> Iterator[tuple[str, Key, dict[str, Any]]]:
    for where, value in _lines([Path(spec.label_file)]):
        document, position = value.get("document"), value.get("position")
        if not isinstance(document, int) or isinstance(document, bool):
            raise SpecError(f"{where} has no document: give the number of the document in the corpus, from 0")
        if not 0 <= document < documents:
            raise SpecError(f"{where} is of document {document}, and the corpus has 0 to {documents - 1}: other labels")
        if position is not None and (not isinstance(position, int) or isinstance(position, bool)):
            raise SpecError(f"{where} has the position {position!r}: give a number, or leave it out")
        yield where, (document, position), value


def _from_corpus(spec: RunSpec, store: TokenStore) -> Iterator[tuple[str, Key, dict[str, Any]]]:
    if spec.corpus.source != "jsonl":
        raise SpecError(
            f"evaluation.labels names {', '.join(spec.evaluation.labels)}, and a corpus of source {spec.corpus.source} "
            "has no such fields: put them into evaluation.label_file"
        )
    root = Path(spec.corpus.path)
    files = [root] if root.is_file() else sorted(p for p in root.rglob(f"*{ENDINGS['jsonl']}") if p.is_file())
    number = 0
    for where, value in _lines(files):
        if number == len(store):
            break
        # A text without a token is no document of the store.
        if not str(value.get(spec.corpus.field, "")).strip():
            continue
        yield where, (number, None), value
        number += 1
    if number != len(store):
        raise SpecError(
            f"{root} has {number} texts, and the tokens in {store.folder} are of {len(store)} documents: the labels "
            "would be of other documents; put them into evaluation.label_file"
        )


def _lines(files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in files:
        try:
            with path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    if not line.strip():
                        continue
                    where = f"{path}, line {number}"
                    try:
                        value = json.loads(line)
                    except ValueError as error:
                        raise SpecError(f"{where} is not JSON ({error}): repair it") from None
                    if not isinstance(value, dict):
                        raise SpecError(f"{where} is a {type(value).__name__}: write one object per line")
                    yield where, value
        except OSError as error:
            raise SpecError(f"{path} cannot be read ({error.strerror}): name a file of JSON lines") from None


def _label(value: Any, name: str, where: str) -> str:
    if isinstance(value, str | bool | int):
        return str(value)
    raise SpecError(f"{where} has {value!r} for {name!r}: a label is a word, a whole number, or true or false")
