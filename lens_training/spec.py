"""What a lens's data are made from: frozen specifications, each with the digest that names it."""

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from wonder.errors import SpecError

Split = Literal["train", "val", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")
MAX_ROWS_PER_SHARD: Final = 65_536

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Some = TypeVar("Some", bound="Spec")


class Spec(BaseModel):
    """A part of a specification: frozen, a misspelt name is refused, every number is finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON: the same for two specifications that say the same."""
        return digest_of(self.model_dump(mode="json"))


class CorpusSpec(Spec):
    """Which texts, and how they become tokens."""

    source: Literal["text", "jsonl", "dataset"]
    """`text`: a folder of .txt files. `jsonl`: a file, or a folder of .jsonl files. `dataset`: a folder that Hugging
    Face's `save_to_disk` wrote."""
    path: str = Field(min_length=1)
    field: str = Field("text", min_length=1)
    """Where the text is, in a line of JSON or a row of a dataset."""
    document: Literal["file", "line"] = "file"
    """What one document of a text folder is."""
    tokenizer: str = ""
    """Name or folder; empty: the target's own, which it has to be anyway."""
    first_token: bool = True
    """Whether each document begins with the token that the tokenizer puts first."""
    max_documents: int | None = Field(None, ge=1)
    max_document_bytes: int = Field(8 * 2**20, ge=1)
    """A longer document is refused, so that memory stays bounded."""
    tokens_per_shard: int = Field(32 * 2**20, ge=1)


class TargetSpec(Spec):
    """The frozen model, and where it is read."""

    model: str = Field(min_length=1)
    revision: str = ""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["none", "8bit", "4bit", "int8"] = "none"
    """A lens of a quantised model is a lens of that model: use the same at every stage."""
    layer: int = Field(ge=0)
    """Block whose output is read, counted from 0."""


class Shares(Spec):
    """Which part of the documents goes to which split."""

    train: Share = 0.9
    val: Share = 0.05
    test: Share = 0.05

    @model_validator(mode="after")
    def _sum(self) -> Self:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"train, val and test sum to {total:g}, and must sum to 1")
        if self.train == 0:
            raise ValueError("train is 0, so there would be nothing to learn from: give it a share")
        return self


class DumpSpec(Spec):
    """Which positions are kept, and how they are laid out."""

    positions_per_document: int = Field(10, ge=1)
    minimum_position: int = Field(8, ge=0)
    """The first position that may be drawn: before it there is too little to put into words."""
    context_length: int = Field(128, ge=2)
    """Most tokens of a context."""
    window: Literal["start", "random"] = "start"
    """Of a longer document: its beginning, or anywhere in it."""
    final: bool = True
    """Also keep the state that the head reads, so that the original logits need no second pass."""
    rows_per_shard: int = Field(MAX_ROWS_PER_SHARD, ge=1, le=MAX_ROWS_PER_SHARD)
    tokens_per_pass: int = Field(16_384, ge=1)
    """Most rows × columns of a forward pass; a single document may exceed it."""
    shares: Shares = Shares()
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.minimum_position >= self.context_length:
            raise ValueError(
                f"minimum_position {self.minimum_position} lies outside contexts of context_length "
                f"{self.context_length}: raise the one or lower the other"
            )
        if self.positions_per_document > self.rows_per_shard:
            raise ValueError(
                f"positions_per_document {self.positions_per_document} does not fit into rows_per_shard "
                f"{self.rows_per_shard}: a document is never divided"
            )
        return self


class DataSpec(Spec):
    """From texts to activations; what the stages `tokens`, `dump` and `merge` read."""

    folder: str = Field(min_length=1)
    """Where `tokens/` and `activations/` are made. No part of the digests."""
    corpus: CorpusSpec
    target: TargetSpec
    dump: DumpSpec = DumpSpec()

    @property
    def tokenizer(self) -> str:
        """Name or folder of the tokenizer."""
        return self.corpus.tokenizer or self.target.model

    @property
    def tokens(self) -> Path:
        """Folder of the token shards."""
        return Path(self.folder) / "tokens"

    @property
    def activations(self) -> Path:
        """Folder of the activation shards."""
        return Path(self.folder) / "activations"


def digest_of(value: Any) -> str:
    """SHA-256 of a value as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def parse(kind: type[Some], value: Any, where: str = "the specification") -> Some:
    """Read a specification.

    Raises:
        SpecError: It cannot be; every mistake is named.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        mistakes = "; ".join(_sentence(kind, item) for item in error.errors())
        raise SpecError(f"{where}: {mistakes}") from None


def load(kind: type[Some], path: Path) -> Some:
    """Read a specification from a JSON file.

    Raises:
        SpecError: There is no such file, it is not JSON, or it cannot be.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}): name a JSON file") from None
    except ValueError as error:
        raise SpecError(f"{path} is not JSON ({error})") from None
    return parse(kind, value, str(path))


def _sentence(kind: type[Spec], item: ErrorDetails) -> str:
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        name = str(item["loc"][-1])
        known = sorted(_at(kind, item["loc"][:-1]).model_fields)
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"it may have {', '.join(known)}"
        return f"{place} is no setting: {hint}"
    if item["type"] == "missing":
        return f"{place} is missing"
    message = item["msg"].removeprefix("Value error, ")
    return f"{place} is {item['input']!r}: {message}" if place and item["type"] != "value_error" else message


def _at(kind: type[Spec], path: tuple[int | str, ...]) -> type[Spec]:
    for part in path:
        found = kind.model_fields[str(part)].annotation
        if isinstance(found, type) and issubclass(found, Spec):
            kind = found
    return kind
