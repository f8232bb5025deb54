"""Activations at rest: which documents make which shard, the shards themselves, and their merge into one manifest."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from lens_training.artifacts import (
    CHUNK,
    FileEntry,
    Manifest,
    is_whole,
    publish_manifest,
    publishing,
    read_manifest,
    sweep,
    verify,
)
from lens_training.moments import Moments, NormCounts, percentiles
from lens_training.positions import RULE, rows_of, split_of
from lens_training.spec import SPLITS, DumpSpec, Split
from lens_training.tokens import TokenStore
from wonder.errors import ArtifactCorrupt, ArtifactMissing, SpecError

# Shape suffixes: N rows, D d_model.

PLAN: Final = "plan.json"
STATISTICS: Final = "statistics.safetensors"
LAYER: Final = "resid_post of the block: its output, before any final norm; the state after reading the token at pos"
DTYPES: Final = {
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
}


class Source(BaseModel):
    """What the activations are of."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    revision: str
    fingerprint: str
    model_dtype: str
    quantization: str
    layer: int
    layer_convention: str = LAYER
    n_layers: int
    d_model: int
    vocabulary: int


class PlanShard(BaseModel):
    """Consecutive documents, up to but without `last_document`, and the rows they give."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    first_document: int
    last_document: int
    rows: int


class Plan(Manifest):
    """The work of a dump; every worker comes to the same one."""

    kind: Literal["lens.plan"] = "lens.plan"
    tokens_digest: str
    spec: DumpSpec
    source: Source
    shards: list[PlanShard]
    rows: dict[Split, int]
    documents: dict[Split, int]
    """That give rows."""


class ShardManifest(Manifest):
    """A finished shard; its file is the first of `files`."""

    kind: Literal["lens.shard"] = "lens.shard"
    plan: str
    number: int
    rows: dict[Split, int]
    """In this order in the file."""
    longest: int
    norms: dict[int, int]
    """Of the rows of `train`."""


class ActivationManifest(Manifest):
    """A finished dump."""

    kind: Literal["lens.activations"] = "lens.activations"
    plan: str
    tokens_digest: str
    spec: DumpSpec
    source: Source
    rule: str = RULE
    shard_rows: list[dict[Split, int]]
    rows: dict[Split, int]
    documents: dict[Split, int]
    longest: int
    """Most tokens of a context."""
    variance: float
    """E‖A − mean‖² over the rows of `train`, as they are stored."""
    mean_norm: float
    """‖mean‖."""
    norm_percentiles: dict[str, float]
    """Of ‖A‖ over the rows of `train`, within 1 %."""


@dataclass(frozen=True)
class Rows:
    """The content of a shard."""

    activation_ND: Tensor
    final_ND: Tensor | None
    document_N: NDArray[np.int64]
    start_N: NDArray[np.int64]
    pos_N: NDArray[np.int32]
    rows: dict[Split, int]


def name_of(number: int) -> str:
    """The file of a shard."""
    return f"act-{number:05d}.safetensors"


def make_plan(store: TokenStore, spec: DumpSpec, source: Source) -> Plan:
    """Lay the work out: shards of whole documents, whoever fills them.

    Raises:
        SpecError: A split would stay empty.
    """
    rows = dict.fromkeys(SPLITS, 0)
    documents = dict.fromkeys(SPLITS, 0)
    shards: list[PlanShard] = []
    first = held = at = 0
    for number in range(len(store.manifest.shards)):
        counts = rows_of(np.diff(store.offsets(number)), spec)
        for count, content in zip(counts.tolist(), store.content(number).tolist(), strict=True):
            if held + count > spec.rows_per_shard:
                shards.append(PlanShard(first_document=first, last_document=at, rows=held))
                first, held = at, 0
            if count:
                split = SPLITS[split_of(content, spec)]
                rows[split] += count
                documents[split] += 1
            held += count
            at += 1
    shards.append(PlanShard(first_document=first, last_document=at, rows=held))
    _check_splits(spec, documents, len(store))
    return Plan(
        files=[],
        tokens_digest=store.manifest.digest(),
        spec=spec,
        source=source,
        shards=shards,
        rows=rows,
        documents=documents,
    )


def agree(folder: Path, plan: Plan) -> None:
    """Write the plan down, or find that it is the one that is there.

    Raises:
        SpecError: The folder holds another dump.
        StoreNotUsable: The disk is full.
    """
    try:
        earlier = read_manifest(Plan, folder, PLAN)
    except ArtifactMissing:
        publish_manifest(folder, plan, PLAN)
        return
    if earlier.digest() != plan.digest():
        mine, theirs = plan.model_dump(), earlier.model_dump()
        different = sorted(key for key in mine if mine[key] != theirs[key])
        raise SpecError(f"{folder} holds another dump (its {', '.join(different)} differ): use another folder")


def finished(folder: Path, plan: Plan, number: int) -> ShardManifest | None:
    """A shard that an earlier run, or another worker, has published whole; None if it is still to be made."""
    sweep(folder, [name_of(number), f"act-{number:05d}.json"])
    try:
        found = read_manifest(ShardManifest, folder, f"act-{number:05d}.json")
    except (ArtifactMissing, ArtifactCorrupt):
        return None
    if found.plan != plan.digest() or not is_whole(folder, found.files[0]):
        return None
    return found


def publish_shard(folder: Path, plan: Plan, number: int, rows: Rows) -> ShardManifest:
    """Write a shard: first its file, then that it is there.

    Raises:
        StoreNotUsable: The disk is full.
    """
    train_ND = rows.activation_ND[: rows.rows["train"]]
    moments, norms = Moments.of(train_ND), NormCounts()
    norms.add(train_ND)
    tensors = {
        "doc": torch.from_numpy(rows.document_N),
        "start": torch.from_numpy(rows.start_N),
        "train_mean": moments.mean_D,
        "train_m2": moments.m2_D,
        "pos": torch.from_numpy(rows.pos_N),
        "A": rows.activation_ND,
        **({} if rows.final_ND is None else {"H": rows.final_ND}),
    }
    entry = write_tensors(folder / name_of(number), tensors)
    found = ShardManifest(
        files=[entry],
        plan=plan.digest(),
        number=number,
        rows=rows.rows,
        longest=int(rows.pos_N.max(initial=-1)) + 1,
        norms=norms.counts,
    )
    publish_manifest(folder, found, f"act-{number:05d}.json")
    return found


def merge(folder: Path, others: Iterable[Path] = ()) -> ActivationManifest:
    """Make one dump of what workers wrote here or in other folders, after checking every byte.

    Raises:
        ArtifactMissing: A shard is not there yet.
        ArtifactCorrupt: A shard was cut or changed.
        SpecError: Another folder holds another dump.
        StoreNotUsable: The disk is full.
    """
    places = [folder, *others]
    plans = [read_manifest(Plan, place, PLAN) for place in places if (place / PLAN).exists()]
    if not plans:
        raise ArtifactMissing(f"{folder} has no {PLAN}: no dump was begun there")
    plan = plans[0]
    agree(folder, plan)
    if any(other.digest() != plan.digest() for other in plans):
        raise SpecError(f"{', '.join(map(str, places))} hold different dumps: merge slices of one")
    shards = [_brought(places, plan, number) for number in range(len(plan.shards))]
    moments, norms = Moments.none(plan.source.d_model), NormCounts()
    for shard in shards:
        mean, m2 = (tensor(folder / name_of(shard.number), name) for name in ("train_mean", "train_m2"))
        moments = moments.merged(Moments(shard.rows["train"], mean, m2))
        norms.merge(shard.norms)
    statistics = write_tensors(folder / STATISTICS, {"mean": moments.mean_D, "variance": moments.variance_D})
    manifest = ActivationManifest(
        files=[*(shard.files[0] for shard in shards), statistics],
        plan=plan.digest(),
        tokens_digest=plan.tokens_digest,
        spec=plan.spec,
        source=plan.source,
        shard_rows=[shard.rows for shard in shards],
        rows=plan.rows,
        documents=plan.documents,
        longest=max(shard.longest for shard in shards),
        variance=float(moments.variance_D.sum()),
        mean_norm=float(moments.mean_D.norm()),
        norm_percentiles=percentiles(norms.counts),
    )
    publish_manifest(folder, manifest)
    return manifest


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> FileEntry:
    """Publish tensors as safetensors, straight from their memory."""
    header: dict[str, Any] = {}
    at = 0
    for name, value in tensors.items():
        size = value.numel() * value.element_size()
        header[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with publishing(path) as part:
        part.write(len(text).to_bytes(8, "little"))
        part.write(text)
        for value in tensors.values():
            if value.numel():
                part.write(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return part.entry(path.name)


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a file."""

    dtype: str
    shape: list[int]
    offset: int


