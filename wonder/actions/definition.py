"""`ActionDef`: one model call as a workflow names it: model, prompt, answer type, and what to read meanwhile."""

import copy
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Generic, TypeVar, cast, overload

from pydantic import TypeAdapter, ValidationError
from temporalio.workflow import ActivityConfig

from wonder.actions import prompts
from wonder.claims.claim import Claim
from wonder.errors import DefinitionError
from wonder.names import EMBEDDED_MODEL, gpu_queue
from wonder.routing.retry import Retry
from wonder.routing.schema import Schema
from wonder.trace.answer_schema import inexact_number
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling

T = TypeVar("T")


class ActionDef(Generic[T]):
    """One model call: `act(ctx, action, …)` runs it and gives back a `T`.

    Frozen once built; a mistake in the template or the output type is found here, not in a running workflow.
    """

    @overload
    def __init__(
        self: "ActionDef[str]",
        *,
        name: str,
        prompt: str,
        model: str = ...,
        sampling: Sampling = ...,
        thought_capture: ThoughtCapture = ...,
        activity: ActivityConfig | None = ...,
        constrained: bool = ...,
        claims: Sequence[Claim] = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        name: str,
        prompt: str,
        output: type[T],
        model: str = ...,
        sampling: Sampling = ...,
        thought_capture: ThoughtCapture = ...,
        activity: ActivityConfig | None = ...,
        constrained: bool = ...,
        claims: Sequence[Claim] = ...,
    ) -> None: ...

    def __init__(
        self,
        *,
        name: str,
        prompt: str,
        output: Any = str,
        model: str = EMBEDDED_MODEL,
        sampling: Sampling | None = None,
        thought_capture: ThoughtCapture | None = None,
        activity: ActivityConfig | None = None,
        constrained: bool = False,
        claims: Sequence[Claim] = (),
    ) -> None:
        """Define an action.

        Args:
            name: The node of a transition table; letters, digits and `_`, starting with a letter.
            prompt: Template with `{variables}`; `{{` is a literal brace.
            output: Type of the answer: a pydantic model (the model writes JSON), or str, int, float, bool, an enum
                or a Literal (the whole text is the value).
            model: Name or folder; decides which GPU queue runs the action.
            sampling: How tokens are drawn; greedy by default.
            thought_capture: What to read while generating.
            activity: Overrides of the activity's options (timeouts, retries, queue, priority).
            constrained: Hold the answer to `output` while it is written, so that whatever is not cut off at
                `max_new_tokens` parses. The worker needs the extra `constrained`.
            claims: What each trace is asked to show; the results are `thought_trace.claims`.

        Raises:
            DefinitionError: The name, the template or the output type cannot work, or any text is a value of the
                output type and there is nothing to constrain, or it has numbers that cannot be held to exactly.
        """
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise DefinitionError(f"action name {name!r}: letters, digits and _ only, starting with a letter")
        try:
            adapter = TypeAdapter(output)
            schema = adapter.json_schema()
        except Exception as error:
            raise DefinitionError(
                f"action {name!r}: pydantic cannot describe the output type {output!r} ({error}): "
                "use a pydantic model, str, int, float, bool, an enum or a Literal"
            ) from error
        self.name = name
        self.prompt = prompt
        self.output = cast(type[T], output)
        self.model = model
        self.sampling = sampling or Sampling()
        self.thought_capture = thought_capture or ThoughtCapture()
        self.activity = ActivityConfig(**(activity or {}))
        self.constrained = constrained
        self.context: dict[str, str] = {}
        """Variable of the prompt → dotted path in `Context.state` that fills it, whatever the call gives."""
        self._adapter: TypeAdapter[T] = adapter
        self._schema = schema
        self.claims = tuple(claims)
        for claim in self.claims:
            claim.check(Schema.of(self))
        prompts.variables(prompt)
        if constrained and not schema.keys() - {"type", "title", "description"} and schema.get("type") == "string":
            raise DefinitionError(
                f"action {name!r}: every text is a {output!r}, so constrained=True would do nothing: "
                "name the type that the answer shall have, or leave it out"
            )
        # A plain text that is one of several numbers is compared digit by digit.
        as_words = not self.writes_json and not self._root.keys().isdisjoint({"const", "enum"})
        if constrained and not as_words and (reason := inexact_number(schema)) is not None:
            raise DefinitionError(
                f"action {name!r}: no answer can be held to {output!r} exactly ({reason}): "
                "make it a string, leave the bound out, or leave out constrained=True"
            )

    def __repr__(self) -> str:
        answer = getattr(self.output, "__name__", self.output)
        return f"ActionDef(name={self.name!r}, model={self.model!r}, output={answer!r})"

    def changed_by(self, retry: Retry | None) -> "ActionDef[T]":
        """This action as a decision wants it tried again; this action itself where it wants no change."""
        if retry is None:
            return self
        changed = copy.copy(self)
        changed.model = retry.model or self.model
        changed.sampling = retry.sampled(self.sampling)
        changed.thought_capture = retry.captured(self.thought_capture)
        changed.context = dict(retry.context)
        if changed.model != self.model and "task_queue" in changed.activity:
            # Another model has another queue than the one that was named for the first.
            changed.activity = self.activity.copy()
            del changed.activity["task_queue"]
        return changed

    @property
    def task_queue(self) -> str:
        """The queue this action is sent to."""
        return self.activity.get("task_queue") or gpu_queue(self.model)

    @property
    def output_schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        return self._schema

    @property
    def _root(self) -> dict[str, Any]:
        resolved = self._schema
        if "$ref" in resolved:
            resolved = resolved["$defs"][resolved["$ref"].rsplit("/", 1)[-1]]
        return resolved

    @cached_property
    def writes_json(self) -> bool:
        """Whether the answer is a JSON object or array, rather than the plain text of one value."""
        resolved = self._root
        return resolved.get("type") in ("object", "array") or "anyOf" in resolved or "oneOf" in resolved

    def parse(self, value: str) -> T:
        """The answer as a `T`.

        Args:
            value: The JSON text of the answer where `writes_json`, otherwise its plain text.

        Raises:
            ValueError: The text is not a `T`; the message lists where and why.
        """
        try:
            return self._adapter.validate_json(value) if self.writes_json else self._parse_text(value)
        except ValidationError as error:
            reasons = "; ".join(
                f"{'.'.join(str(part) for part in item['loc']) or 'the answer'}: {item['msg']}"
                for item in error.errors()
            )
            raise ValueError(reasons) from None

    def _parse_text(self, value: str) -> T:
        try:
            return self._adapter.validate_python(value)
        except ValidationError:
            # Numbers and flags of a Literal are themselves only in JSON; a quoted word stays a wrong word.
            if not value.startswith('"'):
                with suppress(ValidationError):
                    return self._adapter.validate_json(value)
            raise
