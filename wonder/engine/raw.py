"""Raw capture: forward passes over texts, and the chosen states of each streamed to an artifact store."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from wonder.anatomy import Anatomy, examine
from wonder.engine.batching import split
from wonder.engine.engine import TraceEngine
from wonder.engine.memory import is_out_of_memory
from wonder.engine.raw_data import RawCapture, RawManifest, Shelf, read_folder, write_folder
from wonder.engine.raw_points import Reader, find_points, forward
from wonder.errors import OutOfMemory, PromptTooLong, SettingNotSupported
from wonder.probes.fingerprint import model_fingerprint
from wonder.trace.artifacts import ArtifactRef
from wonder.trace.store import ArtifactStore, DirectoryStore

# Shape suffixes: B rows, S columns, R rows that are kept, D d_model.

PADDING_TOLERANCE = {torch.float32: 1e-3}
COARSE_PADDING_TOLERANCE = 0.2


@dataclass(frozen=True)
class RawText:
    """A text of two parts, as words or as token ids; only the prompt gets the tokenizer's own first token."""

    prompt: str | Sequence[int]
    answer: str | Sequence[int] = ""


@dataclass(frozen=True)
class Captured:
    """A finished capture."""

    manifest: RawManifest
    ref: ArtifactRef
    """The manifest in the store; `RawDataset.open(store, ref)` reads the capture from there."""
    written: int
    """Shards that were computed now."""
    kept: int
    """Shards that an earlier run had written, verified."""


@dataclass(frozen=True)
class _Item:
    number: int
    ids: list[int]
    positions: list[int]


def capture(
    source: TraceEngine | PreTrainedModel,
    texts: Iterable[str | Sequence[int] | RawText],
    settings: RawCapture,
    out: Path | str | ArtifactStore,
    *,
    tokenizer: Any = None,
    resume: RawManifest | None = None,
    on_shard: Callable[[RawManifest], None] | None = None,
) -> Captured:
    """Run the model over texts, nothing is generated, and keep states; nothing else may use the model meanwhile.

    A folder that holds a part of the same capture is gone on with: shards that are there and whole are skipped, and
    the rest gives what an uninterrupted run would have given. Only one shard is in memory at a time.

    Args:
        source: A trace engine, or a model.
        texts: In the same order each time; token ids need no tokenizer.
        settings: Which states.
        out: A folder; or an artifact store, where progress has to be kept by the caller.
        tokenizer: Of a model; an engine has its own.
        resume: The last manifest of an interrupted run, for a store.
        on_shard: Called with the manifest after each shard that was written; may raise to stop.

    Raises:
        SettingNotSupported: The model has no such point, a text no such position, or `out` holds another capture.
        PromptTooLong: A text is longer than the model's context.
        OutOfMemory: The device has no room for a single text.
        ArtifactError: The store does not take a shard.
    """
    model = source.model if isinstance(source, TraceEngine) else source
    tokenizer = source.tokenizer if isinstance(source, TraceEngine) else tokenizer
    model.eval()  # type: ignore[no-untyped-call]
    runner = _Runner(model, settings)
    folder = Path(out) if isinstance(out, Path | str) else None
    store: ArtifactStore = DirectoryStore(folder) if folder is not None else out  # type: ignore[assignment]
    earlier = resume if folder is None else resume or read_folder(folder)

    def save(manifest: RawManifest) -> None:
        if folder is not None:
            write_folder(folder, manifest)
        if on_shard is not None:
            on_shard(manifest)

    name, revision = _name(source)
    manifest = RawManifest(
        model=name,
        revision=revision,
        fingerprint=model_fingerprint(model),
        model_dtype=str(model.dtype).removeprefix("torch."),
        dtype=str(runner.dtype).removeprefix("torch."),
        n_layers=runner.anatomy.n_layers,
        d_model=runner.anatomy.d_model,
        points=runner.names,
        settings=settings,
    )
    shelf = Shelf(store, manifest, earlier, save)
    items = (_item(number, text, settings, tokenizer, runner.anatomy) for number, text in enumerate(texts))
    with runner.reader.on():
        for shard in _shards(items, settings.rows_per_shard):
            digest = hashlib.sha256(json.dumps([(item.ids, item.positions) for item in shard]).encode()).hexdigest()
            if not shelf.has(shard[0].number, digest):
                shelf.put(runner.read(shard), shard[0].number, len(shard), digest)
    ref = shelf.finish()
    return Captured(shelf.manifest, ref, shelf.written, shelf.kept)


