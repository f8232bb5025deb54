"""`wonder lens` as a person types it, and what other commands show of explanations."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.engine.conftest import build, byte_tokenizer
from tests.unit.lens.bundles import write
from wonder.cli import review_text, show
from wonder.cli.__main__ import dispatch, parser
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.entry import exit_code
from wonder.errors import (
    ArtifactMissing,
    CorruptBundle,
    LensConflict,
    LensMismatch,
    LensNotPromoted,
    RequestError,
    UnknownLens,
)
from wonder.history.explaining import explain_run
from wonder.history.explanation_page import page
from wonder.history.explanation_text import text
from wonder.lens.__main__ import explain
from wonder.lens.manifest import read_manifest
from wonder.routing.context import Context
from wonder.trace.capture import ThoughtCapture
from wonder.trace.explanation import Explanation, Fidelity, described, guesses
from wonder.trace.sampling import Sampling
from wonder.trace.schema import ThoughtTrace
from wonder.trace.store import DirectoryStore


def run(*words: object) -> int:
    return asyncio.run(dispatch(parser().parse_args([str(word) for word in words])))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lens") / "tiny"
    write(folder, byte_tokenizer())
    return folder


@pytest.fixture(scope="module")
def place(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two traces on disk: one with explanations, both with states."""
    folder = tmp_path_factory.mktemp("traces")
    store = DirectoryStore(folder / "artifacts")
    engine = TraceEngine(build("llama"), byte_tokenizer(), store=store, lenses=[bundle])
    for name, wanted in (("explained", [0, 5]), ("stored", None)):
        capture = ThoughtCapture(explain=wanted, capture_hidden_states=[1, 3])  # type: ignore[arg-type]
        sampling = Sampling(max_new_tokens=6, temperature=1.0, seed=3)
        message = engine.generate_one(Request("hello", sampling=sampling, capture=capture))
        assert message.thought_trace is not None
        (folder / f"{name}.json").write_text(message.thought_trace.model_dump_json())
        (folder / f"{name}-message.json").write_text(message.model_dump_json())
    return folder


def trace_in(path: Path) -> ThoughtTrace:
    return ThoughtTrace.model_validate_json(path.read_text())


def test_a_bundle_is_registered_promoted_listed_and_shown(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = ("--registry", tmp_path / "registry")
    assert run("lens", "list", *registry) == 0
    assert "no lens in" in capsys.readouterr().out
    assert run("lens", "register", bundle, *registry) == 0
    found = read_manifest(bundle)
    assert f"wonder lens promote {found.id}" in capsys.readouterr().out
    with pytest.raises(LensNotPromoted, match=r"must reach 0\.900"):
        run("lens", "promote", found.id, "--minimum-fve", "0.9", *registry)
    assert run("lens", "promote", found.id, "--minimum-fve", "0.7", *registry) == 0
    assert f"current of tiny points to {found.id}" in capsys.readouterr().out
    assert run("lens", "list", *registry) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert line.startswith(found.id)
    assert line[header.index("IN FORCE") :] == "current"
    assert "0.800 [0.780, 0.820]" in line
    assert run("lens", "show", "tiny", *registry) == 0
    told = capsys.readouterr().out
    assert "in force    current" in told
    assert "reads       layer 1 of 4" in told
    assert "control     shuffled: -0.800 [-0.820, -0.795]" in told
    assert run("lens", "list", "--json", *registry) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["in_force"]) == (found.id, True)


def test_what_is_wrong_is_said(bundle: Path, tmp_path: Path) -> None:
    registry = ("--registry", tmp_path / "registry")
    with pytest.raises(UnknownLens, match="no lens 'tiny'"):
        run("lens", "show", "tiny", *registry)
    assert (exit_code(LensNotPromoted("")), exit_code(LensConflict("")), exit_code(UnknownLens(""))) == (4, 3, 1)
    with pytest.raises(RequestError, match="names no version"):
        run("lens", "promote", "tiny", *registry)
    with pytest.raises(CorruptBundle, match=r"has no lens\.json"):
        run("lens", "register", tmp_path, *registry)
    assert run("lens", "show", bundle, *registry) == 0


