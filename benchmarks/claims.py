"""Do claims about a trace hold? Measured where the truth is known: the closed world and the support desk."""

import hashlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load
from torch import Tensor

from benchmarks._questions import FACT_WORLD
from benchmarks._results import Row, arguments, report
from lens_training.fact_world.words import CONTEXT, QUESTION, SEPARATOR
from lens_training.fact_world.world import Question, build_world, evaluation_set
from wonder.claims.claim import Claim
from wonder.claims.known import active_before, alternatives, from_context
from wonder.claims.validation import ClaimValidation, validate
from wonder.embedded.world import prompt, tickets
from wonder.engine import Request, TraceEngine
from wonder.errors import WonderError
from wonder.probes.bundle import save_bundle
from wonder.probes.fit import fit_probe
from wonder.probes.manifest import HookPoint, ProbeManifest
from wonder.probes.metrics import probe_metrics
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.schema import ThoughtTrace
from wonder.trace.store import DirectoryStore

CONCEPT = "from_context"
SITES = ("mean_generated", "last_generated")
PLENTY = 600


def ask(engine: TraceEngine, prompts: Sequence[str], capture: ThoughtCapture, tokens: int = 4) -> list[ThoughtTrace]:
    """The traces of greedy answers."""
    form = "json" if tokens > 4 else "text"
    asked = [
        Request(text, sampling=Sampling(max_new_tokens=tokens), capture=capture, answer_format=form)  # type: ignore[arg-type]
        for text in prompts
    ]
    found = []
    for answered in engine.generate(asked):
        if isinstance(answered, WonderError) or answered.thought_trace is None:
            raise SystemExit(f"a question was not answered: {answered}")
        found.append(answered.thought_trace)
    return found


def of_kind(questions: Sequence[Question], kind: str, count: int) -> list[str]:
    """Some prompts of one kind."""
    return [found.prompt for found in questions if found.kind == kind][:count]


def beside_the_point(questions: Sequence[Question], count: int) -> list[str]:
    """Determined questions with somebody else's fact stated before them: the answer is not in the context."""
    rng = Random(11)
    stated = [found.prompt for found in questions if found.kind == "in_context"]
    found = []
    for question in [found for found in questions if found.kind == "determined"][-count:]:
        words, other = question.prompt.split(), rng.choice(stated).split()
        statement = other[other.index(CONTEXT) : other.index(SEPARATOR) + 1]
        found.append(" ".join([*statement, *words[words.index(QUESTION) :]]))
    return found


def states(engine: TraceEngine, store: DirectoryStore, prompts: Sequence[str]) -> Mapping[HookPoint, Tensor]:
    """The states that produced the answers, by layer and reduction."""
    capture = ThoughtCapture(capture_hidden_states=True, compute_confidence=False)
    rows: dict[HookPoint, list[Tensor]] = {}
    for trace in ask(engine, prompts, capture):
        tensors = load(store.get(trace.artifacts[0]))
        for layer in range(engine.info.n_layers):
            for site in SITES:
                point = HookPoint(layer=layer, aggregation=site)  # type: ignore[arg-type]
                rows.setdefault(point, []).append(tensors[f"hidden.{site}"][layer])
    return {point: torch.stack(found) for point, found in rows.items()}


def train_probe(folder: Path, store: DirectoryStore, yes: Sequence[str], no: Sequence[str]) -> None:
    """A probe for answers that came from the context, saved as a bundle."""
    engine = TraceEngine.load(FACT_WORLD, store=store, max_batch=32)
    labels_N = torch.tensor([True] * len(yes) + [False] * len(no))
    found = states(engine, store, [*yes, *no])
    fitted = fit_probe(found, labels_N)
    logits_N = fitted.probe.logits(found[fitted.hook_point])
    text = "\n".join([*yes, *no]).encode()
    manifest = ProbeManifest(
        name=CONCEPT,
        concept=CONCEPT,
        definition="The answer is stated in the prompt.",
        polarity="high means that it is",
        model="fact-world",
        revision=engine.info.fingerprint[:12],
        model_fingerprint=engine.info.fingerprint,
        dtype=engine.info.dtype,
        hook_point=fitted.hook_point,
        d_model=engine.info.d_model,
        method=fitted.method,
        data_sha256=hashlib.sha256(text).hexdigest(),
        train_count=len(labels_N),
        train_positives=len(yes),
        held_out_count=len(labels_N),
        held_out_positives=len(yes),
        prevalence=len(yes) / len(labels_N),
        metrics=probe_metrics(logits_N, labels_N),
        shuffled_label_auroc=0.5,
        calibration=fitted.calibration,
        created=datetime.now(UTC).date(),
    )
    engine.close()
    save_bundle(folder / CONCEPT, manifest, fitted.probe.tensors())


