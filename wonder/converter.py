"""The data converter: plain JSON through pydantic, where bad input ends a workflow instead of blocking it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import DataConverter, DefaultPayloadConverter
from temporalio.exceptions import ApplicationError

from wonder.errors import DefinitionError

INPUT_ERROR = "PayloadValidationError"
"""Type of the failure of a workflow whose input does not fit; the name the SDK reserves for it."""


class WonderPayloadConverter(PydanticPayloadConverter):
    """Pydantic JSON; a payload that does not fit its type is a failure that nobody retries.

    Without this, input that a person typed wrongly fails the workflow *task*, which Temporal repeats for ever.
    """

    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        """Decode, or fail with the list of what is wrong."""
        try:
            return super().from_payloads(payloads, type_hints)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            sentence = "; ".join(
                f"{'.'.join(str(part) for part in problem['loc']) or 'the whole'}: {problem['msg']}"
                for problem in problems
            )
            raise ApplicationError(
                f"this JSON is not a {error.title} ({sentence}): correct it and start again",
                problems,
                type=INPUT_ERROR,
                non_retryable=True,
            ) from None


data_converter = replace(pydantic_data_converter, payload_converter_class=WonderPayloadConverter)
"""For clients that are set up without `WonderPlugin`."""


def compose(existing: DataConverter | None) -> DataConverter:
    """Put Wonder's payload converter into a client's data converter, keeping its codec and storage.

    Raises:
        DefinitionError: The client has a payload converter of its own that is not pydantic's.
    """
    if existing is None:
        return data_converter
    current = existing.payload_converter_class
    if issubclass(current, WonderPayloadConverter):
        return existing
    if current in (DefaultPayloadConverter, PydanticPayloadConverter):
        return replace(existing, payload_converter_class=WonderPayloadConverter)
    if issubclass(current, PydanticPayloadConverter):
        return existing
    raise DefinitionError(
        f"the client has the payload converter {current.__name__}, and Wonder's types need pydantic: "
        "derive it from wonder.converter.WonderPayloadConverter, or leave it out and use a payload codec"
    )
