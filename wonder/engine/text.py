"""Turns token ids into text piece by piece: the pieces joined are the text, and each token has its characters."""

from typing import Any, Final

CONTEXT: Final = 4
"""Tokens kept before the ones being decoded: some decoders drop the space of the first token they see."""
MARK: Final = "\ufffd"
PENDING_LIMIT: Final = 16
"""So many tokens that still are no character are given out as they are."""


class TextStream:
    """The text of one answer as it grows.

    `pieces[t]` is what token t added; joined, they are the raw text. A character written by several tokens (bytes of
    UTF-8) appears with the last of them. `spans[t]` are the characters of `text` that token t takes part in, where
    `text` is the answer without special tokens; a special token has an empty span.
    """

    def __init__(self, tokenizer: Any, special_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._special_ids = special_ids
        self._window: list[int] = []
        self._fresh = 0
        self._given = 0
        self.pieces: list[str] = []
        self.spans: list[tuple[int, int]] = []
        self.text = ""

    def push(self, token: int) -> str:
        """Add a token and give the text that has become certain."""
        if token in self._special_ids:
            self.flush()
            self._window, self._fresh, self._given = [], 0, 0
            self.pieces.append(self._decode([token]))
            self.spans.append((len(self.text), len(self.text)))
            return ""
        self._window.append(token)
        self._fresh += 1
        self.pieces.append("")
        self.spans.append((len(self.text), len(self.text)))
        whole = self._decode(self._window)
        # A character that lacks bytes decodes to replacement marks: to one, or to one per byte, or, where single bytes
        # are tokens, to one for every byte of the whole run, complete characters before it included.
        certain = whole if self._fresh >= PENDING_LIMIT else whole.rstrip(MARK)
        return self._give(whole, certain)

    def flush(self) -> str:
        """Give out what is still pending, as it is; for the end of the answer."""
        whole = self._decode(self._window) if self._fresh else ""
        return self._give(whole, whole) if self._fresh else ""

    def _give(self, whole: str, certain: str) -> str:
        new = certain[self._given :]
        if new:
            start = len(self.text)
            self.text += new
            self._given = len(certain)
            self.pieces[-1] += new
            self.spans[-1] = (self.spans[-1][0], len(self.text))
            # Tokens that wrote only bytes so far belong to the first character that appeared after them.
            for back in range(2, self._fresh + 1):
                left, right = self.spans[-back]
                if left == right == start:
                    self.spans[-back] = (start, start + 1)
        if certain == whole and len(certain) == self._given:
            self._keep_context(whole)
        return new

    def _keep_context(self, whole: str) -> None:
        """Forget all but a few tokens that start at a character: from the middle of one, the next are misread."""
        self._fresh = 0
        for count in range(CONTEXT, 0, -1):
            text = self._decode(self._window[-count:])
            if text and whole.endswith(text):
                self._window, self._given = self._window[-count:], len(text)
                return
        if len(self._window) > 2 * PENDING_LIMIT:
            self._window, self._given = [], 0

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))


class TokenNames:
    """Texts of single tokens (alternatives, prompt tokens), remembered because few of them make up most of the use."""

    def __init__(self, tokenizer: Any, limit: int = 65536) -> None:
        self._tokenizer = tokenizer
        self._limit = limit
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        """Text of one token, seen alone; the places of soft tokens have the ids −1, −2 and so on."""
        if token < 0:
            return f"<soft {-token}>"
        name = self._known.get(token)
        if name is None:
            if len(self._known) >= self._limit:
                self._known.clear()
            decoded = self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            name = self._known[token] = str(decoded)
        return name