class _Runner:
    """Passes over texts, with the states of a shard as their result."""

    def __init__(self, model: PreTrainedModel, settings: RawCapture) -> None:
        self._model, self._settings = model, settings
        self.anatomy = examine(model)
        layers = list(range(self.anatomy.n_layers)) if settings.layers is None else sorted(set(settings.layers))
        weight: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
        self._device = weight.device
        sites = list(dict.fromkeys(settings.sites))
        points = find_points(model, self.anatomy, layers, sites, self._device)
        self.names = [point.name for point in points]
        self.reader = Reader(points)
        self.dtype = model.dtype if settings.dtype == "model" else getattr(torch, settings.dtype)
        if settings.batching == "padded":
            self._check_padding()

    def read(self, items: Sequence[_Item]) -> dict[str, Tensor]:
        """The tensors of a shard, its rows in the order of the texts."""
        counts = [len(item.positions) for item in items]
        starts = [sum(counts[:at]) for at in range(len(counts))]
        tensors = {
            "text": torch.tensor([item.number for item in items for _ in item.positions]),
            "position": torch.tensor([position for item in items for position in item.positions]),
            "token": torch.tensor([item.ids[position] for item in items for position in item.positions]),
        }
        states = {name: torch.empty(sum(counts), self.anatomy.d_model, dtype=self.dtype) for name in self.names}
        groups = split(
            [len(item.ids) for item in items],
            [0] * len(items),
            self._settings.max_batch,
            self._settings.max_batch_tokens,
            equal_lengths=self._settings.batching == "equal",
        )
        for group in groups:
            places_R = torch.tensor([starts[i] + row for i in group for row in range(counts[i])])
            for name, found_RD in self._pass([items[i] for i in group]).items():
                states[name][places_R] = _cast(found_RD, self.dtype, name).cpu()
        return tensors | states

    def _pass(self, items: Sequence[_Item]) -> dict[str, Tensor]:
        """The states (R, D) of these texts' positions; where the device has no room, halves are run."""
        try:
            return self._forward(items)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler: while the error is held, so are the tensors of the attempt.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(items) == 1:
            raise OutOfMemory(
                f"{self._device} has no room for text {items[0].number} of {len(items[0].ids)} tokens, alone in its "
                "pass: shorten it, or use a larger device"
            )
        half = len(items) // 2
        first, second = self._pass(items[:half]), self._pass(items[half:])
        return {name: torch.cat([first[name], second[name]]) for name in first}

    @torch.inference_mode()
    def _forward(self, items: Sequence[_Item]) -> dict[str, Tensor]:
        width = max(len(item.ids) for item in items)
        ids_BS = torch.tensor([[*item.ids, *[item.ids[-1]] * (width - len(item.ids))] for item in items])
        rows_R = torch.tensor([at * width + position for at, item in enumerate(items) for position in item.positions])
        mask_BS = None
        if any(len(item.ids) < width for item in items):
            lengths_B = torch.tensor([len(item.ids) for item in items])
            mask_BS = (torch.arange(width)[None] < lengths_B[:, None]).long().to(self._device)
        with self.reader.rows(rows_R.to(self._device)) as kept:
            forward(self._model, ids_BS.to(self._device), mask_BS)
        if lacking := set(self.names) - set(kept):
            raise SettingNotSupported(f"{sorted(lacking)} did not run in a pass: this model cannot be read there")
        return dict(kept)

    def _check_padding(self) -> None:
        """A short text filled up on the right must come out as it does alone."""
        ids = [token % self.anatomy.vocabulary for token in range(8)]
        short, long = _Item(0, ids[:3], [0, 1, 2]), _Item(1, ids, [7])
        if not self.anatomy.is_recurrent:
            with self.reader.on():
                alone, together = self._forward([short]), self._forward([short, long])
            tolerance = PADDING_TOLERANCE.get(self._model.dtype, COARSE_PADDING_TOLERANCE)
            if all((alone[n] - together[n][:3]).norm() <= tolerance * alone[n].norm() for n in self.names):
                return
        raise SettingNotSupported(f"padding changes the states of {type(self._model).__name__}: use batching='equal'")


