"""`TraceEngine`: load a model, generate for many requests at once, and give each its text and its trace."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from wonder.embedded import embedded_compressors, embedded_probes
from wonder.engine import demand
from wonder.engine.admission import prompt_tokens
from wonder.engine.assemble import Assembler
from wonder.engine.concepts import ProbeShelf
from wonder.engine.constrain import Constrainer
from wonder.engine.info import EngineInfo
from wonder.engine.job import Answered, Handle, Job, OnToken
from wonder.engine.keep import hidden_tensors, keep
from wonder.engine.layout import Side
from wonder.engine.load import LoadOptions, default_device, load_model
from wonder.engine.loop import Row
from wonder.engine.padded import COMPANY_S, PaddedLoop
from wonder.engine.request import EngineRequest
from wonder.engine.runtime import runtime_of
from wonder.engine.scheduler import SlotLoop
from wonder.engine.selfcheck import prepare
from wonder.engine.text import TokenNames
from wonder.engine.worker import Worker
from wonder.errors import ArtifactError, EngineFailed, WonderError
from wonder.names import EMBEDDED_MODEL
from wonder.probes.fingerprint import model_fingerprint
from wonder.trace.schema import AgentMessage, ThoughtTrace
from wonder.trace.store import ArtifactStore


class TraceEngine:
    """One loaded model. Requests of all threads share its forward passes; results do not depend on who else asks."""

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
        self._runtime, self._support = prepare(runtime_of(model, tokenizer, padding_side))
        self._store = store
        self._max_batch = max_batch
        self._max_batch_tokens = max_batch_tokens
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._closed = False
        anatomy, fingerprint = self._runtime.anatomy, model_fingerprint(model)
        self._constrainer = Constrainer(tokenizer, self._runtime.end_ids, anatomy.vocabulary)
        self._shelf = ProbeShelf(bundles, fingerprint, anatomy.d_model, anatomy.n_layers, compressors)
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
            unsupported=self._support.unsupported,
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

    def submit(self, request: EngineRequest, *, priority: int = 0, on_token: OnToken | None = None) -> Handle:
        """Queue a request; it joins those that are being answered at the next step.

        Args:
            request: With its own sampling and capture.
            priority: Larger goes first; among equals, who came first. Whoever is passed over often rises.
            on_token: Told of every token as it comes.

        Raises:
            WonderError: What is wrong with the request; nobody else notices.
        """
        job = self._job(request, priority, on_token)
        self._started().submit([job])
        return Handle(job, self._message)

    def generate(
        self, requests: Sequence[EngineRequest], *, on_step: Callable[[int], None] | None = None
    ) -> list[AgentMessage | WonderError]:
        """Answer many requests; they share forward passes.

        Args:
            requests: Each with its own sampling and capture.
            on_step: Called with the number of tokens of the longest answer whenever that has grown; may raise to give
                everything up.

        Returns:
            In the order of the requests: the message, or the error of a request that cannot be answered, so that it
            does not sink its neighbours.
        """
        tokens: SimpleQueue[int | None] = SimpleQueue()
        on_token = None if on_step is None else lambda event: tokens.put(event.index + 1)
        found: list[Handle | WonderError] = []
        jobs = []
        for request in requests:
            try:
                job = self._job(request, 0, on_token)
            except WonderError as error:
                found.append(error)
            else:
                jobs.append(job)
                job.when_over(lambda: tokens.put(None))
                found.append(Handle(job, self._message))
        if jobs:
            self._started().submit(jobs)
        try:
            if on_step is not None:
                _follow(tokens, len(jobs), on_step)
            return [item if isinstance(item, WonderError) else _outcome(item) for item in found]
        finally:
            for item in found:
                if isinstance(item, Handle):
                    item.cancel()

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
        """End what is under way, and take the hooks off the model."""
        with self._lock:
            self._closed = True
            worker = self._worker
        if worker is not None:
            worker.close()
        self._runtime.taps.close()

    def _started(self) -> Worker:
        with self._lock:
            if self._closed:
                raise EngineFailed("this engine has been closed: load it again")
            if self._worker is None:
                bounds = {"max_rows": self._max_batch, "max_tokens": self._max_batch_tokens}
                if self._support.slots is None:
                    self._worker = Worker(SlotLoop(self._runtime, **bounds))
                else:
                    self._worker = Worker(PaddedLoop(self._runtime, **bounds), company_s=COMPANY_S)
            return self._worker

    def _job(self, request: EngineRequest, priority: int, on_token: OnToken | None) -> Job:
        """Everything that can be refused is refused here, before anything is generated."""
        prompt = self._prepare(request)
        plan = demand.plan_for([request.capture], self._shelf, self._info.n_layers, self._support)
        row = Row(request.sampling, self._runtime)
        constrain = partial(self._constrainer.start, request)
        return Job(request, prompt, row, plan, constrain=constrain, priority=priority, on_token=on_token)

    def _prepare(self, request: EngineRequest) -> list[int]:
        """Check everything that can be checked before generating, and tokenize."""
        demand.check(request.capture, self._shelf, self._info.n_layers, has_store=self._store is not None)
        return prompt_tokens(self._runtime, request, self._info.model, self._max_batch_tokens)

    def _message(self, job: Job, answered: Answered) -> AgentMessage:
        """The message of an answer, with its artifacts written.

        Raises:
            SettingNotSupported: It could not be held to its schema.
            ArtifactError: The store did not take them.
        """
        if job.constraint is not None:
            job.constraint.check()
        trace, tensors = self._read(job, answered)
        try:
            trace = keep(trace, job.request.capture, tensors, self._store)
        except OSError as error:
            raise ArtifactError(f"{self._store!r} did not take the artifact ({error}): make room or access") from error
        return AgentMessage(text=answered.batch.rows[answered.index].answer, thought_trace=trace)

    def _read(self, job: Job, answered: Answered) -> tuple[ThoughtTrace, dict[str, Tensor]]:
        """The trace in full length and precision, and the tensors for the artifact."""
        batch, index, plan = answered.batch, answered.index, answered.plan
        tensors = {}
        if plan is not None and batch.readings is not None:
            tensors = hidden_tensors(job.request.capture, batch.readings, plan, index, self._info.n_layers)
        return self._assembler.trace(job.request, job.prompt, batch, index, plan, answered.queue_s), tensors


def _outcome(handle: Handle) -> AgentMessage | WonderError:
    try:
        return handle.result()
    except WonderError as error:
        return error


def _follow(tokens: "SimpleQueue[int | None]", open_jobs: int, on_step: Callable[[int], None]) -> None:
    """Call back whenever the longest answer has grown, until all answers are complete."""
    highest = 0
    while open_jobs:
        count = tokens.get()
        if count is None:
            open_jobs -= 1
        elif count > highest:
            highest = count
            on_step(count)
