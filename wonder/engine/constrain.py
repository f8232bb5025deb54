"""Answers held to a JSON schema: which tokens a row may write next, so that its text is a value of the type."""

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from typing import Any, Final

import torch
from torch import Tensor

from wonder.engine.grammar import AnswerFormat, grammar_of
from wonder.engine.request import EngineRequest
from wonder.errors import ExtraMissing, SettingNotSupported

# Shape suffixes: B rows, V vocabulary.

KEPT: Final = 128
"""Compiled schemas kept per engine; a workflow has as many as it has constrained actions."""


class Constraint:
    """One row's place in its grammar: ask `allowed`, draw, tell `accept`; it ends with the model's end token."""

    def __init__(self, matcher: Any, end_ids: Sequence[int], vocabulary: int) -> None:
        self._matcher = matcher
        self._end_ids = list(end_ids)
        self._vocabulary = vocabulary
        self.failure: str | None = None
        """Why the row could not be held to its schema; it may then only end."""

    def allowed(self) -> Tensor:
        """True for every token that may come next, shape (V,), on the host; never all False."""
        if self.failure is None:
            # One byte per token of the tokenizer, which may have fewer or more than the model has logits.
            weights = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
            allowed_V = torch.zeros(self._vocabulary, dtype=torch.bool)
            count = min(len(weights), self._vocabulary)
            allowed_V[:count] = weights[:count] != 0
            if self._matcher.is_error():
                self._fail(self._matcher.get_error())
            elif bool(allowed_V.any()):
                return allowed_V
            else:
                self._fail("no token of this model continues the answer")
        allowed_V = torch.zeros(self._vocabulary, dtype=torch.bool)
        allowed_V[self._end_ids] = True
        return allowed_V

    def accept(self, token: int) -> None:
        """Move on by the token that was drawn."""
        if self.failure is None and not self._matcher.consume_token(token):
            self._fail(self._matcher.get_error() or f"token {token} does not continue the answer")

    def check(self) -> None:
        """Refuse an answer that could not be held to its schema.

        Raises:
            SettingNotSupported: The schema outgrew the limits of the grammar while the answer was written.
        """
        if self.failure is not None:
            raise SettingNotSupported(
                f"the answer could not be held to its schema ({self.failure}): make the schema smaller or less nested"
            )

    def _fail(self, reason: str) -> None:
        self.failure = _one_line(reason)


class Constrainer:
    """Compiles answer schemas against one tokenizer, each once. Safe to use from several threads."""

    def __init__(self, tokenizer: Any, end_ids: frozenset[int], vocabulary: int) -> None:
        """`vocabulary` is the number of the model's logits; the library is imported with the first schema."""
        self._tokenizer = tokenizer
        self._end_ids = sorted(token for token in end_ids if token < vocabulary)
        self._vocabulary = vocabulary
        self._compiled: OrderedDict[tuple[str, AnswerFormat], Any] = OrderedDict()
        self._words: Any = None
        self._lock = threading.Lock()

    def start(self, request: EngineRequest) -> Constraint | None:
        """The constraint of a new answer to a request, or None where it asks for none.

        Raises:
            SettingNotSupported: Its schema, this tokenizer or this model cannot be constrained.
            ExtraMissing: The library is not installed.
        """
        # A request type from before there were schemas is still a request.
        schema = getattr(request, "answer_schema", None)
        if schema is None:
            return None
        with self._lock:
            prototype = self._prototype(schema, request.answer_format)
            return Constraint(prototype.deep_copy(), self._end_ids, self._vocabulary)

    def _prototype(self, schema: Any, answer_format: AnswerFormat) -> Any:
        try:
            key = json.dumps(schema, allow_nan=False), answer_format
        except (TypeError, ValueError, RecursionError) as error:
            raise SettingNotSupported(f"answer_schema is not JSON ({error}): give a JSON schema") from error
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key]
        llguidance = _library()
        if self._words is None:
            self._words = self._read_tokenizer(llguidance)
        matcher = llguidance.LLMatcher(self._words, grammar_of(schema, answer_format), log_level=0)
        if matcher.is_error():
            raise SettingNotSupported(
                f"answer_schema cannot constrain an answer ({_one_line(matcher.get_error())}): "
                "use simpler types, or leave the action unconstrained"
            )
        self._compiled[key] = matcher
        while len(self._compiled) > KEPT:
            self._compiled.popitem(last=False)
        return matcher

    def _read_tokenizer(self, llguidance: Any) -> Any:
        if not self._end_ids:
            raise SettingNotSupported(
                "a constrained answer ends with the model's end token, and this model names none: "
                "set eos_token_id in its generation config"
            )
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise SettingNotSupported(
                f"constrained answers need a fast tokenizer (tokenizer.json), and this model has a "
                f"{type(self._tokenizer).__name__}: convert it, or leave the action unconstrained"
            )
        plain = copy(backend)
        plain.no_padding()
        plain.no_truncation()
        size = max(plain.get_vocab_size(with_added_tokens=True), self._vocabulary)
        try:
            return llguidance.LLTokenizer(plain.to_str(), n_vocab=size, eos_token=self._end_ids)
        except ValueError as error:
            raise SettingNotSupported(
                f"this model's tokenizer cannot be constrained ({_one_line(str(error))}): "
                "leave the action unconstrained"
            ) from error


def masked(logits_BV: Tensor, constraints: Sequence[Constraint | None]) -> Tensor:
    """Logits to draw from: a copy in which forbidden tokens have -inf, or the very same where no row is constrained.

    The logits given are left alone, because the numbers of a trace come from them; rows without a constraint are
    equal to the bit.
    """
    rows = [row for row, constraint in enumerate(constraints) if constraint is not None]
    if not rows:
        return logits_BV
    allowed_RV = torch.stack([constraints[row].allowed() for row in rows]).to(logits_BV.device)  # type: ignore[union-attr]
    held_RV = logits_BV[rows].masked_fill(~allowed_RV, float("-inf"))
    # A model may give -inf to all that is allowed. NaN then stands for "broken, and only here".
    nothing_R1 = torch.isneginf(held_RV).all(-1, keepdim=True)
    held_RV = torch.where(nothing_R1 & allowed_RV, float("nan"), held_RV)
    copied_BV = logits_BV.clone()
    copied_BV[rows] = held_RV
    return copied_BV


def _library() -> Any:
    try:
        import llguidance  # noqa: PLC0415 — an optional extra, needed only with the first schema
    except ImportError as error:
        raise ExtraMissing(
            "constrained answers need llguidance, which is not installed: "
            "install wonder-temporal[constrained] on the GPU worker, or leave out constrained=True"
        ) from error
    return llguidance


def _one_line(text: str) -> str:
    """The library's message without the grammar that it quotes."""
    line = text.split("\n   1 |")[0].strip().replace("\n", " ")
    return line if len(line) <= 300 else line[:300] + "…"
