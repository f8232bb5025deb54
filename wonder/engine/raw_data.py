"""Raw states at rest: settings, the manifest, and the shards written and read against their digests."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from wonder.errors import ArtifactCorrupt, ArtifactError, ArtifactMissing, SettingNotSupported
from wonder.trace.artifacts import ArtifactRef, TensorSpec
from wonder.trace.store import ArtifactStore, DirectoryStore
from wonder.wire import Settings, WireModel, WireRecord

MANIFEST_FILE: Final = "manifest.json"
INDEX_KEYS: Final = ("text", "position", "token")
"""Of every row, I64: the number of its text, its position there, and the token at that position."""
DTYPES: Final = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64", "int64": "I64"}
LAYERS: Final = (
    "layer l is decoder block l, counted from 0. resid_pre goes into the block, resid_post comes out of it (before any "
    "final norm), resid_mid is the residual stream between attention and MLP; attn_out and mlp_out are what those "
    "modules give, before any norm or factor that the block applies to it"
)
POSITIONS: Final = (
    "position p is the state after reading token p, from which token p + 1 is predicted. prompt: the prompt's tokens; "
    "generated: the states that produced the answer's tokens, so the first is the prompt's last; last: the last token"
)

Site = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]
Layer = Annotated[int, Field(ge=0)]


class RawCapture(Settings):
    """Which states are kept."""

    layers: list[Layer] | None = None
    """None: every layer."""
    sites: list[Site] = Field(default=["resid_post"], min_length=1)
    positions: Literal["all", "prompt", "generated", "last"] | Annotated[list[int], Field(min_length=1)] = "all"
    """Or numbers; negative ones count from the end of each text."""
    dtype: Literal["model", "float32", "bfloat16", "float16"] = "model"
    """How states are stored; `model`: as they were computed."""
    rows_per_shard: int = Field(8192, ge=1)
    """Most rows of a shard, each one position of one text; a shard is held in memory while it is filled."""
    batching: Literal["equal", "padded"] = "equal"
    """`equal`: only texts of equal length share a pass. `padded`: shorter ones are filled up on the right, which their
    own positions never see; refused for models that do."""
    max_batch: int = Field(16, ge=1)
    """Most texts of a pass."""
    max_batch_tokens: int = Field(16384, ge=1)
    """Most rows × columns of a pass; a single text may exceed it."""


class RawShard(WireRecord):
    """Some consecutive texts."""

    ref: ArtifactRef
    rows: int
    first_text: int
    texts: int
    inputs_sha256: str
    """Of the texts' token ids and the positions kept: what makes the shard the same work when a run is resumed."""


class RawManifest(WireModel):
    """What a capture holds."""

    kind: Literal["wonder.raw"] = "wonder.raw"
    model: str
    revision: str
    fingerprint: str
    model_dtype: str
    dtype: str
    """Of the stored states."""
    n_layers: int
    d_model: int
    points: list[str]
    """Keys of the states in a shard, `<site>.<layer>`, each (rows, d_model)."""
    settings: RawCapture
    layer_convention: str = LAYERS
    position_convention: str = POSITIONS
    shards: list[RawShard] = Field(default_factory=list)
    complete: bool = False

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    def identity(self) -> dict[str, object]:
        """What must be equal for a run to go on where another stopped; how passes were shared is no part of it."""
        same = ("rows_per_shard", "positions")
        return {
            "model fingerprint": self.fingerprint,
            "model dtype": self.model_dtype,
            "dtype": self.dtype,
            "hook points": self.points,
            **{name: getattr(self.settings, name) for name in same},
        }


@dataclass
class Shelf:
    """Where a capture is written: shards go to the store at once, the manifest after each of them."""

    store: ArtifactStore
    manifest: RawManifest
    earlier: RawManifest | None
    save: Callable[[RawManifest], None]
    written: int = 0
    kept: int = 0

    def __post_init__(self) -> None:
        if self.earlier is None:
            return
        ours, theirs = self.manifest.identity(), self.earlier.identity()
        if different := [f"{name} {theirs[name]}, now {ours[name]}" for name in ours if ours[name] != theirs[name]]:
            raise SettingNotSupported(
                f"the capture there was begun with other settings ({'; '.join(different)}): use another folder"
            )

    def has(self, first_text: int, inputs_sha256: str) -> bool:
        """Whether the next shard was written already and is whole; then it is taken over."""
        number = len(self.manifest.shards)
        if self.earlier is None or number >= len(self.earlier.shards):
            return False
        shard = self.earlier.shards[number]
        if (shard.first_text, shard.inputs_sha256) != (first_text, inputs_sha256):
            raise SettingNotSupported(
                f"shard {number} of the capture there is of other texts: use another folder, or the same texts"
            )
        ref = shard.ref.model_copy(update={"uri": self.store.uri(shard.ref.sha256)})
        try:
            self.store.get(ref)
        except (ArtifactMissing, ArtifactCorrupt):
            return False
        self._add(shard.model_copy(update={"ref": ref}))
        self.kept += 1
        return True

    def put(self, tensors: Mapping[str, Tensor], first_text: int, texts: int, inputs_sha256: str) -> None:
        """Write the next shard."""
        rows = len(tensors["text"])
        specs = {name: _spec(tensor) for name, tensor in tensors.items()}
        ref = self.store.put(save(dict(tensors)), tensors=specs, content="raw states")
        self._add(RawShard(ref=ref, rows=rows, first_text=first_text, texts=texts, inputs_sha256=inputs_sha256))
        self.written += 1

    def finish(self) -> ArtifactRef:
        """Say that all is there; where the manifest is kept."""
        if self.earlier is not None and len(self.earlier.shards) > len(self.manifest.shards):
            raise SettingNotSupported(
                f"the capture there has {len(self.earlier.shards)} shards, these texts give "
                f"{len(self.manifest.shards)}: use another folder, or the same texts"
            )
        self.manifest = self.manifest.model_copy(update={"complete": True})
        self.save(self.manifest)
        return self.store.put(encoded(self.manifest), format="json", content="manifest of raw states")

    def _add(self, shard: RawShard) -> None:
        self.manifest = self.manifest.model_copy(update={"shards": [*self.manifest.shards, shard]})
        earlier = self.earlier.shards if self.earlier is not None else []
        if len(self.manifest.shards) >= len(earlier):  # never fewer than were known
            self.save(self.manifest)


