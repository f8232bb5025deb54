"""What a lens bundle says about itself: target, prompt, training data and how much its texts are worth; torch-free.

```
<name>/lens.json          written last: this manifest, with the digest of every other file and of itself
<name>/lens.safetensors   mean activation, injection maps, the encoder's head
<name>/decoder/           a Hugging Face folder, with the tokenizer
<name>/encoder/           a Hugging Face folder of the blocks up to the layer
```

Of a lens that was trained as adapters, the two folders hold `adapter.safetensors` instead of a model.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from wonder.errors import CorruptBundle, LensMismatch
from wonder.trace.explanation import Fidelity
from wonder.wire import NonNegative, Probability, WireModel, WireRecord

LENS_FILE: Final = "lens.json"
TENSORS_FILE: Final = "lens.safetensors"
DECODER: Final = "decoder"
ENCODER: Final = "encoder"
PIECE: Final = 4 * 2**20

NAME: Final = r"^[a-z0-9][a-z0-9_-]*$"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Injection = Literal["projection", "scale", "per_layer", "additive"]
"""How a state enters the decoder. `projection`: as a token W((A − mean)·s) + b, W beginning as the identity. `scale`:
as a token of fixed length in its direction. `per_layer`: the token is written again before each of the first blocks,
each with a map of its own. `additive`: the direction is added to the state after block 1, as long as that state."""


class LensTarget(WireRecord):
    """The frozen model whose states are put into words, and where they are read."""

    model: str
    revision: str = ""
    fingerprint: Sha256
    dtype: str
    quantization: str = "none"
    layer: int = Field(ge=0)
    """Block, counted from 0."""
    site: Literal["resid_post"] = "resid_post"
    """The block's output, before any final norm, after the token at the position was read."""
    n_layers: int = Field(gt=0)
    d_model: int = Field(gt=0)
    vocabulary: int = Field(gt=0)
    tokenizer_digest: Sha256


class PromptToken(WireRecord):
    """A token that the lens was trained with, by number and by name, so that another tokenizer shows."""

    id: int = Field(ge=0)
    piece: str


class LensPrompt(WireRecord):
    """How a state enters the decoder, and what the decoder may say."""

    left: list[PromptToken]
    """Before the state, which stands as one token."""
    right: list[PromptToken]
    forbidden: list[PromptToken]
    """Never spoken."""
    encoder_left: list[PromptToken]
    """Before the text, where the encoder reads it."""
    injection: Injection
    written_blocks: int = Field(default=1, ge=1)
    """Blocks before which `per_layer` writes the state."""
    scale: float = Field(gt=0)
    """By which a centred state becomes as long as a token's embedding."""
    length: int = Field(gt=0)
    """Tokens of a text."""


class LensMetrics(WireRecord):
    """What the texts are worth, on held-out documents."""

    fve: Fidelity
    """Fraction of variance explained by greedy texts."""
    kl_recovered: Fidelity | None = None
    """1 − KL(own ‖ with Â) / KL(own ‖ with the mean) of the next-token distributions, with its interval."""
    kl_mean_nats: NonNegative | None = None
    """The denominator."""
    controls: dict[str, Fidelity] = Field(default_factory=dict)
    """Control (`shuffled`, `random_words`, `true_tail`, `ridge_8` …) → fraction of variance explained."""
    documents: int = Field(gt=0)
    data_sha256: Sha256
    """Digest of the states it was measured on: two lenses compare only on the same ones."""
    norm_ratio: NonNegative | None = None
    cosine: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """Of centred vectors."""
    nll_nats: NonNegative | None = None
    """Per token of the texts, under the target after a neutral prompt."""
    distinct_share: Probability | None = None


class LensTraining(WireRecord):
    """What it was trained on."""

    statistics_sha256: Sha256
    """Of mean and variance of the training states."""
    variance: float = Field(gt=0)
    """V = E‖A − mean‖² of the training states."""
    data_sha256: str = ""
    """Digest of the training data's manifest."""
    spec_sha256: str = ""
    """Digest of the run's specification."""
    steps: int = Field(default=0, ge=0)
    rows: int = Field(default=0, ge=0)


class BundleFile(WireRecord):
    """A file of a bundle."""

    name: str
    """With `/` between folders."""
    bytes: int = Field(ge=0)
    sha256: Sha256

    @model_validator(mode="after")
    def _stays_inside(self) -> Self:
        if self.name.startswith(("/", ".")) or "\\" in self.name or ".." in self.name.split("/"):
            raise ValueError(f"{self.name!r} is no file of a bundle")
        return self