def rows_of(claim: Claim, found: ClaimValidation, name: str, *, bar: bool) -> list[Row]:
    """The figures of one claim."""
    how = (
        f"{found.positives} answers where it holds and {found.negatives} where it does not, {found.dataset}; "
        f"supported when {claim.supported_when}."
    )
    return [
        Row(f"{name}: AUROC", found.auroc or 0.0, "", ">= 0.96" if bar else "", how),
        Row(f"{name}: called supported where it is false", found.false_support, "", "<= 0.05" if bar else "", how),
        Row(f"{name}: called supported where it holds", found.support, "", "", how),
        Row(f"{name}: called refuted where it holds", found.false_refutation, "", "", how),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    count = 120 if arguments(argv).quick else PLENTY
    questions = evaluation_set(build_world())
    ambiguous, determined = of_kind(questions, "ambiguous", count), of_kind(questions, "determined", 2 * count)
    stated = of_kind(questions, "in_context", 2 * count)
    beside = beside_the_point(questions, 2 * count)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        folder, store = Path(place) / "probes", DirectoryStore(Path(place) / "artifacts")
        train_probe(folder, store, stated[:count], [*determined[:count], *beside[:count]])
        engine = TraceEngine.load(FACT_WORLD, bundles=folder, max_batch=32)
        plain = ThoughtCapture(compute_attention_entropy=True, attention_layers="all")
        close = ask(engine, ambiguous, plain)
        far = ask(engine, determined[:count], plain)
        claim = alternatives()
        pairs = [*((trace, True) for trace in close), *((trace, False) for trace in far)]
        found = validate(claim, pairs, "ambiguous against determined facts of the closed world")
        rows += rows_of(claim, found, "claim of close alternatives", bar=True)
        wide = claim.model_copy(update={"score": "-thought_trace.signals.attention_narrowness"})
        attention = validate(Claim(**wide.model_dump(exclude={"validations"})), pairs, "the same")
        rows.append(
            Row(
                "the same by the entropy of attention alone: AUROC",
                attention.auroc or 0.0,
                "",
                "",
                "the same answers, ordered by attention entropy over ln(keys), mean over all layers.",
            )
        )
        probing = ThoughtCapture(run_concept_probes=[CONCEPT])
        yes = ask(engine, stated[count:], probing)
        no = ask(engine, [*determined[count:], *beside[count:]], probing)
        claim = from_context(CONCEPT)
        pairs = [*((trace, True) for trace in yes), *((trace, False) for trace in no)]
        found = validate(
            claim, pairs, "facts stated in the prompt against known ones, half of them beside a stated one"
        )
        rows += rows_of(claim, found, "claim that the answer came from the context", bar=False)
        engine.close()
    engine = TraceEngine.load()
    found_tickets = tickets(8 * count, seed=77, split="held_out")
    claim = active_before("legal_risk")
    capture = ThoughtCapture(run_concept_probes=["legal_risk"])
    traces = ask(engine, [prompt(ticket.text) for ticket in found_tickets], capture, tokens=24)
    pairs = [(trace, ticket.kind == "legal") for trace, ticket in zip(traces, found_tickets, strict=True)]
    found = validate(claim, pairs, "held-out tickets of the support desk that carry legal risk, against all others")
    rows += rows_of(claim, found, "claim that legal risk was active before the answer", bar=False)
    report("claims", rows, argv)


if __name__ == "__main__":
    main(sys.argv[1:])
