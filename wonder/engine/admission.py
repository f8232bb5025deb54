"""What is checked of a request before it may take up the model's time; on the caller's thread."""

from typing import Any, Final

from pydantic import ValidationError

from wonder.engine.loop import Runtime
from wonder.engine.request import EngineRequest
from wonder.errors import PromptTooLong, SettingNotSupported
from wonder.trace.sampling import Sampling

CHARACTERS_PER_TOKEN: Final = 16
"""More than any tokenizer packs into a token on average: a prompt with more is first measured by its beginning."""
SLACK: Final = 16
"""Tokens by which the end of a beginning may be cut differently."""


def prompt_tokens(runtime: Runtime, request: EngineRequest, model: str, most: int) -> list[int]:
    """Check the sampling and the length of a request, and tokenize its prompt.

    Args:
        runtime: Of the model.
        request: To be checked.
        model: Its name, for messages.
        most: Tokens that a prompt and its answer may have together where the model does not say.

    Raises:
        SettingNotSupported: A sampling setting out of range, or a prompt without tokens.
        PromptTooLong: Prompt and answer do not fit into the model.
    """
    sampling = _checked(request.sampling)
    room = runtime.anatomy.context_length or most
    beginning = request.prompt[: room * CHARACTERS_PER_TOKEN]
    if len(beginning) < len(request.prompt):
        count = len(_tokenize(runtime.tokenizer, beginning)) - SLACK
        if count > room:
            raise PromptTooLong(
                f"the prompt has {len(request.prompt)} characters, more than {count} tokens; {model} has room for "
                f"{room} with the answer: shorten the prompt"
            )
    tokens = _tokenize(runtime.tokenizer, request.prompt)
    if not tokens:
        raise SettingNotSupported("the prompt has no tokens: write at least one word")
    wanted = sampling.max_new_tokens
    if len(tokens) + wanted > room:
        raise PromptTooLong(
            f"the prompt has {len(tokens)} tokens and max_new_tokens is {wanted}, together {len(tokens) + wanted}; "
            f"{model} has room for {room}: shorten the prompt, or lower max_new_tokens"
        )
    return tokens


def _checked(sampling: Sampling) -> Sampling:
    """A sampling that was built without validation is validated here: it comes from outside."""
    try:
        return Sampling.model_validate(sampling.model_dump())
    except ValidationError as error:
        found = error.errors()[0]
        name = ".".join(str(part) for part in found["loc"])
        raise SettingNotSupported(f"sampling.{name} is {found['input']!r}: {found['msg']}") from error


def _tokenize(tokenizer: Any, prompt: str) -> list[int]:
    # A chat template may have written the first token already; the tokenizer would add a second one.
    begun = bool(tokenizer.bos_token) and prompt.startswith(str(tokenizer.bos_token))
    return [int(token) for token in tokenizer(prompt, add_special_tokens=not begun, verbose=False)["input_ids"]]