class LensManifest(WireModel):
    """Everything about a lens but its weights; unknown fields are ignored, so later versions can add some."""

    kind: Literal["lens"] = "lens"
    name: str = Field(pattern=NAME, max_length=100)
    target: LensTarget
    prompt: LensPrompt
    metrics: LensMetrics
    training: LensTraining
    weights: Literal["full", "adapters"] = "full"
    """`full`: decoder and encoder are models of their own. `adapters`: low-rank additions to the target itself, whose
    weights are those of `target.fingerprint` and not part of the bundle."""
    files: list[BundleFile] = Field(default_factory=list)
    """All but this one."""
    created: date
    parent: str | None = None
    """Id of the bundle that this one replaces."""
    digest: Sha256 | None = None
    """Of all the rest in canonical JSON; filled in when the bundle is written."""

    def check_fits(self, fingerprint: str, d_model: int, n_layers: int, vocabulary: int) -> None:
        """Refuse a model whose states the lens was not trained on.

        Raises:
            LensMismatch: Another fingerprint, width, depth or vocabulary.
        """
        want = self.target
        for name, mine, theirs in (
            ("width", want.d_model, d_model),
            ("layers", want.n_layers, n_layers),
            ("vocabulary", want.vocabulary, vocabulary),
        ):
            if mine != theirs:
                raise LensMismatch(
                    f"lens {self.id} was trained on a model of {name} {mine} (layer {want.layer} of {want.model!r}), "
                    f"this one has {theirs}: serve {want.model!r}, or train a lens for this model"
                )
        if fingerprint != want.fingerprint:
            raise LensMismatch(
                f"lens {self.id} was trained on {want.model!r} (revision {want.revision or 'unknown'}, fingerprint "
                f"{want.fingerprint[:12]}), this model has fingerprint {fingerprint[:12]}: serve those weights, in "
                f"{want.dtype}, or train a lens for these"
            )

    @property
    def id(self) -> str:
        """`<name>@<first 12 digits of the digest>`."""
        return f"{self.name}@{(self.digest or '')[:12]}"

    def sealed(self, files: Sequence[BundleFile]) -> Self:
        """With its files and its digest."""
        open_ = self.model_copy(update={"files": list(files), "digest": None})
        return open_.model_copy(update={"digest": digest_of(open_.model_dump(mode="json"))})


def digest_of(document: dict[str, Any]) -> str:
    """SHA-256 of a manifest's canonical JSON without its digest."""
    rest = {key: value for key, value in document.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(folder: Path) -> LensManifest:
    """The manifest of a bundle; its files are not looked at.

    Raises:
        CorruptBundle: There is none, or it was changed.
    """
    path = folder / LENS_FILE
    try:
        document = json.loads(path.read_bytes())
        found = LensManifest.model_validate(document)
    except FileNotFoundError:
        raise CorruptBundle(f"{folder} has no {LENS_FILE}: name the folder of a lens bundle") from None
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        said = str(error).splitlines()[0] if not isinstance(error, ValidationError) else _first(error)
        raise CorruptBundle(f"{path} is not the manifest of a lens ({said}): export it again") from None
    if digest_of(document) != found.digest:
        raise CorruptBundle(f"{path} was changed after it was written: fetch the bundle again")
    return found


def check_files(folder: Path, manifest: LensManifest) -> None:
    """Compare every file of a bundle with what was written.

    Raises:
        CorruptBundle: One is missing, cut, changed, or stands there unasked, where loading might pick it up.
    """
    known = {file.name for file in manifest.files}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if missing := sorted(known - there):
        raise CorruptBundle(f"{folder} has no {missing[0]}, which its manifest names: copy it whole")
    if unasked := sorted(there - known - {LENS_FILE}):
        raise CorruptBundle(f"{folder} holds {unasked[0]}, which its manifest does not name: remove it")
    for file in manifest.files:
        path = folder / file.name
        found = file_of(folder, path)
        if found != file:
            raise CorruptBundle(
                f"{path} has {found.bytes} bytes and sha256 {found.sha256[:12]}, its manifest says {file.bytes} and "
                f"{file.sha256[:12]}: fetch it again"
            )


def file_of(folder: Path, path: Path) -> BundleFile:
    """What a manifest says of a file."""
    digest, count = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            count += len(piece)
    return BundleFile(name=path.relative_to(folder).as_posix(), bytes=count, sha256=digest.hexdigest())


def _first(error: ValidationError) -> str:
    item = error.errors()[0]
    return f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