def _shards(items: Iterable[_Item], limit: int) -> Iterator[list[_Item]]:
    """Consecutive whole texts of at most so many rows."""
    shard: list[_Item] = []
    rows = 0
    for item in items:
        if len(item.positions) > limit:
            raise SettingNotSupported(
                f"text {item.number} gives {len(item.positions)} rows, more than rows_per_shard ({limit}): raise it"
            )
        if shard and rows + len(item.positions) > limit:
            yield shard
            shard, rows = [], 0
        shard.append(item)
        rows += len(item.positions)
    if shard:
        yield shard


def _item(
    number: int, text: str | Sequence[int] | RawText, settings: RawCapture, tokenizer: Any, anatomy: Anatomy
) -> _Item:
    text = text if isinstance(text, RawText) else RawText(text)
    prompt = _ids(tokenizer, text.prompt, number, first=True)
    ids = prompt + _ids(tokenizer, text.answer, number, first=False)
    if not prompt:
        raise SettingNotSupported(f"text {number} has no tokens: leave it out")
    if unknown := [token for token in ids if not 0 <= token < anatomy.vocabulary]:
        raise SettingNotSupported(f"text {number} has token {unknown[0]}; this model has {anatomy.vocabulary} tokens")
    if anatomy.context_length is not None and len(ids) > anatomy.context_length:
        raise PromptTooLong(f"text {number} has {len(ids)} tokens; the model has room for {anatomy.context_length}")
    return _Item(number, ids, _positions(number, settings, len(prompt), len(ids)))


def _positions(number: int, settings: RawCapture, prompt: int, length: int) -> list[int]:
    wanted = settings.positions
    if isinstance(wanted, list):
        if outside := [at for at in wanted if not -length <= at < length]:
            raise SettingNotSupported(f"text {number} has {length} tokens, so no position {outside[0]}: leave it out")
        return sorted({at % length for at in wanted})
    if wanted == "generated" and length == prompt:
        raise SettingNotSupported(f"text {number} has no answer, so nothing was generated: give a RawText with one")
    spans = {
        "all": range(length),
        "prompt": range(prompt),
        "generated": range(prompt - 1, length - 1),
        "last": range(length - 1, length),
    }
    return list(spans[wanted])


def _ids(tokenizer: Any, part: str | Sequence[int], number: int, *, first: bool) -> list[int]:
    if not isinstance(part, str):
        return [int(token) for token in part]
    if not part and not first:
        return []
    if tokenizer is None:
        raise SettingNotSupported(f"text {number} is made of words: give the tokenizer, or token ids")
    begun = bool(tokenizer.bos_token) and part.startswith(str(tokenizer.bos_token))
    return [int(token) for token in tokenizer(part, add_special_tokens=first and not begun, verbose=False)["input_ids"]]


def _cast(states: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    found = states.to(dtype)
    if found.isinf().any() and not states.isinf().any():
        raise SettingNotSupported(f"a state at {name} is too large for {dtype}: store bfloat16, or as the model has it")
    return found


def _name(source: TraceEngine | PreTrainedModel) -> tuple[str, str]:
    if isinstance(source, TraceEngine):
        return source.info.model, source.info.revision
    name = str(getattr(source.config, "name_or_path", "") or type(source).__name__)
    return name, str(getattr(source.config, "_commit_hash", None) or "")
