"""What is checked of a request before it may take up the model's time; on the caller's thread."""

from typing import Any, Final, TypeVar

from pydantic import ValidationError

from wonder.engine.loop import Runtime
from wonder.engine.request import EngineRequest
from wonder.errors import PromptTooLong, SettingNotSupported
from wonder.wire import Settings

S = TypeVar("S", bound=Settings)

CHARACTERS_PER_TOKEN: Final = 16
"""More than any tokenizer packs into a token on average: a prompt with more is first measured by its beginning."""
SLACK: Final = 16
"""Tokens by which the end of a beginning may be cut differently."""
MOST_STOPS: Final = 64
"""Stop strings of a request; they are looked for on the thread that everybody shares."""


def prompt_tokens(runtime: Runtime, request: EngineRequest, model: str, most: int, soft: int = 0) -> list[int]:
    """Check the sampling and the length of a request, and tokenize its prompt.

    Args:
        runtime: Of the model.
        request: To be checked.
        model: Its name, for messages.
        most: Tokens that a prompt and its answer may have together where the model does not say.
        soft: Soft tokens that the prompt will have besides; they need room too.

    Raises:
        SettingNotSupported: A sampling setting out of range, or a prompt without tokens.
        PromptTooLong: Prompt and answer do not fit into the model.
    """
    sampling = checked("sampling", request.sampling)
    if len(sampling.stop) > MOST_STOPS:
        raise SettingNotSupported(
            f"sampling.stop has {len(sampling.stop)} strings; every token is searched for all of them, so that "
            f"{MOST_STOPS} are the most: name those that really occur"
        )
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
    if len(tokens) + soft + wanted > room:
        beside = f" and {soft} soft ones" if soft else ""
        raise PromptTooLong(
            f"the prompt has {len(tokens)} tokens{beside} and max_new_tokens is {wanted}, together "
            f"{len(tokens) + soft + wanted}; "
            f"{model} has room for {room}: shorten the prompt, or lower max_new_tokens"
        )
    return tokens


def checked(name: str, settings: S) -> S:
    """Settings that were built without validation are validated here: they come from outside.

    Raises:
        SettingNotSupported: A setting is out of range.
    """
    try:
        return type(settings).model_validate(settings.model_dump(warnings=False))
    except ValidationError as error:
        found = error.errors()[0]
        path = ".".join(str(part) for part in [name, *found["loc"]])
        raise SettingNotSupported(f"{path} is {repr(found['input'])[:200]}: {found['msg']}") from None


def _tokenize(tokenizer: Any, prompt: str) -> list[int]:
    # A chat template may have written the first token already; the tokenizer would add a second one.
    begun = bool(tokenizer.bos_token) and prompt.startswith(str(tokenizer.bos_token))
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise SettingNotSupported(
            f"the prompt is no text: character {error.start} is half of a pair ({prompt[error.start]!r}); "
            "decode what it was read from as UTF-8"
        ) from None
    return [int(token) for token in tokenizer(prompt, add_special_tokens=not begun, verbose=False)["input_ids"]]