def layout(path: Path) -> dict[str, Place]:
    """Where each tensor of a safetensors file lies.

    Raises:
        ArtifactCorrupt: It is no such file, or is cut.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length)) if length < path.stat().st_size else {}
        return {
            name: Place(value["dtype"], value["shape"], 8 + length + value["data_offsets"][0])
            for name, value in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ArtifactCorrupt(f"{path} is no safetensors file ({error}): make it anew") from None


def tensor(path: Path, name: str) -> Tensor:
    """One small tensor of a file, in memory of its own."""
    place = layout(path)[name]
    dtype = {known: dtype for dtype, known in DTYPES.items()}[place.dtype]
    with path.open("rb") as file:
        file.seek(place.offset)
        data = bytearray(file.read(prod(place.shape) * dtype.itemsize))
    return torch.frombuffer(data, dtype=dtype).reshape(place.shape)


def _brought(places: list[Path], plan: Plan, number: int) -> ShardManifest:
    """A shard's manifest; the shard is brought to the first folder if it lies in another."""
    folder, name = places[0], f"act-{number:05d}.json"
    for place in places:
        if not (place / name).exists():
            continue
        found = read_manifest(ShardManifest, place, name)
        if found.plan != plan.digest():
            raise SpecError(f"shard {number} in {place} is of another dump: remove it, or use another folder")
        verify(place, found.files[0])
        if place != folder:
            _copy(place / name_of(number), folder / name_of(number))
            publish_manifest(folder, found, name)
        return found
    missing = [at for at in range(len(plan.shards)) if not any((p / f"act-{at:05d}.json").exists() for p in places)]
    raise ArtifactMissing(
        f"{len(missing)} of {len(plan.shards)} shards are not there yet (first: {missing[0]}): run the slices that "
        "make them, or name the folders they lie in"
    )


def _copy(source: Path, path: Path) -> None:
    part = path.with_name(f".{path.name}.linked.{os.getpid()}.part")
    try:
        os.link(source, part)
        part.replace(path)
    except OSError:
        with source.open("rb") as file, publishing(path) as copied:
            for piece in _pieces(file):
                copied.write(piece)
    finally:
        part.unlink(missing_ok=True)


def _pieces(file: Any) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        yield piece


def _check_splits(spec: DumpSpec, documents: Mapping[Split, int], count: int) -> None:
    empty = [name for name in SPLITS if getattr(spec.shares, name) > 0 and not documents[name]]
    if empty:
        usable = sum(documents.values())
        raise SpecError(
            f"the corpus is too small for the split: of {count} documents, {usable} are longer than minimum_position "
            f"({spec.minimum_position}), which leaves none for {' and '.join(empty)}: give more or longer documents, "
            "a larger share, or a share of 0"
        )
