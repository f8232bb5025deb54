"""What a request puts into the model, checked and made ready before anything is generated."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from wonder.compression.bundle import Compressor
from wonder.compression.soft_prompt import SoftPromptMap
from wonder.engine.compress import METHODS, CompressorShelf
from wonder.engine.injection_batch import Injected
from wonder.engine.request import EngineRequest, SoftPrompt, Steering
from wonder.errors import InjectionRefused, SettingNotSupported
from wonder.trace.injection import NO_PRIOR_STATE, Injection, InjectionRecord, SteeringMode
from wonder.trace.schema import CompressedState, ThoughtTrace

# Shape suffixes: D d_model, K soft tokens.

MOST_STRENGTH: Final = 1.0
"""Steering adds at most a vector as long as the state that it is added to; a larger strength is clamped to this."""


class Injector:
    """Makes injections for one loaded model."""

    def __init__(
        self, compressors: CompressorShelf, d_model: int, n_layers: int, device: Any, no_soft_prompts: str | None
    ) -> None:
        """`no_soft_prompts` is why this model takes no vectors in place of tokens; None: it does."""
        self._compressors = compressors
        self._d_model = d_model
        self._n_layers = n_layers
        self._device = device
        self._no_soft_prompts = no_soft_prompts

    def prepare(self, request: EngineRequest) -> Injected | None:
        """What a request puts in: its own vectors, or those made of a prior state; None where there is neither.

        Raises:
            InjectionRefused: A vector or state that does not fit this model or holds no finite numbers, a layer that
                is not there, or no bundle that makes vectors of states.
            SettingNotSupported: This model takes no vectors in place of tokens.
            CorruptBundle, CompressorMismatch: As for the bundles that are needed.
        """
        own: SoftPrompt | Steering | None = getattr(request, "injection", None)
        wanted = request.capture.inject
        if own is None:
            return None if wanted is None else self._from_state(_checked(wanted), getattr(request, "prior_state", None))
        if wanted is not None:
            raise InjectionRefused(
                "the request brings a vector of its own and asks for the prior state too (capture.inject): keep one"
            )
        if isinstance(own, SoftPrompt):
            return self._soft(self._vectors(own.vectors, "soft prompt"), "own", None)
        if own.mode not in ("generated", "all"):
            raise InjectionRefused(f"steering.mode is {own.mode!r}: use 'generated' or 'all'")
        return self._steering(self._vector(own.vector), own.layer, own.strength, own.mode, "own", None)

    def _from_state(self, wanted: Injection, state: CompressedState | None) -> Injected | None:
        if wanted.kind == "soft_prompt":
            soft_map = self._map()
            if state is None:
                return None
            self._same_basis(state, soft_map.manifest.compressor, soft_map.manifest.dims)
            try:
                vectors_KD = soft_map.apply(state.values)
            except ValueError as error:
                raise InjectionRefused(f"the prior state cannot be used: {error}") from error
            return self._soft(vectors_KD, "prior_state", soft_map.id)
        compressor = self._compressor("pca" if state is None else state.method)
        layer = compressor.manifest.hook_point.layer if wanted.layer is None else wanted.layer
        self._check_layer(layer)
        if state is None:
            return None
        self._same_basis(state, compressor.id, None, most=compressor.manifest.dims)
        direction_D = self._vector(compressor.expand(state.values).double() - compressor.basis.mean_D, "prior state")
        return self._steering(direction_D, layer, wanted.strength, wanted.mode, "prior_state", compressor.id)

    def _map(self) -> SoftPromptMap:
        found = self._compressors.soft_prompt()
        if found is None:
            raise InjectionRefused(
                "this model has no soft-prompt map (compressors/soft_prompt), which would turn a prior state into "
                "vectors: train one, use kind='steering', or leave inject out"
            )
        compressor = self._compressors.of_method("pca")
        if compressor is not None and compressor.id != found.manifest.compressor:
            raise InjectionRefused(
                f"the soft-prompt map {found.id} reads codes of {found.manifest.compressor}, and this model's states "
                f"are coded by {compressor.id}: train the map again on these"
            )
        return found

    def _compressor(self, method: str) -> Compressor:
        found = self._compressors.of_method(method) if method in METHODS else None
        if found is None:
            raise InjectionRefused(
                f"this model has no compressor bundle of method {method!r}, so no prior state becomes a direction: "
                "start the worker with one (--compressors), or leave inject out"
            )
        return found

    def _same_basis(self, state: CompressedState, basis: str, dims: int | None, most: int | None = None) -> None:
        # The id is a digest of the manifest, which names the fingerprint of the weights: another model shows here too.
        if state.basis != basis:
            raise InjectionRefused(
                f"the prior state was coded by {state.basis!r}, and here states are read by {basis!r}: states of other "
                "bundles or models mean nothing here; have the earlier action run on this very model and bundle"
            )
        count = len(state.values)
        if dims is not None and count < dims:
            raise InjectionRefused(
                f"the prior state has {count} numbers, and the soft-prompt map reads {dims}: "
                f"set compression_dims={dims} or more in the earlier action"
            )
        if not 0 < count <= (most or count):
            raise InjectionRefused(f"the prior state has {count} numbers, and its basis {basis} has {most}")

    def _soft(self, vectors_KD: Tensor, source: Literal["prior_state", "own"], bundle: str | None) -> Injected:
        if self._no_soft_prompts is not None:
            raise SettingNotSupported(f"no soft prompt can be given to this model: {self._no_soft_prompts}")
        record = InjectionRecord(
            kind="soft_prompt", source=source, bundle=bundle, sha256=_sha256(vectors_KD), soft_tokens=len(vectors_KD)
        )
        return Injected(record, soft_KD=vectors_KD.to(self._device))

    def _steering(
        self,
        vector_D: Tensor,
        layer: int,
        strength: float,
        mode: SteeringMode,
        source: Literal["prior_state", "own"],
        bundle: str | None,
    ) -> Injected:
        self._check_layer(layer)
        if not (isinstance(strength, int | float) and strength == strength):
            raise InjectionRefused(f"steering.strength is {strength!r}, wanted a number from -1 to 1")
        used = min(MOST_STRENGTH, max(-MOST_STRENGTH, float(strength)))
        record = InjectionRecord(
            kind="steering",
            source=source,
            bundle=bundle,
            sha256=_sha256(vector_D),
            layer=layer,
            mode=mode,
            strength=used,
            clamped=used != strength,
        )
        # In float64, where the square of no float32 overflows or vanishes.
        length = vector_D.double().norm()
        push_D = (used * vector_D.double() / length).float() if length > 0 else torch.zeros_like(vector_D)
        return Injected(record, layer=layer, push_D=push_D if bool(push_D.any()) else None, everywhere=mode == "all")

    def _check_layer(self, layer: int) -> None:
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < self._n_layers:
            raise InjectionRefused(
                f"steering asks for layer {layer!r}, this model has layers 0..{self._n_layers - 1}: name one of those"
            )

    def _vectors(self, given: Any, name: str) -> Tensor:
        """Finite float32 vectors (K, D) on the host."""
        vectors_KD = _tensor(given, name)
        if vectors_KD.ndim != 2 or vectors_KD.shape[1] != self._d_model or len(vectors_KD) == 0:
            raise InjectionRefused(
                f"the {name} has shape {tuple(vectors_KD.shape)}, wanted (tokens, {self._d_model}) with at least one "
                "token: give vectors as the model's embedding module gives them"
            )
        return vectors_KD

    def _vector(self, given: Any, name: str = "steering vector") -> Tensor:
        """A finite float32 vector (D,) on the host."""
        vector_D = _tensor(given, name)
        if tuple(vector_D.shape) != (self._d_model,):
            raise InjectionRefused(
                f"the {name} has shape {tuple(vector_D.shape)}, wanted ({self._d_model},): "
                "give one direction of the model's own width"
            )
        return vector_D


def insert(
    tokens: Sequence[int], injected: Injected | None, first_token: int | None
) -> tuple[list[int], Injected | None]:
    """A prompt with places for its soft tokens, and the injection that knows where they begin.

    They stand after the tokenizer's own first token, which soaks up idle attention and stays where it is; where the
    tokenizer has none, they stand first. Their places are numbered −1, −2, …

    Args:
        tokens: Of the prompt; at least one.
        injected: What the request puts in.
        first_token: The tokenizer's own, if it has one.
    """
    if injected is None or injected.soft_KD is None:
        return list(tokens), injected
    at = 1 if tokens[0] == first_token else 0
    places = [-1 - place for place in range(len(injected.soft_KD))]
    return [*tokens[:at], *places, *tokens[at:]], replace(injected, soft_at=at)


def told(trace: ThoughtTrace, request: EngineRequest, injected: Injected | None) -> ThoughtTrace:
    """The trace with what was put into the model, or why nothing was although it was asked for."""
    if injected is not None:
        record = injected.record
        bundles = trace.bundles | ({record.kind: record.bundle} if record.bundle is not None else {})
        return trace.model_copy(update={"injection": record, "bundles": bundles})
    if request.capture.inject is None:
        return trace
    return trace.model_copy(update={"missing": trace.missing | {"injection": NO_PRIOR_STATE}})


def _checked(wanted: Injection) -> Injection:
    """Settings that were built without validation are validated here: they come from outside."""
    try:
        return Injection.model_validate(wanted.model_dump())
    except ValidationError as error:
        found = error.errors()[0]
        name = ".".join(str(part) for part in found["loc"])
        raise InjectionRefused(f"inject{'.' if name else ''}{name} is {found['input']!r}: {found['msg']}") from error


def _tensor(given: Any, name: str) -> Tensor:
    try:
        values = torch.as_tensor(given).detach().to("cpu", torch.float32).clone()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InjectionRefused(f"the {name} is no array of numbers ({error}): give a tensor or lists") from error
    if not values.isfinite().all():
        raise InjectionRefused(
            f"the {name} holds numbers that are not finite in float32: nothing can be made of it, look at its source"
        )
    return values


def _sha256(values: Tensor) -> str:
    content = values.detach().cpu().contiguous().numpy().astype("<f4").tobytes()
    return hashlib.sha256(content).hexdigest()