class RawDataset:
    """A finished capture, shard by shard; every byte is checked against its digest before it is used."""

    def __init__(self, store: ArtifactStore, manifest: RawManifest, *, partial: bool = False) -> None:
        """Take a manifest that was read.

        Args:
            store: Where the shards are.
            manifest: Of the capture.
            partial: Take what an unfinished capture has so far.

        Raises:
            SettingNotSupported: The capture is not complete.
        """
        if not manifest.complete and not partial:
            raise SettingNotSupported(
                f"the capture is not complete ({len(manifest.shards)} shards so far): run it again with the same "
                "texts, or open it with partial=True"
            )
        self.store, self.manifest = store, manifest

    @classmethod
    def open(
        cls, where: Path | str | ArtifactStore, ref: ArtifactRef | None = None, *, partial: bool = False
    ) -> "RawDataset":
        """Open a folder, or the manifest that `ref` names in a store.

        Raises:
            ArtifactMissing: There is no capture.
            ArtifactCorrupt: The manifest was changed.
            SettingNotSupported: The capture is not complete.
        """
        if isinstance(where, Path | str):
            store: ArtifactStore = DirectoryStore(where)
            manifest = read_folder(Path(where))
            if manifest is None:
                raise ArtifactMissing(f"{where} has no {MANIFEST_FILE}: name the folder of a raw capture")
            if manifest.complete:
                _check_manifest(store, encoded(manifest), where)
        elif ref is None:
            raise SettingNotSupported("a store holds many things: give the reference of the manifest as well")
        else:
            here = ref.model_copy(update={"uri": where.uri(ref.sha256)})
            store, manifest = where, _parsed(where.get(here), here.uri)
        return cls(store, manifest, partial=partial)

    def __len__(self) -> int:
        """Rows of all shards."""
        return self.manifest.rows

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """The shards in order; see `shard`."""
        return (self.shard(number) for number in range(len(self.manifest.shards)))

    def shard(self, number: int) -> dict[str, Tensor]:
        """One shard: `text`, `position` and `token` (rows,), and the states of every point (rows, d_model).

        Raises:
            ArtifactMissing: It is gone.
            ArtifactCorrupt: It is not what was written.
        """
        shard = self.manifest.shards[number]
        # By its digest, so that a capture that was moved or copied is read where it is now.
        ref = shard.ref.model_copy(update={"uri": self.store.uri(shard.ref.sha256)})
        try:
            tensors: dict[str, Tensor] = load(self.store.get(ref))
            found = {name: _spec(tensor) for name, tensor in tensors.items()}
        except (SafetensorError, KeyError, ValueError) as error:
            raise ArtifactCorrupt(f"shard {number} at {ref.uri} is not a shard of raw states ({error})") from error
        dtype, width = DTYPES[self.manifest.dtype], [shard.rows, self.manifest.d_model]
        want = {name: TensorSpec(dtype="I64", shape=[shard.rows]) for name in INDEX_KEYS}
        want |= {name: TensorSpec(dtype=dtype, shape=width) for name in self.manifest.points}
        if found != want:
            raise ArtifactCorrupt(f"shard {number} at {ref.uri} does not hold what its manifest says: {sorted(found)}")
        return tensors


def encoded(manifest: RawManifest) -> bytes:
    """The manifest as it is written."""
    return manifest.model_dump_json(indent=1).encode()


def read_folder(folder: Path) -> RawManifest | None:
    """The manifest of a folder; None where there is none yet.

    Raises:
        ArtifactCorrupt: It cannot be read.
    """
    path = folder / MANIFEST_FILE
    return _parsed(path.read_bytes(), str(path)) if path.is_file() else None


def write_folder(folder: Path, manifest: RawManifest) -> None:
    """Replace the manifest of a folder, so that a crash leaves the old one or the new one."""
    part = folder / f".{MANIFEST_FILE}.{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as file:
        file.write(encoded(manifest))
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / MANIFEST_FILE)


def _parsed(data: bytes, where: str) -> RawManifest:
    try:
        return RawManifest.model_validate_json(data)
    except ValidationError as error:
        raise ArtifactCorrupt(f"{where} is not the manifest of a raw capture: {error.errors()[0]['msg']}") from error


def _check_manifest(store: ArtifactStore, data: bytes, where: object) -> None:
    """A finished manifest also lies in the store under its digest; one that was edited does not."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        store.get(ArtifactRef(uri=store.uri(digest), sha256=digest, bytes=len(data), format="json"))
    except ArtifactError as error:
        raise ArtifactCorrupt(f"the {MANIFEST_FILE} of {where} was changed: restore it from a backup") from error


def _spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(dtype=DTYPES[str(tensor.dtype).removeprefix("torch.")], shape=list(tensor.shape))
