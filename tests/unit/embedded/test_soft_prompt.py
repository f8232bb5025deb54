"""The shipped soft-prompt map: it belongs to the shipped weights and compressor, and does what its manifest says."""

import json
from pathlib import Path

import pytest

from lens_training.support_desk.follow_ups import FOLLOW_UPS, NEW_FOLLOW_UPS
from lens_training.support_desk.soft_prompt import Recipe, train_soft_prompt
from wonder.compression.bundle import load_compressor
from wonder.compression.soft_prompt import SoftPromptMap, load_soft_prompt
from wonder.embedded import SUPPORT_DESK, embedded_compressors, embedded_path
from wonder.embedded.world import prompt, tickets
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.trace.capture import ThoughtCapture
from wonder.trace.injection import Injection
from wonder.trace.sampling import Sampling

TRAIN_AGAIN = "run `python -m lens_training.support_desk.soft_prompt`"
SHORT = Sampling(max_new_tokens=24)


@pytest.fixture(scope="module")
def shipped() -> SoftPromptMap:
    folder = embedded_compressors(SUPPORT_DESK)
    assert folder is not None
    return load_soft_prompt(folder / "soft_prompt")


@pytest.fixture(scope="module")
def engine() -> TraceEngine:
    return TraceEngine.load(SUPPORT_DESK, device="cpu")


def test_it_was_trained_for_the_shipped_weights_and_their_compressor(
    shipped: SoftPromptMap, engine: TraceEngine
) -> None:
    folder = embedded_compressors(SUPPORT_DESK)
    assert folder is not None
    assert shipped.manifest.model_fingerprint == engine.info.fingerprint, TRAIN_AGAIN
    assert shipped.manifest.compressor == load_compressor(folder / "pca").id, TRAIN_AGAIN
    assert shipped.manifest.dims <= ThoughtCapture().compression_dims
    own, nothing, other = (
        next(row for row in shipped.manifest.metrics if word in row.given) for word in ("own", "nothing", "another")
    )
    assert own.agreement > 2 * max(nothing.agreement, other.agreement)
    assert own.kl_nats < nothing.kl_nats / 2
    norms = engine.model.get_input_embeddings().weight.detach().norm(dim=1)
    assert norms.min() < shipped.manifest.embedding_norm < norms.max()
    assert shipped.manifest.layer0_norm == pytest.approx(shipped.manifest.embedding_norm)


def test_nobody_is_measured_with_a_follow_up_that_was_trained_with() -> None:
    assert not set(FOLLOW_UPS) & set(NEW_FOLLOW_UPS)


def test_a_follow_up_is_answered_by_the_team_of_the_ticket_before(engine: TraceEngine) -> None:
    asked = [ticket for ticket in tickets(40, seed=77, split="held_out") if ticket.kind == "clear"]
    remember = ThoughtCapture(compress_state=True)
    firsts = engine.generate(
        [Request(prompt=prompt(ticket.text), capture=remember, sampling=SHORT) for ticket in asked]
    )
    capture = ThoughtCapture(inject=Injection(kind="soft_prompt"))
    right = {"informed": 0, "plain": 0}
    for name in right:
        seconds = engine.generate(
            [
                Request(
                    prompt=prompt(NEW_FOLLOW_UPS[0]),
                    capture=capture,
                    sampling=SHORT,
                    prior_state=first.thought_trace.compressed_state if name == "informed" else None,  # type: ignore[union-attr]
                )
                for first in firsts
            ]
        )
        right[name] = sum(
            f'"team": "{ticket.team}"' in second.text  # type: ignore[union-attr]
            for ticket, second in zip(asked, seconds, strict=True)
        )
    assert right["plain"] < 0.5 * len(asked) < 0.7 * len(asked) < right["informed"]


def test_training_again_on_few_tickets_gives_a_bundle_that_fits(tmp_path: Path) -> None:
    model = embedded_path(SUPPORT_DESK)
    assert model is not None
    for file in model.iterdir():
        if file.name != "compressors":
            (tmp_path / file.name).symlink_to(file, target_is_directory=file.is_dir())
    (tmp_path / "compressors").mkdir()
    (tmp_path / "compressors" / "pca").symlink_to(model / "compressors" / "pca", target_is_directory=True)
    made = train_soft_prompt(
        tmp_path,
        train=tickets(30, seed=1, split="train"),
        held_out=tickets(10, seed=2, split="held_out"),
        recipe=Recipe(tokens=2, steps=3, batch=4),
    )
    assert (made.manifest.train_count, made.manifest.held_out_count) == (30, 10)
    assert made.manifest.shapes["weight"] == (2 * 128, 64)
    stored = json.loads((tmp_path / "compressors" / "soft_prompt" / "manifest.json").read_text())
    assert stored["metrics"][0]["given"] == "nothing"
    engine = TraceEngine.load(tmp_path, device="cpu", compressors=tmp_path / "compressors")
    state = engine.generate_one(
        Request(prompt=prompt("Where is my parcel?"), capture=ThoughtCapture(compress_state=True), sampling=SHORT)
    ).thought_trace
    assert state is not None
    second = engine.generate_one(
        Request(
            prompt=prompt("?"),
            capture=ThoughtCapture(inject=Injection(kind="soft_prompt")),
            prior_state=state.compressed_state,
            sampling=SHORT,
        )
    ).thought_trace
    assert second is not None
    assert second.injection is not None
    assert second.injection.bundle == made.id
