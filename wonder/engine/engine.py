"""`TraceEngine`: load a model, generate for many requests at once, and give each its text and its trace."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from transformers import PreTrainedModel

from wonder.embedded import embedded_compressors, embedded_probes
from wonder.engine.compiled import BACKEND, compiled
from wonder.engine.desk import Desk
from wonder.engine.info import EngineInfo
from wonder.engine.job import Handle, OnToken
from wonder.engine.layout import Side
from wonder.engine.load import LoadOptions, default_device, load_model
from wonder.engine.padded import COMPANY_S, PaddedLoop
from wonder.engine.request import EngineRequest
from wonder.engine.runtime import runtime_of
from wonder.engine.scheduler import SlotLoop
from wonder.engine.selfcheck import prepare
from wonder.engine.worker import Worker
from wonder.errors import DeviceLost, EngineFailed, SettingNotSupported, WonderError
from wonder.names import EMBEDDED_MODEL
from wonder.trace.samples import EQUIVALENCES, Equivalence
from wonder.trace.schema import AgentMessage
from wonder.trace.store import ArtifactStore

LOG = logging.getLogger(__name__)


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
        lenses: Sequence[Path] = (),
        equivalences: Mapping[str, Equivalence] = EQUIVALENCES,
        padding_side: Side = "left",
        compile: bool | str = False,
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
            lenses: Bundles of lenses of this model, folders of them, registries, or `<registry>/<name>`.
            equivalences: When two answers count as the same, by name, for `ThoughtCapture(samples=…)`.
            padding_side: Where prompts of a batch are padded; both give the same numbers.
            compile: Give what nobody watches to `torch.compile`: norms and feed-forward networks of the blocks. True:
                with inductor; or the name of another backend.
            max_batch: Most requests in one forward pass.
            max_batch_tokens: Most rows × columns of a batch.

        Raises:
            ModelNotUsable: It does not generate, or its blocks cannot be read.
            SettingNotSupported: It cannot be compiled, or gives other numbers when it is.
            LensMismatch: A lens is of another model or tokenizer.
            UnknownLens: There is no lens where one is looked for.
            CorruptBundle: A lens is harmed.
        """
        self._runtime, self._support = prepare(runtime_of(model, tokenizer, padding_side))
        self._compiled = None
        if compile:
            self._compiled = compiled(self._runtime, self._support, compile if isinstance(compile, str) else BACKEND)
            LOG.info("compiled %s", self._compiled)
        self._max_batch = max_batch
        self._max_batch_tokens = max_batch_tokens
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._closed = False
        self._lost: DeviceLost | None = None
        self._listeners: list[Callable[[DeviceLost], None]] = []
        self._desk = Desk(
            self._runtime,
            self._support,
            name=name,
            revision=revision,
            store=store,
            bundles=bundles,
            compressors=compressors,
            lenses=lenses,
            equivalences=equivalences,
            most_tokens=max_batch_tokens,
        )

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
        tp_plan: str | None = None,
        store: ArtifactStore | None = None,
        bundles: Path | None = None,
        compressors: Path | None = None,
        lenses: Sequence[Path] = (),
        equivalences: Mapping[str, Equivalence] = EQUIVALENCES,
        padding_side: Side = "left",
        compile: bool | str = False,
        max_batch: int = 16,
        max_batch_tokens: int = 32768,
    ) -> "TraceEngine":
        """Load a model by embedded name, folder or hub name.

        Args:
            model: Which one.
            revision: Commit or branch on the hub.
            dtype: Such as `bfloat16`; None: as stored.
            device: None: the first accelerator, or the CPU.
            device_map: Passed to transformers, for models over several devices, memory and disk.
            quantization: `8bit`, `4bit` (bitsandbytes), `int8` (torchao, weights only), or a quantization config of
                transformers.
            attn_implementation: `sdpa`, `eager` …; None: what the model chooses.
            tp_plan: `auto`: the model is sharded over the processes that `torchrun` has started; all of them must be
                asked the same in the same order.
            store: Where artifacts go.
            bundles: Folder of probe bundles; None: the embedded model's own.
            compressors: Folder of compressor bundles; None: the embedded model's own.
            lenses: See the class.
            equivalences: See the class.
            padding_side: See the class.
            compile: See the class; for whole models on one device, with weights as they are.
            max_batch: Most requests in one forward pass.
            max_batch_tokens: Most rows × columns of a batch.

        Raises:
            ModelNotFound: No such name or folder.
            ModelNotUsable: It cannot be loaded or read.
            SettingNotSupported: An unknown dtype or quantization, or two options that exclude each
                other.
            ExtraMissing: An option needs a package that is not installed.
        """
        if device is None and device_map is None and quantization is None and tp_plan is None:
            device = default_device()
        if compile and not (device_map is None and quantization is None and tp_plan is None):
            raise SettingNotSupported(
                "compile goes with none of device_map, quantization and tp_plan, which change how a layer is called: "
                "leave it or them out"
            )
        options = LoadOptions(revision, dtype, device, device_map, quantization, attn_implementation, tp_plan)
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
            lenses=lenses,
            equivalences=equivalences,
            padding_side=padding_side,
            compile=compile,
            max_batch=max_batch,
            max_batch_tokens=max_batch_tokens,
        )

    @property
    def info(self) -> EngineInfo:
        """What was loaded."""
        if self._compiled is None:
            return self._desk.info
        return self._desk.info.model_copy(update={"compiled": str(self._compiled)})

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
        job = self._desk.job(request, priority, on_token)
        samples = self._desk.samples(request, priority)
        self._started().submit([job, *samples])
        return Handle(job, self._desk.message, samples)

    def generate(
        self, requests: Sequence[EngineRequest], *, on_step: Callable[[int], None] | None = None
    ) -> list[AgentMessage | WonderError]:
        """Answer many requests; they share forward passes, and begin with the longest budget first.

        Args:
            requests: Each with its own sampling and capture.
            on_step: Called with the number of tokens of the longest answer whenever that has grown; may raise to give
                everything up.

        Returns:
            In the order of the requests: the message, or the error of a request that cannot be answered, so that it
            does not sink its neighbours.

        Raises:
            EngineFailed: The engine has been closed.
            DeviceLost: The device broke before.
        """
        tokens: SimpleQueue[int | None] = SimpleQueue()
        on_token = None if on_step is None else lambda event: tokens.put(event.index + 1)
        found: list[Handle | WonderError] = []
        jobs = []
        open_jobs = 0
        for request in requests:
            try:
                job = self._desk.job(request, 0, on_token)
                samples = self._desk.samples(request)
            except WonderError as error:
                found.append(error)
            else:
                jobs += [job, *samples]
                open_jobs += 1
                job.when_over(lambda: tokens.put(None))
                found.append(Handle(job, self._desk.message, samples))
        if jobs:
            # They are awaited together, so whoever may write longest begins first: what counts is when the last of
            # them is done, and a long answer that begins late is finished alone, in passes of a single row.
            self._started().submit(sorted(jobs, key=lambda job: -job.request.sampling.max_new_tokens))
        try:
            if on_step is not None:
                _follow(tokens, open_jobs, on_step)
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

    def when_lost(self, callback: Callable[[DeviceLost], None]) -> None:
        """Call this once should the device break, on the engine's thread.

        By then everything that was under way has ended with `DeviceLost`, and whatever comes is refused with it: the
        process must be started anew, because a broken device stays broken for the process that broke it.
        """
        with self._lock:
            self._listeners.append(callback)
            lost = self._lost
        if lost is not None:
            callback(lost)

    def close(self) -> None:
        """End what is under way, and take the hooks off the model."""
        with self._lock:
            self._closed = True
            worker = self._worker
        if worker is not None:
            worker.close()
        self._runtime.taps.close()
        if self._compiled is not None:
            self._compiled.undo()

    def _started(self) -> Worker:
        with self._lock:
            if self._closed:
                raise EngineFailed("this engine has been closed: load it again")
            if self._worker is None:
                bounds = {"max_rows": self._max_batch, "max_tokens": self._max_batch_tokens}
                if self._support.slots is None:
                    self._worker = Worker(SlotLoop(self._runtime, **bounds), when_lost=self._lose)
                else:
                    loop = PaddedLoop(self._runtime, **bounds)
                    self._worker = Worker(loop, company_s=COMPANY_S, when_lost=self._lose)
            return self._worker

    def _lose(self, error: DeviceLost) -> None:
        with self._lock:
            self._lost = error
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener(error)
            except Exception:  # the others must hear of it
                LOG.exception("a listener for the loss of the device failed")


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
