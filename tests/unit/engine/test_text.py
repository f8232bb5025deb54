from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from tests.unit.engine.conftest import byte_tokenizer
from wonder.embedded import embedded_path
from wonder.engine.text import TextStream

TOKENIZER = byte_tokenizer()


def sentence_tokenizer() -> Any:
    """Spaces as ▁ and unknown characters as byte tokens, as in Llama 2, Mistral and Gemma."""
    words = ["▁", "▁a", "b", "▁team", "é", "{", '"', ":", "}"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    inner = Tokenizer(
        models.BPE(vocab={name: at for at, name in enumerate(names)}, merges=[], byte_fallback=True, unk_token="<unk>")
    )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


SENTENCES = sentence_tokenizer()
SPECIAL = frozenset({0, 1, 2})


def stream(tokens: list[int], tokenizer: Any = TOKENIZER) -> TextStream:
    found = TextStream(tokenizer, SPECIAL)
    for token in tokens:
        found.push(token)
    found.flush()
    return found


@settings(deadline=None)
@given(st.text(max_size=40))
def test_the_pieces_joined_are_the_text(text: str) -> None:
    tokens = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    found = stream([*tokens, 2])
    assert "".join(found.pieces) == text + "</s>"
    assert found.text == text
    assert len(found.pieces) == len(found.spans) == len(tokens) + 1


@settings(deadline=None)
@given(st.text(max_size=40))
def test_every_byte_token_takes_part_in_its_own_character(text: str) -> None:
    found = stream(TOKENIZER(text, add_special_tokens=False)["input_ids"])
    at = 0
    for place, letter in enumerate(text):
        for _ in letter.encode():
            left, right = found.spans[at]
            assert left <= place < right
            at += 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), max_size=60))
def test_no_token_sequence_breaks_the_stream(tokens: list[int]) -> None:
    found = stream(tokens)
    assert len(found.pieces) == len(tokens)
    assert all(0 <= left <= right <= len(found.text) for left, right in found.spans)
    assert sum(len(piece) for piece, token in zip(found.pieces, tokens, strict=True) if token > 2) == len(found.text)


def test_special_tokens_stand_in_the_pieces_but_not_in_the_text() -> None:
    first, second = (TOKENIZER(word, add_special_tokens=False)["input_ids"] for word in ("ab", "c"))
    found = stream([*first, 1, *second, 2])
    assert found.pieces == ["a", "b", "<s>", "c", "</s>"]
    assert found.text == "abc"
    assert found.spans == [(0, 1), (1, 2), (2, 2), (2, 3), (3, 3)]


def test_text_of_the_embedded_model_is_what_its_tokenizer_decodes() -> None:
    from transformers import AutoTokenizer

    folder = embedded_path("support-desk")
    assert folder is not None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = ' {"team": "billing", "urgency": "høy"} – 好 🙂'
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = TextStream(tokenizer, frozenset(tokenizer.all_special_ids))
    for token in tokens:
        found.push(token)
    found.flush()
    assert "".join(found.pieces) == tokenizer.decode(tokens) == text


@settings(deadline=None)
@given(st.lists(st.sampled_from([" ", " a", "b", " team", "é", "{", '"', ":", "}", "好", "🙂", "ß"]), max_size=30))
def test_pieces_of_a_sentence_tokenizer_joined_are_what_it_decodes(parts: list[str]) -> None:
    tokens: list[int] = []
    for part in parts:
        known = SENTENCES.convert_tokens_to_ids(part.replace(" ", "▁"))
        known = None if known == 0 else known
        tokens += [known] if known is not None else [3 + byte for byte in part.encode()]
    found = TextStream(SENTENCES, frozenset({0, 1, 2}))
    for token in tokens:
        found.push(token)
    found.flush()
    assert "".join(found.pieces) == SENTENCES.decode(tokens)
    assert found.text == "".join(parts).removeprefix(" ")


@pytest.mark.parametrize("count", [200, 400])
def test_decoding_looks_at_a_window_only(count: int) -> None:
    longest = 0

    class Watched:
        def decode(self, tokens: list[int], **options: Any) -> str:
            nonlocal longest
            longest = max(longest, len(tokens))
            return str(TOKENIZER.decode(tokens, **options))

    stream([200] * count + [100] * count, Watched())
    assert longest <= 50
