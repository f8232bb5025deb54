"""`TraceEngine`: load a model, generate for many requests at once, and give each its text and its trace."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from wonder.embedded import embedded_compressors, embedded_probes
from wonder.engine import demand
from wonder.engine.anatomy import examine
from wonder.engine.assemble import Assembler
from wonder.engine.batching import split
from wonder.engine.concepts import ProbeShelf
from wonder.engine.constrain import Constrainer, Constraint
from wonder.engine.info import EngineInfo
from wonder.engine.keep import hidden_tensors, keep
from wonder.engine.layout import Side
from wonder.engine.load import LoadOptions, default_device, load_model
from wonder.engine.loop import Runtime, run_batch
from wonder.engine.memory import is_out_of_memory
from wonder.engine.request import EngineRequest
from wonder.engine.selfcheck import prepare
from wonder.engine.taps import Taps
from wonder.engine.text import TokenNames
from wonder.errors import ArtifactError, OutOfMemory, PromptTooLong, SettingNotSupported, WonderError
from wonder.names import EMBEDDED_MODEL
from wonder.probes.fingerprint import model_fingerprint
from wonder.trace.schema import AgentMessage, ThoughtTrace
from wonder.trace.store import ArtifactStore

ATTENTION_FIELDS: Final = (
    "attention_entropy",
    "attention_entropy_normalized",
    "attention_sink_mass",
    "key_attention_pairs",
)


class TraceEngine:
    """One loaded model. Calls from several threads wait for each other; results do not depend on the order."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        name: str = "in memory",
        revision: str = "",
        store: ArtifactStore | None = None,
        bundles: Path | None = None,
        compressors: Path | None = None,
        padding_side: Side = "left",
        max_batch: int = 16,
        max_batch_tokens: int = 32768,
    ) -> None:
        """Take a model over: hooks are put on it, and its attention function is wrapped.

        Args:
            model: A decoder-only causal language model; set to evaluation mode.
            tokenizer: Its tokenizer.
            name: What traces call it.
            revision: Its commit, for traces.
            store: Where artifacts go; None: nothing that needs an artifact can be asked for.
            bundles: Folder whose sub-folders are probe bundles.
            compressors: Folder whose sub-folders are compressor bundles, called by their method.
            padding_side: Where prompts of a batch are padded; both give the same numbers.
            max_batch: Most requests in one forward pass.
            max_batch_tokens: Most rows × columns of a batch.

        Raises:
            ModelNotUsable: It does not generate, or its blocks cannot be read.
        """
        model.eval()  # type: ignore[no-untyped-call]
        anatomy = examine(model)
        special = frozenset(int(token) for token in tokenizer.all_special_ids)
        self._runtime = Runtime(
            model=model,
            anatomy=anatomy,
            taps=Taps(anatomy),
            tokenizer=tokenizer,
            special_ids=special,
            end_ids=_end_ids(model, tokenizer),
            pad_id=_pad_id(tokenizer, anatomy.vocabulary),
            side="left" if anatomy.is_recurrent or _is_flash(model) else padding_side,
            equal_lengths=anatomy.is_recurrent,
        )
        self._runtime, self._support = prepare(self._runtime)
        self._constrainer = Constrainer(tokenizer, self._runtime.end_ids, anatomy.vocabulary)
        self._store = store
        self._max_batch = max_batch
        self._max_batch_tokens = max_batch_tokens
        self._lock = threading.Lock()
        fingerprint = model_fingerprint(model)
        self._shelf = ProbeShelf(bundles, fingerprint, anatomy.d_model, anatomy.n_layers, compressors)
        unsupported = dict.fromkeys(ATTENTION_FIELDS, self._support.attention) if self._support.attention else {}
        if self._support.padding:
            unsupported["padding"] = self._support.padding
        unsupported |= {f"expert_distribution.{key}": why for key, why in self._support.routers.items()}
        self._info = EngineInfo(
            model=name,
            revision=revision,
            fingerprint=fingerprint,
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(self._runtime.device),
            n_layers=anatomy.n_layers,
            d_model=anatomy.d_model,
            vocabulary=anatomy.vocabulary,
            context_length=anatomy.context_length,
            concepts=self._shelf.names,
            routers=[router.key for router in anatomy.routers],
            unsupported={signal: why for signal, why in unsupported.items() if why},
        )
        self._assembler = Assembler(self._info, self._support, self._shelf, TokenNames(tokenizer))

    @classmethod
    def load(
        cls,
        model: str | Path = EMBEDDED_MODEL,
        *,
        revision: str | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        device_map: Any = None,
        quantization: Any = None,
        attn_implementation: str | None = None,
        store: ArtifactStore | None = None,
        bundles: Path | None = None,
        compressors: Path | None = None,
        padding_side: Side = "left",
        max_batch: int = 16,
        max_batch_tokens: int = 32768,
    ) -> "TraceEngine":
        """Load a model by embedded name, folder or hub name.

        Args:
            model: Which one.
            revision: Commit or branch on the hub.
            dtype: Such as `bfloat16`; None: as stored.
            device: None: the first accelerator, or the CPU.
            device_map: Passed to transformers, for models over several devices.
            quantization: `8bit`, `4bit`, or a quantization config of transformers.
            attn_implementation: None: what the model chooses.
            store: Where artifacts go.
            bundles: Folder of probe bundles; None: the embedded model's own.
            compressors: Folder of compressor bundles; None: the embedded model's own.
            padding_side: See the class.
            max_batch: Most requests in one forward pass.
            max_batch_tokens: Most rows × columns of a batch.

        Raises:
            ModelNotFound: No such name or folder.
            ModelNotUsable: It cannot be loaded or read.
            SettingNotSupported: An unknown dtype or quantization.
        """
        if device is None and device_map is None and quantization is None:
            device = default_device()
        options = LoadOptions(revision, dtype, device, device_map, quantization, attn_implementation)
        loaded = load_model(model, options)
        if bundles is None and isinstance(model, str):
            bundles = embedded_probes(model)
        if compressors is None and isinstance(model, str):
            compressors = embedded_compressors(model)
        return cls(
            loaded.model,
            loaded.tokenizer,
            name=loaded.name,
            revision=loaded.revision,
            store=store,
            bundles=bundles,
            compressors=compressors,
            padding_side=padding_side,
            max_batch=max_batch,
            max_batch_tokens=max_batch_tokens,
        )

    @property
    def info(self) -> EngineInfo:
        """What was loaded."""
        return self._info

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._runtime.tokenizer

    @property
    def model(self) -> PreTrainedModel:
        """The model, with the engine's hooks on it."""
        return self._runtime.model

    def generate(
        self, requests: Sequence[EngineRequest], *, on_step: Callable[[int], None] | None = None
    ) -> list[AgentMessage | WonderError]:
        """Answer many requests; they share forward passes.

        Args:
            requests: Each with its own sampling and capture.
            on_step: Called after each token of a batch; may raise to give everything up.

        Returns:
            In the order of the requests: the message, or the error of a request that cannot be answered, so that it
            does not sink its neighbours.
        """
        asked = time.perf_counter()
        results: list[AgentMessage | WonderError | None] = [None] * len(requests)
        prompts: dict[int, list[int]] = {}
        for index, request in enumerate(requests):
            try:
                prompts[index] = self._prepare(request)
            except WonderError as error:
                results[index] = error
        ready = list(prompts)
        groups = split(
            [len(prompts[index]) for index in ready],
            [requests[index].sampling.max_new_tokens for index in ready],
            self._max_batch,
            self._max_batch_tokens,
            equal_lengths=self._runtime.equal_lengths,
        )
        for group in groups:
            members = [ready[place] for place in group]
            answers = self._group([requests[i] for i in members], [prompts[i] for i in members], asked, on_step)
            for index, answer in zip(members, answers, strict=True):
                results[index] = answer
        return [result for result in results if result is not None]

    def generate_one(self, request: EngineRequest, *, on_step: Callable[[int], None] | None = None) -> AgentMessage:
        """Answer one request.

        Raises:
            WonderError: What `generate` would have returned.
        """
        (result,) = self.generate([request], on_step=on_step)
        if isinstance(result, WonderError):
            raise result
        return result

    def close(self) -> None:
        """Take the hooks off the model."""
        self._runtime.taps.close()

    def _prepare(self, request: EngineRequest) -> list[int]:
        """Check everything that can be checked before generating, and tokenize."""
        n_layers = self._runtime.anatomy.n_layers
        demand.check(request.capture, self._shelf, n_layers, has_store=self._store is not None)
        self._constrainer.start(request)
        tokens = _tokenize(self._runtime.tokenizer, request.prompt)
        if not tokens:
            raise SettingNotSupported("the prompt has no tokens: write at least one word")
        room, wanted = self._runtime.anatomy.context_length, request.sampling.max_new_tokens
        if room is not None and len(tokens) + wanted > room:
            raise PromptTooLong(
                f"the prompt has {len(tokens)} tokens and max_new_tokens is {wanted}, together {len(tokens) + wanted}; "
                f"{self._info.model} has room for {room}: shorten the prompt, or lower max_new_tokens"
            )
        return tokens

    def _group(
        self,
        requests: Sequence[EngineRequest],
        prompts: Sequence[list[int]],
        asked: float,
        on_step: Callable[[int], None] | None,
    ) -> list[AgentMessage | WonderError]:
        """Run one batch; where the device has no room, run its halves."""
        try:
            return self._run(requests, prompts, asked, on_step)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler: while the error is held, so are the frames and tensors of the attempt.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(requests) == 1:
            return [
                OutOfMemory(
                    f"{self._info.device} has no room for a prompt of {len(prompts[0])} tokens and "
                    f"{requests[0].sampling.max_new_tokens} new ones, alone in its batch: shorten them, "
                    "quantise the model, or use a larger device"
                )
            ]
        half = len(requests) // 2
        first = self._group(requests[:half], prompts[:half], asked, on_step)
        return first + self._group(requests[half:], prompts[half:], asked, on_step)

    def _run(
        self,
        requests: Sequence[EngineRequest],
        prompts: Sequence[list[int]],
        asked: float,
        on_step: Callable[[int], None] | None,
    ) -> list[AgentMessage | WonderError]:
        # Anew for every attempt: a batch that is split after running out of memory starts its answers again.
        constraints = [self._constrainer.start(request) for request in requests]
        with self._lock:
            answers = self._read(requests, prompts, constraints, asked, on_step)
        messages: list[AgentMessage | WonderError] = []
        for request, constraint, (text, trace, tensors) in zip(requests, constraints, answers, strict=True):
            try:
                if constraint is not None:
                    constraint.check()
                trace = keep(trace, request.capture, tensors, self._store)
            except WonderError as error:
                messages.append(error)
            except OSError as error:
                messages.append(
                    ArtifactError(f"{self._store!r} did not take the artifact ({error}): make room or access")
                )
            else:
                messages.append(AgentMessage(text=text, thought_trace=trace))
        return messages

    def _read(
        self,
        requests: Sequence[EngineRequest],
        prompts: Sequence[list[int]],
        constraints: Sequence[Constraint | None],
        asked: float,
        on_step: Callable[[int], None] | None,
    ) -> list[tuple[str, ThoughtTrace, dict[str, Tensor]]]:
        """One batch: each row's text, its trace in full length and precision, and its tensors for the artifact."""
        n_layers = self._runtime.anatomy.n_layers
        plan = demand.plan_for([request.capture for request in requests], self._shelf, n_layers, self._support)
        queue_s = time.perf_counter() - asked
        samplings = [request.sampling for request in requests]
        batch = run_batch(self._runtime, prompts, samplings, plan, constraints=constraints, on_step=on_step)
        results = []
        for index, request in enumerate(requests):
            tensors = {}
            if plan is not None and batch.readings is not None:
                tensors = hidden_tensors(request.capture, batch.readings, plan, index, n_layers)
            trace = self._assembler.trace(request, prompts[index], batch, index, plan, queue_s)
            results.append((batch.rows[index].answer, trace, tensors))
        return results


def _tokenize(tokenizer: Any, prompt: str) -> list[int]:
    # A chat template may have written the first token already; the tokenizer would add a second one.
    begun = bool(tokenizer.bos_token) and prompt.startswith(str(tokenizer.bos_token))
    return [int(token) for token in tokenizer(prompt, add_special_tokens=not begun, verbose=False)["input_ids"]]


def _end_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    ends: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        value = getattr(source, "eos_token_id", None)
        ends.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return frozenset(int(token) for token in ends)


def _is_flash(model: PreTrainedModel) -> bool:
    """Flash attention takes no mask but padding, and that on the left."""
    return "flash" in str(model.config._attn_implementation)


def _pad_id(tokenizer: Any, vocabulary: int) -> int:
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None and int(token) < vocabulary:
            return int(token)
    return 0
