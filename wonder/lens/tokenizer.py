"""Tells tokenizers apart, so that a lens is never given another one's numbers for words; torch-free."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from wonder.errors import LensMismatch
from wonder.lens.manifest import LensManifest, PromptToken


def tokenizer_digest(tokenizer: Any) -> str:
    """Digest of what a tokenizer does: of its rules where it can tell them, else of its vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _digest([sorted(tokenizer.get_vocab().items()), sorted(map(str, tokenizer.all_special_tokens))])
    rules = json.loads(backend.to_str())
    # Set by calls that cut or fill, and no part of how text becomes tokens.
    return _digest({key: rules[key] for key in rules if key not in ("truncation", "padding")})


def prompt_tokens(tokenizer: Any, ids: Sequence[int]) -> list[PromptToken]:
    """Ids with their names."""
    return [PromptToken(id=id, piece=piece_of(tokenizer, id)) for id in ids]


def piece_of(tokenizer: Any, id: int) -> str:
    """The name of a token; empty where the tokenizer has none for it."""
    try:
        found = tokenizer.convert_ids_to_tokens(id)
    except (IndexError, OverflowError):
        found = None
    return "" if found is None else str(found)


def check_tokenizer(manifest: LensManifest, tokenizer: Any) -> None:
    """Refuse a tokenizer under which the lens's prompt would be other words.

    Raises:
        LensMismatch: It is not the one that the lens was trained with.
    """
    prompt = manifest.prompt
    for token in (*prompt.left, *prompt.right, *prompt.encoder_left, *prompt.forbidden):
        if (found := piece_of(tokenizer, token.id)) != token.piece:
            raise LensMismatch(
                f"lens {manifest.id} was trained with token {token.id} = {token.piece!r}, this tokenizer has {found!r} "
                f"there: serve {manifest.target.model!r} with its own tokenizer"
            )
    if (digest := tokenizer_digest(tokenizer)) != manifest.target.tokenizer_digest:
        raise LensMismatch(
            f"lens {manifest.id} was trained with the tokenizer {manifest.target.tokenizer_digest[:12]}, this one is "
            f"{digest[:12]}: serve {manifest.target.model!r} with its own tokenizer"
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