def test_explanations_of_a_trace_are_told_with_what_they_are_worth(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = trace_in(place / "explained.json")
    for name in ("explained.json", "explained-message.json"):
        assert run("lens", "explain", place / name) == 0
        told = capsys.readouterr().out
        assert told.count("a lens's guess: WEAK, says") == 2
        assert "the lens 80% on average [78%, 82%]" in told
    assert run("lens", "explain", place / "explained.json", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["explanations"] == [item.model_dump(mode="json") for item in trace.explanations]


def test_stored_states_are_put_into_words_by_a_process_of_its_own(
    place: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts = ("--artifacts", place / "artifacts")
    assert run("lens", "explain", place / "stored.json", "--lens", bundle, *artifacts, "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    live = trace_in(place / "explained.json").explanations  # of the same two states
    assert [Explanation.model_validate(item).text for item in found["explanations"]] == [item.text for item in live]
    assert [item["reconstruction"] for item in found["explanations"]] == pytest.approx(
        [item.reconstruction for item in live], abs=1e-3
    )


def test_states_that_cannot_be_had_are_said(place: Path, bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"ThoughtCapture\(explain=…\) on a worker that has a lens"):
        run("lens", "explain", place / "stored.json")
    trace = trace_in(place / "stored.json")
    bare = tmp_path / "bare.json"
    bare.write_text(trace.model_copy(update={"artifacts": []}).model_dump_json())
    with pytest.raises(RequestError, match="has no stored states"):
        run("lens", "explain", bare, "--lens", bundle)
    bare.write_text('{"action": 1}')
    with pytest.raises(RequestError, match="holds no trace"):
        run("lens", "explain", bare)
    with pytest.raises(RequestError, match="has no trace of 'other'"):
        run("lens", "explain", place / "stored.json", "--action", "other")
    request: dict[str, Any] = {
        "bundle": str(bundle),
        "artifacts": str(place / "artifacts"),
        "ref": trace.artifacts[0].model_dump(mode="json"),
        "fingerprint": trace.model_fingerprint,
        "tokens": trace.tokens,
    }
    assert len(explain(request)) == 2
    with pytest.raises(LensMismatch, match="the states are of the weights eeee"):
        explain(request | {"fingerprint": "e" * 64})
    with pytest.raises(ArtifactMissing):
        explain(request | {"artifacts": str(tmp_path)})
    write(tmp_path / "deep", byte_tokenizer(), layer=2, name="deep")
    with pytest.raises(RequestError, match=r"layers 1, 3 were stored, and the lens deep@.* reads layer 2"):
        explain(request | {"bundle": str(tmp_path / "deep")})


def guess(share: float | None, text: str = "the white kite") -> Explanation:
    return Explanation(
        position=3,
        token=" team",
        text=text,
        layer=1,
        reconstruction=share,
        fidelity=Fidelity(value=0.8, low=0.78, high=0.82, rows=512),
        lens="tiny@0123456789ab",
    )


@pytest.mark.parametrize(("share", "weak"), [(0.9, False), (0.5, False), (0.49, True), (-3.0, True), (None, True)])
def test_a_guess_that_says_little_of_its_state_is_called_weak(share: float | None, weak: bool) -> None:
    assert guess(share).is_weak is weak
    assert ("WEAK" in described(guess(share))) is weak
    assert described(guess(0.9)) == "a lens's guess: says 90% of this state; the lens 80% on average [78%, 82%]"


def test_every_command_shows_a_guess_as_one() -> None:
    trace = ThoughtTrace(action="classify", model="tiny", tokens=["legal"], explanations=[guess(0.9), guess(0.1)])
    run_ = explain_run("run", Context(thought_traces=[trace]))
    shown = {
        "show": "\n".join(show.step(trace, None)),
        "review": "\n".join(review_text._trace(trace, colour=False)),
        "explain": text(run_),
    }
    for told in shown.values():
        assert "in words" in told
        assert told.count("a lens's guess") == 2
        assert told.count("WEAK, says 10% of this state") == 1
    html = page(run_)
    assert html.count("a lens&#x27;s guess") == 2
    assert '<dd class="unknown">“the white kite”' in html


def test_a_text_cannot_steer_a_terminal() -> None:
    (line,) = guesses([guess(0.9, "a\x1b[31mred\nnew")])
    assert "“a [31mred new”" in line
