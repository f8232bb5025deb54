"""Prompts with the answers that count as right: those of the two worlds, and anybody's JSONL."""

import json
import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lens_training.fact_world.world import build_world, evaluation_set
from wonder.embedded.world import answer, prompt, tickets

FACT_WORLD = Path(__file__).parent / "fact_world"
"""Folder of the model that was trained on the closed world."""

AnswerFormat = Literal["text", "json"]
WANTED = '{"prompt": "…", "answers": ["…"]}'


class BadData(ValueError):
    """A file of questions cannot be read as such."""


@dataclass(frozen=True)
class Item:
    """One prompt, and what may be answered."""

    prompt: str
    answers: tuple[str, ...]
    group: str = ""
    """For counting right answers by kind."""


def fact_world_items() -> list[Item]:
    """The evaluation set of the closed world; each question with the one gold answer that was drawn for it."""
    return [Item(found.prompt, (found.gold,), found.kind) for found in evaluation_set(build_world())]


def support_desk_items(n: int, seed: int) -> list[Item]:
    """Held-out tickets; right is the team that was drawn from the posterior, and the urgency."""
    held_out = tickets(n, seed=seed, split="held_out")
    return [Item(prompt(ticket.text), (answer(ticket).strip(),), ticket.kind) for ticket in held_out]


def read_items(path: Path) -> list[Item]:
    """Read a JSONL file: one object a line with `prompt`, `answers` (a list of strings) and, if wanted, `group`.

    Raises:
        BadData: The file cannot be read, a line is not such an object, or there is none; says which line and why.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadData(f"{path}: {error.strerror}; wanted a JSONL file with lines such as {WANTED}") from error
    except UnicodeDecodeError as error:
        raise BadData(f"{path} is not UTF-8 text ({error.reason}); wanted lines such as {WANTED}") from error
    items = [_item(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not items:
        raise BadData(f"{path} has no questions; wanted lines such as {WANTED}")
    return items


def is_right(text: str, item: Item, answer_format: AnswerFormat, *, loose: bool = False) -> bool:
    """Whether a text is one of the accepted answers.

    JSON is compared by value. Text is compared word by word; loosely, without case, punctuation and articles, as the
    usual exact match of question answering does.
    """
    if answer_format == "json":
        said = _json(text)
        return said is not None and any(said == _json(accepted) for accepted in item.answers)
    plain = _loose if loose else _words
    return plain(text) in {plain(accepted) for accepted in item.answers}


def _item(path: Path, number: int, line: str) -> Item:
    where = f"line {number} of {path}"
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadData(f"{where} is not JSON ({error.msg} at column {error.colno}); wanted {WANTED}") from error
    if not isinstance(found, dict):
        raise BadData(f"{where} is a {type(found).__name__}; wanted an object such as {WANTED}")
    for field, told in _faults(found):
        raise BadData(f"{where}: {field} {told}; wanted {WANTED}")
    return Item(found["prompt"], tuple(found["answers"]), str(found.get("group", "")))


def _faults(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for field in ("prompt", "answers"):
        if field not in found:
            yield repr(field), f"is missing (found {', '.join(map(repr, found)) or 'no field'})"
    if not isinstance(found.get("prompt"), str) or not found["prompt"].strip():
        yield "'prompt'", "is not a text with words in it"
    answers = found.get("answers")
    if not isinstance(answers, list) or not answers or not all(isinstance(one, str) for one in answers):
        yield "'answers'", "is not a list of one or more strings"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def _words(text: str) -> str:
    return " ".join(text.split())


def _loose(text: str) -> str:
    bare = text.casefold().translate(str.maketrans("", "", string.punctuation))
    return _words(re.sub(r"\b(a|an|the)\b", " ", bare))


def groups(items: Iterable[Item]) -> list[str]:
    """The groups, in the order of their first items."""
    return list(dict.fromkeys(item.group for item in items))
