"""Where requests come in and messages go out: a request is checked and made a job, an answered job a message.

All of it happens on the caller's thread, so that the model never waits for it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from wonder.engine import demand
from wonder.engine.admission import checked, prompt_tokens
from wonder.engine.assemble import Assembler, with_confidence
from wonder.engine.concepts import ProbeShelf
from wonder.engine.constrain import Constrainer
from wonder.engine.explain import LensShelf, LiveModel, explained
from wonder.engine.info import EngineInfo
from wonder.engine.injection import Injector, insert, told
from wonder.engine.job import Answered, Job, OnToken
from wonder.engine.keep import hidden_tensors, keep
from wonder.engine.loop import Row, Runtime
from wonder.engine.request import EngineRequest, Request
from wonder.engine.selfcheck import Support
from wonder.engine.text import TokenNames
from wonder.errors import ArtifactError, SettingNotSupported
from wonder.probes.fingerprint import model_fingerprint
from wonder.trace.capture import ThoughtCapture
from wonder.trace.samples import EQUIVALENCES, Equivalence, canonical_answer, summarize
from wonder.trace.schema import AgentMessage, ThoughtTrace
from wonder.trace.store import ArtifactStore


class Desk:
    """Knows what may be asked of one model, and how its answers are told."""

    def __init__(
        self,
        runtime: Runtime,
        support: Support,
        *,
        name: str,
        revision: str,
        store: ArtifactStore | None,
        bundles: Path | None,
        compressors: Path | None,
        lenses: Sequence[Path] = (),
        equivalences: Mapping[str, Equivalence] = EQUIVALENCES,
        most_tokens: int,
    ) -> None:
        """Gather what is known of a model.

        Args:
            runtime: The model, hooks and all.
            support: What the self-check found.
            name: What traces call it.
            revision: Its commit, for traces.
            store: Where artifacts go; None: nothing that needs one can be asked for.
            bundles: Folder whose sub-folders are probe bundles.
            compressors: Folder whose sub-folders are compressor bundles.
            lenses: Bundles of lenses, folders of them, or registries.
            equivalences: When two answers count as the same, by name; `values` is always there.
            most_tokens: Tokens that a prompt and its answer may have together where the model does not say.
        """
        anatomy, tokenizer = runtime.anatomy, runtime.tokenizer
        fingerprint = model_fingerprint(runtime.model)
        self._runtime = runtime
        self._support = support
        self._store = store
        self._most_tokens = most_tokens
        self._equivalences = {**EQUIVALENCES, **equivalences}
        self._constrainer = Constrainer(tokenizer, runtime.end_ids, anatomy.vocabulary)
        live = LiveModel(
            fingerprint, anatomy.d_model, anatomy.n_layers, anatomy.vocabulary, tokenizer, runtime.device, runtime.model
        )
        self.shelf = ProbeShelf(
            bundles, fingerprint, anatomy.d_model, anatomy.n_layers, compressors, LensShelf(lenses, live)
        )
        self._injector = Injector(
            self.shelf.compressors, anatomy.d_model, anatomy.n_layers, runtime.device, support.soft_prompt
        )
        self.info = EngineInfo(
            model=name,
            revision=revision,
            fingerprint=fingerprint,
            dtype=str(runtime.model.dtype).removeprefix("torch."),
            device=str(runtime.device),
            n_layers=anatomy.n_layers,
            d_model=anatomy.d_model,
            vocabulary=anatomy.vocabulary,
            context_length=anatomy.context_length,
            concepts=self.shelf.names,
            lenses=self.shelf.lenses.ids,
            routers=[router.key for router in anatomy.routers],
            shared_experts={router.key: router.shared for router in anatomy.routers if router.shared},
            unsupported=support.unsupported,
        )
        self.assembler = Assembler(self.info, support, self.shelf, TokenNames(tokenizer))

    def job(self, request: EngineRequest, priority: int = 0, on_token: OnToken | None = None) -> Job:
        """Make a job of a request; everything that can be refused is refused here, before anything is generated.

        Raises:
            WonderError: What is wrong with the request.
        """
        injected = self._injector.prepare(request)
        prompt = self.prompt(request, soft=0 if injected is None else injected.record.soft_tokens)
        prompt, injected = insert(prompt, injected, self._runtime.tokenizer.bos_token_id)
        plan = demand.plan_for([request.capture], self.shelf, self.info.n_layers, self._support)
        row = Row(request.sampling, self._runtime)
        constrain = partial(self._constrainer.start, request)
        return Job(
            request,
            prompt,
            row,
            plan,
            constrain=constrain,
            injected=injected,
            priority=priority,
            on_token=on_token,
        )

    def samples(self, request: EngineRequest, priority: int = 0) -> list[Job]:
        """The jobs of the further answers that a request asks for; `job` has checked it.

        Their seeds are made of the request's, so that a request with a seed gives the same samples again, and requests
        with neighbouring seeds share none.
        """
        capture, sampling = request.capture, request.sampling
        if not capture.enabled:
            return []
        schema = getattr(request, "answer_schema", None)
        jobs = []
        for at in range(capture.samples):
            seed = None if sampling.seed is None else _seed_of(sampling.seed, at)
            drawn = sampling.model_copy(update={"temperature": capture.sample_temperature, "seed": seed})
            sample = Request(
                request.prompt,
                request.action,
                drawn,
                ThoughtCapture(enabled=False, inject=capture.inject),
                request.answer_format,
                schema,
                prior_state=getattr(request, "prior_state", None),
                injection=getattr(request, "injection", None),
            )
            jobs.append(self.job(sample, priority))
        return jobs

    def prompt(self, request: EngineRequest, soft: int = 0) -> list[int]:
        """Check a request, and tokenize its prompt, which leaves room for so many soft tokens.

        Raises:
            WonderError: What is wrong with the request.
        """
        checked("thought_capture", request.capture)
        demand.check(request.capture, self.shelf, self.info.n_layers, has_store=self._store is not None)
        if request.capture.samples and request.capture.equivalence not in self._equivalences:
            raise SettingNotSupported(
                f"equivalence {request.capture.equivalence!r} is not known here; there is "
                f"{', '.join(sorted(self._equivalences))}: give it to the worker (--equivalence NAME=module:function)"
            )
        return prompt_tokens(self._runtime, request, self.info.model, self._most_tokens, soft)

    def message(self, job: Job, answered: Answered, samples: Sequence[Job] = ()) -> AgentMessage:
        """The message of an answer, with its artifacts written.

        Args:
            job: Of the request.
            answered: Its outcome.
            samples: The jobs of the further answers; all are over.

        Raises:
            SettingNotSupported: It could not be held to its schema.
            ArtifactError: The store did not take them.
        """
        if job.constraint is not None:
            job.constraint.check()
        trace, tensors = self.read(job, answered, samples)
        try:
            trace = keep(trace, job.request.capture, tensors, self._store)
        except OSError as error:
            raise ArtifactError(f"{self._store!r} did not take the artifact ({error}): make room or access") from error
        return AgentMessage(text=answered.batch.rows[answered.index].answer, thought_trace=trace)

    def _with_samples(self, trace: ThoughtTrace, job: Job, answered: Answered, samples: Sequence[Job]) -> ThoughtTrace:
        capture = job.request.capture
        rows = [done.batch.rows[done.index] for sample in samples if (done := sample.answered) is not None]
        if not rows:
            reason = "none of the samples could be had; they may not have fitted into memory"
            return trace.model_copy(update={"missing": trace.missing | {"samples": reason}})
        given, *texts = [
            canonical_answer(row.answer, job.request.answer_format, capture.value_fields)
            for row in (answered.batch.rows[answered.index], *rows)
        ]
        equal = self._equivalences[capture.equivalence]
        summary = summarize(given, texts, equal, name=capture.equivalence, failed=len(samples) - len(rows))
        tokens = sum(len(row.tokens) for row in rows)
        return trace.model_copy(update={"samples": summary.model_copy(update={"generated_tokens": tokens})})

    def read(self, job: Job, answered: Answered, samples: Sequence[Job] = ()) -> tuple[ThoughtTrace, dict[str, Tensor]]:
        """The trace in full length and precision, and the tensors for the artifact."""
        batch, index, plan = answered.batch, answered.index, answered.plan
        tensors = {}
        if plan is not None and batch.readings is not None:
            tensors = hidden_tensors(job.request.capture, batch.readings, plan, index, self.info.n_layers)
        trace = self.assembler.trace(job.request, job.prompt, batch, index, plan, answered.queue_s)
        trace = told(trace, job.request, job.injected)
        if samples:
            trace = with_confidence(self._with_samples(trace, job, answered, samples), job.request.capture)
        return explained(trace, job.request.capture, self.shelf.lenses, batch.readings, index), tensors


def _seed_of(seed: int, sample: int) -> int:
    digest = hashlib.sha256(f"{seed}/{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
