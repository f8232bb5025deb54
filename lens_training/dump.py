"""Dumps activations: forward passes over documents, many positions of each from one, in slices that merge."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig

from lens_training.activations import (
    Plan,
    PlanShard,
    Rows,
    ShardManifest,
    Source,
    agree,
    finished,
    make_plan,
    publish_shard,
)
from lens_training.models.target import TargetModel
from lens_training.moments import CHUNK
from lens_training.positions import positions_of_all, split_of
from lens_training.spec import SPLITS, DumpSpec, TargetSpec
from lens_training.tokens import OnProgress, TokenStore
from wonder.embedded import embedded_path
from wonder.engine.load import LoadOptions, load_model
from wonder.engine.memory import is_out_of_memory
from wonder.errors import ModelNotUsable, OutOfMemory, SpecError
from wonder.lens.tokenizer import tokenizer_digest
from wonder.probes.fingerprint import model_fingerprint

# Shape suffixes: B documents of a pass, S columns, R rows that are kept, N rows of a shard, D d_model.

PADDING_TOLERANCE: Final = {torch.float32: 1e-4}
COARSE_PADDING_TOLERANCE: Final = 0.1


@dataclass(frozen=True)
class Documents:
    """Some documents of a pass, and where to read."""

    start_B: NDArray[np.int64]
    """Where each context begins, counted over the whole corpus."""
    last_B: NDArray[np.int64]
    """The last position of each that is read; no token after it is run."""
    row_R: NDArray[np.int64]
    pos_R: NDArray[np.int64]
    place_R: NDArray[np.int64]
    """The row of the shard."""

    @property
    def width(self) -> int:
        """Columns of the pass."""
        return int(self.last_B.max()) + 1


def load_target(spec: TargetSpec, device: str | None = None) -> tuple[TargetModel, Any]:
    """The frozen model of a specification, and its tokenizer.

    Raises:
        SpecError: There is no such layer, or the device is not there.
        ModelError: The model cannot be had.
    """
    if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
        raise SpecError(f"device {device!r} is asked for, and no GPU is visible: use cpu, or a machine that has one")
    _check_layer(spec)
    loaded = load_model(
        spec.model,
        LoadOptions(
            revision=spec.revision or None,
            dtype=None if spec.dtype == "auto" else spec.dtype,
            device=device,
            quantization=None if spec.quantization == "none" else spec.quantization,
        ),
    )
    return TargetModel(loaded.model, spec.layer), loaded.tokenizer


def _check_layer(spec: TargetSpec) -> None:
    """Refuse a layer that is not there before the weights are loaded, which may take minutes."""
    revision = {"revision": spec.revision} if spec.revision else {}
    try:
        config = AutoConfig.from_pretrained(embedded_path(spec.model) or spec.model, **revision)
    except (OSError, ValueError, KeyError):
        return  # loading will say what is wrong
    layers = config.get_text_config(decoder=True).num_hidden_layers
    if spec.layer >= layers - 1:
        raise SpecError(
            f"layer {spec.layer} of {spec.model}, which has blocks 0 to {layers - 1}: at least one must come after "
            f"the lens, so use 0 to {layers - 2}"
        )


def check_tokenizer(store: TokenStore, target: TargetModel, tokenizer: Any) -> None:
    """Refuse tokens that another model's tokenizer made.

    Raises:
        SpecError: They are not this model's.
    """
    want, found = tokenizer_digest(tokenizer), store.manifest.tokenizer_digest
    if want != found:
        raise SpecError(
            f"the tokens in {store.folder} were made by another tokenizer ({found[:12]}…) than the model's "
            f"({want[:12]}…): its activations would be of other words; tokenise with the model's own"
        )
    if store.manifest.vocabulary > target.vocabulary:
        raise SpecError(
            f"the tokenizer has {store.manifest.vocabulary} tokens and the model {target.vocabulary}: they do not "
            "belong together"
        )


def dump(
    store: TokenStore,
    target: TargetModel,
    spec: DumpSpec,
    target_spec: TargetSpec,
    folder: Path,
    part: tuple[int, int] = (0, 1),
    on_progress: OnProgress | None = None,
) -> Plan:
    """Fill the shards of one slice; whole ones that are there already are left as they are.

    Args:
        store: The corpus.
        target: The model.
        spec: What is kept.
        target_spec: How the model was asked for.
        folder: Where shards go; slices may share it, or have one each.
        part: The slice's number and how many there are.
        on_progress: Told after every pass how many rows were read, and how many the slice has.

    Raises:
        SpecError: The corpus is too small, or the folder holds another dump.
        OutOfMemory: A pass does not fit.
        StoreNotUsable: The disk is full.
    """
    number, count = part
    if not 0 <= number < count:
        raise SpecError(f"slice {number}/{count}: of {count} slices, there are 0 to {count - 1}")
    plan = make_plan(store, spec, source_of(target, target_spec))
    agree(folder, plan)
    mine = range(number, len(plan.shards), count)
    total, done = sum(plan.shards[at].rows for at in mine), 0
    dumper = Dumper(store, target, spec)

    def tell(rows: int) -> None:
        nonlocal done
        done += rows
        if on_progress is not None:
            on_progress(done, total)

    # A shard is written while the next is read: two are in memory at a time.
    with ThreadPoolExecutor(1) as writer:
        pending: Future[ShardManifest] | None = None
        for at in mine:
            if (there := finished(folder, plan, at)) is not None:
                tell(sum(there.rows.values()))
                continue
            rows = dumper.read(plan.shards[at], tell)
            if pending is not None:
                pending.result()
            pending = writer.submit(publish_shard, folder, plan, at, rows)
        if pending is not None:
            pending.result()
    return plan


def source_of(target: TargetModel, spec: TargetSpec) -> Source:
    """What activations of a model are known by."""
    return Source(
        model=spec.model,
        revision=spec.revision,
        fingerprint=model_fingerprint(target.model),
        model_dtype=str(target.model.dtype).removeprefix("torch."),
        quantization=spec.quantization,
        layer=target.layer,
        n_layers=target.anatomy.n_layers,
        d_model=target.d_model,
        vocabulary=target.vocabulary,
    )


class Dumper:
    """Reads shards of activations."""

    def __init__(self, store: TokenStore, target: TargetModel, spec: DumpSpec) -> None:
        self._store, self._target, self._spec = store, target, spec
        self._device = next(target.model.parameters()).device
        self._may_pad = self._padding_is_harmless()

    def read(self, shard: PlanShard, on_rows: Callable[[int], None] | None = None) -> Rows:
        """The rows of a shard: by split, then document, then position.

        Args:
            shard: Which documents.
            on_rows: Told after each pass how many rows it gave.
        """
        passes, rows = self.passes(shard)
        shape = (len(rows.pos_N), self._target.d_model)
        states_ND = torch.empty(shape, dtype=torch.bfloat16, device=self._device)
        final_ND = torch.empty_like(states_ND) if self._spec.final else None
        for documents in passes:
            place_R = torch.from_numpy(documents.place_R).to(self._device)
            found_RD, last_RD = self.forward(documents)
            states_ND[place_R] = found_RD.to(torch.bfloat16)
            if final_ND is not None and last_RD is not None:
                final_ND[place_R] = last_RD.to(torch.bfloat16)
            if on_rows is not None:
                on_rows(len(documents.place_R))
        self._check(states_ND, rows)
        return Rows(
            states_ND.cpu(),
            None if final_ND is None else final_ND.cpu(),
            rows.document_N,
            rows.start_N,
            rows.pos_N,
            rows.rows,
        )

    @torch.inference_mode()
    def forward(self, documents: Documents) -> tuple[Tensor, Tensor | None]:
        """The activations of a pass and, if they are wanted, the states that the head reads; each (R, D)."""
        ids_BS = torch.from_numpy(self._store.gather(documents.start_B, documents.last_B, documents.width))
        row_R = torch.from_numpy(documents.row_R).to(self._device)
        pos_R = torch.from_numpy(documents.pos_R).to(self._device)
        try:
            return states(self._target, ids_BS.to(self._device), row_R, pos_R, final=self._spec.final)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        raise OutOfMemory(
            f"{self._device} has no room for a pass of {len(documents.start_B)} × {documents.width} tokens: lower "
            "tokens_per_pass"
        )

    def passes(self, shard: PlanShard) -> tuple[list[Documents], Rows]:
        """How a shard is read, and its rows without their states."""
        spec = self._spec
        document_K, first_K, length_K, content_K = self._documents(shard)
        start_K, pos_N, count_K = positions_of_all(document_K, length_K, spec)
        start_K = start_K + first_K
        # Documents that are too short to give rows are no part of a pass.
        document_K, start_K, content_K, count_K = (
            value[count_K > 0] for value in (document_K, start_K, content_K, count_K)
        )
        split_K = np.array([split_of(content, spec) for content in content_K.tolist()], np.int64)
        split_N, owner_N = np.repeat(split_K, count_K), np.repeat(np.arange(len(count_K)), count_K)
        order = np.argsort(split_N, kind="stable")
        place_N = np.empty(len(order), np.int64)
        place_N[order] = np.arange(len(order))
        begin_K = np.concatenate([[0], np.cumsum(count_K)])
        last_K = pos_N[begin_K[1:] - 1]
        passes = []
        for group in self._groups(last_K + 1):
            rows = np.concatenate([np.arange(begin_K[at], begin_K[at + 1]) for at in group])
            row_R = np.repeat(np.arange(len(group)), begin_K[group + 1] - begin_K[group])
            passes.append(Documents(start_K[group], last_K[group], row_R, pos_N[rows], place_N[rows]))
        nothing = torch.empty(0)
        counts = {name: int((split_N == at).sum()) for at, name in enumerate(SPLITS)}
        rows_of_shard = Rows(
            nothing,
            None,
            document_K[owner_N][order],
            start_K[owner_N][order],
            pos_N[order].astype(np.int32),
            counts,
        )
        return passes, rows_of_shard

    def _documents(self, shard: PlanShard) -> tuple[NDArray[Any], ...]:
        """Number, first token over the whole corpus, length and content hash of each document."""
        parts = []
        for number, held in enumerate(self._store.manifest.shards):
            low = max(shard.first_document, held.first_document)
            high = min(shard.last_document, held.first_document + held.documents)
            if low >= high:
                continue
            at = slice(low - held.first_document, high - held.first_document)
            offsets = self._store.offsets(number)
            first_K = offsets[:-1][at] + held.first_token
            parts.append((np.arange(low, high), first_K, np.diff(offsets)[at], self._store.content(number)[at]))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _groups(self, width_K: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Documents of similar width, as many as a pass may have."""
        order = np.argsort(width_K, kind="stable")
        begin = 0
        for at in range(1, len(order) + 1):
            full = at == len(order) or (at + 1 - begin) * width_K[order[at]] > self._spec.tokens_per_pass
            if full or (not self._may_pad and width_K[order[at]] != width_K[order[begin]]):
                yield order[begin:at]
                begin = at

    def _padding_is_harmless(self) -> bool:
        """Whether a short context filled up on the right comes out as it does alone."""
        if self._target.anatomy.is_recurrent:
            return False
        ids_BS = torch.arange(16, device=self._device)[None] % self._target.vocabulary
        short, pos = ids_BS[:, :6], torch.arange(6, device=self._device)
        row = torch.zeros_like(pos)
        alone = states(self._target, short, row, pos, final=self._spec.final)
        among = states(self._target, ids_BS, row, pos, final=self._spec.final)
        tolerance = PADDING_TOLERANCE.get(self._target.model.dtype, COARSE_PADDING_TOLERANCE)
        return all(
            bool((one - other).float().norm() <= tolerance * one.float().norm())
            for one, other in zip(alone, among, strict=True)
            if one is not None and other is not None
        )

    def _check(self, states_ND: Tensor, rows: Rows) -> None:
        finite_N = torch.cat([piece_ND.isfinite().all(1) for piece_ND in torch.split(states_ND, CHUNK)])
        if not finite_N.all():
            at = int((~finite_N).nonzero()[0, 0])
            raise ModelNotUsable(
                f"the activation of document {rows.document_N[at]} at position {rows.pos_N[at]} is no finite number "
                f"in {self._target.model.dtype}: load the model as bfloat16 or float32"
            )


class _EnoughError(Exception):
    """The layer was read; nothing above it has to run."""


@torch.inference_mode()
def states(
    target: TargetModel, ids_BS: Tensor, row_R: Tensor, pos_R: Tensor, *, final: bool
) -> tuple[Tensor, Tensor | None]:
    """Activations at many positions of one pass; blocks above the layer run only if `final` states are wanted.

    Args:
        target: The model.
        ids_BS: Contexts; what follows the last position that is read does not matter.
        row_R: The context of each state.
        pos_R: Its position.
        final: Whether the states that the head reads are wanted too.
    """
    seen: list[Tensor] = []

    def watch(module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001 - the signature of a hook
        seen.append((output[0] if isinstance(output, tuple) else output)[row_R, pos_R])
        if not final:
            raise _EnoughError

    handle = target.anatomy.blocks[target.layer].register_forward_hook(watch)
    try:
        final_BSD = target.base(input_ids=ids_BS, use_cache=False)[0]
    except _EnoughError:
        return seen[0], None
    finally:
        handle.remove()
    return seen[0], final_BSD[row_R, pos_R]
