"""A compressed state of an earlier request, put into a later one: as a soft prompt or as a direction, or refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from tests.unit.compression.test_soft_prompt import manifest_of, tensors_of
from tests.unit.engine.conftest import build
from tests.unit.engine.test_compress import DIMS, save_basis
from wonder.actions.contracts import ThinkRequest
from wonder.compression.bundle import Compressor, load_compressor
from wonder.compression.soft_prompt import SoftPromptMap, save_soft_prompt
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request, SoftPrompt, Steering
from wonder.errors import CompressorMismatch, InjectionRefused
from wonder.probes.fingerprint import model_fingerprint
from wonder.trace.capture import ThoughtCapture
from wonder.trace.injection import NO_PRIOR_STATE, Injection
from wonder.trace.sampling import Sampling
from wonder.trace.schema import CompressedState, ThoughtTrace
from wonder.trace.store import DirectoryStore

SOFT = Injection(kind="soft_prompt")
STEER = Injection(kind="steering", strength=0.9)


def save_map(folder: Path, model: Any, compressor: str, **changes: Any) -> SoftPromptMap:
    """A random map for a tiny model."""
    fields = {
        "model_fingerprint": model_fingerprint(model),
        "d_model": model.config.hidden_size,
        "compressor": compressor,
        "dims": DIMS - 2,
    }
    manifest = manifest_of(**(fields | changes))
    return save_soft_prompt(folder / "soft_prompt", manifest, tensors_of(manifest))


@pytest.fixture
def model() -> Any:
    return build("llama")


@pytest.fixture
def compressor(tmp_path: Path, model: Any) -> Compressor:
    return save_basis(tmp_path, model)


@pytest.fixture
def soft_map(tmp_path: Path, model: Any, compressor: Compressor) -> SoftPromptMap:
    return save_map(tmp_path, model, compressor.id)


@pytest.fixture
def engine(tmp_path: Path, model: Any, soft_map: SoftPromptMap, tokenizer: Any) -> TraceEngine:
    return TraceEngine(model, tokenizer, compressors=tmp_path, store=DirectoryStore(tmp_path / "store"))


def first(engine: TraceEngine) -> CompressedState:
    """What an earlier request left."""
    capture = ThoughtCapture(compress_state=True, compression_dims=DIMS)
    return (trace(engine, Request("what it was about", capture=capture, sampling=SHORT))).compressed_state  # type: ignore[return-value]


SHORT = Sampling(max_new_tokens=6)


def trace(engine: TraceEngine, request: Any) -> ThoughtTrace:
    found = engine.generate_one(request).thought_trace
    assert found is not None
    return found


def ask(inject: Injection | None, state: CompressedState | None = None, **options: Any) -> Request:
    return Request("and now?", capture=ThoughtCapture(inject=inject), prior_state=state, sampling=SHORT, **options)


def test_a_soft_prompt_is_what_the_map_makes_of_the_state(engine: TraceEngine, soft_map: SoftPromptMap) -> None:
    state = first(engine)
    found = trace(engine, ask(SOFT, state))
    own = trace(engine, ask(None, injection=SoftPrompt(soft_map.apply(state.values))))
    assert found.tokens == own.tokens
    assert found.token_confidences == own.token_confidences
    assert found.injection is not None
    assert own.injection is not None
    assert (found.injection.source, found.injection.bundle) == ("prior_state", soft_map.id)
    assert found.bundles["soft_prompt"] == soft_map.id
    assert (own.injection.source, own.injection.bundle, own.bundles) == ("own", None, {})
    assert found.injection.sha256 == own.injection.sha256
    assert found.injection.soft_tokens == soft_map.manifest.tokens
    assert "injection" not in found.missing
    assert found.tokens != trace(engine, ask(None)).tokens


@pytest.mark.parametrize(("layer", "mode"), [(None, "generated"), (1, "all")])
def test_steering_goes_where_the_state_differs_from_the_average(
    layer: int | None, mode: Any, engine: TraceEngine, compressor: Compressor
) -> None:
    state = first(engine)
    direction = (compressor.expand(state.values).double() - compressor.basis.mean_D).float()
    at = compressor.manifest.hook_point.layer if layer is None else layer
    found = trace(engine, ask(Injection(kind="steering", layer=layer, strength=0.9, mode=mode), state))
    own = trace(engine, ask(None, injection=Steering(at, direction, 0.9, mode)))
    assert found.tokens == own.tokens
    assert found.injection is not None
    assert (found.injection.layer, found.injection.mode, found.injection.strength) == (at, mode, 0.9)
    assert found.injection.bundle == compressor.id == found.bundles["steering"]


@pytest.mark.parametrize("inject", [SOFT, STEER])
@pytest.mark.parametrize("enabled", [True, False])
def test_without_a_prior_state_the_answer_is_the_plain_one_and_the_trace_says_why(
    inject: Injection, enabled: bool, engine: TraceEngine
) -> None:
    capture = ThoughtCapture(inject=inject, enabled=enabled)
    found = trace(engine, Request("and now?", capture=capture, sampling=SHORT))
    assert found.tokens == trace(engine, ask(None)).tokens
    assert found.injection is None
    assert found.missing["injection"] == NO_PRIOR_STATE


def test_a_state_that_nobody_asked_to_put_in_stays_outside(engine: TraceEngine) -> None:
    found = trace(engine, ask(None, first(engine)))
    assert found.tokens == trace(engine, ask(None)).tokens
    assert found.injection is None
    assert "injection" not in found.missing


def test_a_request_from_the_wire_is_treated_alike(engine: TraceEngine) -> None:
    state = first(engine)
    wire = ThinkRequest(
        action="next",
        model="tiny",
        prompt="and now?",
        sampling=SHORT,
        capture=ThoughtCapture(inject=SOFT),
        prior_state=state,
    )
    again = ThinkRequest.model_validate_json(wire.model_dump_json())
    assert trace(engine, again).injection == trace(engine, ask(SOFT, state)).injection


def test_further_answers_to_one_prompt_get_the_same_injection(engine: TraceEngine) -> None:
    state = first(engine)
    capture = ThoughtCapture(inject=SOFT, samples=2)
    jobs = engine._desk.samples(Request("and now?", capture=capture, prior_state=state, sampling=SHORT))
    assert [job.injected.record.kind for job in jobs if job.injected is not None] == ["soft_prompt"] * 2


@pytest.mark.parametrize("inject", [SOFT, STEER])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"basis": "pca@ffffffffffff"}, "coded by 'pca@ffffffffffff'"),
        ({"values": [1e300] * DIMS}, "not finite"),
        ({"values": []}, "has 0 numbers"),
    ],
)
def test_a_state_that_means_nothing_here_is_refused_and_disturbs_nobody(
    inject: Injection, change: dict[str, Any], reason: str, engine: TraceEngine
) -> None:
    bad = first(engine).model_copy(update=change)
    refused, plain = engine.generate([ask(inject, bad), ask(None)])
    assert isinstance(refused, InjectionRefused)
    with pytest.raises(InjectionRefused, match=reason):
        raise refused
    assert not isinstance(plain, Exception)


def test_a_state_of_another_model_is_refused(engine: TraceEngine, tmp_path: Path, tokenizer: Any) -> None:
    other = build("llama", seed=1)
    save_basis(tmp_path / "other", other)
    stranger = first(TraceEngine(other, tokenizer, compressors=tmp_path / "other"))
    with pytest.raises(InjectionRefused, match="other bundles or models"):
        engine.generate_one(ask(SOFT, stranger))


def test_a_code_too_short_for_the_map_or_too_long_for_its_basis_is_refused(engine: TraceEngine) -> None:
    state = first(engine)
    with pytest.raises(InjectionRefused, match=f"set compression_dims={DIMS - 2} or more"):
        engine.generate_one(ask(SOFT, state.model_copy(update={"values": state.values[:3]})))
    assert trace(engine, ask(STEER, state.model_copy(update={"values": state.values[:3]}))).injection is not None
    with pytest.raises(InjectionRefused, match=f"{DIMS + 1} numbers, and its basis"):
        engine.generate_one(ask(STEER, state.model_copy(update={"values": [*state.values, 0.0]})))


def test_a_layer_that_is_not_there_is_refused_before_any_state_is(engine: TraceEngine) -> None:
    with pytest.raises(InjectionRefused, match=r"layer 4, this model has layers 0\.\.3"):
        engine.generate_one(ask(Injection(kind="steering", layer=4)))


@pytest.mark.parametrize(("inject", "reason"), [(SOFT, "no soft-prompt map"), (STEER, "no compressor bundle")])
def test_a_model_without_the_bundle_refuses(inject: Injection, reason: str, model: Any, tokenizer: Any) -> None:
    with pytest.raises(InjectionRefused, match=reason):
        TraceEngine(model, tokenizer).generate_one(ask(inject))


def test_a_map_of_other_weights_or_of_an_older_compressor_is_refused(
    tmp_path: Path, model: Any, compressor: Compressor, tokenizer: Any
) -> None:
    save_map(tmp_path, model, compressor.id, model_fingerprint="f" * 64)
    with pytest.raises(CompressorMismatch, match="fingerprint ffffffffffff"):
        TraceEngine(model, tokenizer, compressors=tmp_path).generate_one(ask(SOFT))
    for file in (tmp_path / "soft_prompt").iterdir():
        file.unlink()
    save_map(tmp_path, model, "pca@older0000000")
    with pytest.raises(InjectionRefused, match="train the map again"):
        TraceEngine(model, tokenizer, compressors=tmp_path).generate_one(ask(SOFT))


def test_what_is_put_in_reaches_the_state_that_is_read(engine: TraceEngine, tmp_path: Path) -> None:
    """The next compressed state is that of the steered run, so that hints can be handed on."""
    state = first(engine)
    layer = load_compressor(tmp_path / "pca").manifest.hook_point.layer
    reads = {"compress_state": True, "compression_dims": DIMS, "capture_hidden_states": [layer]}
    plain, steered = (
        trace(engine, Request("and now?", capture=ThoughtCapture(inject=inject, **reads), prior_state=state))
        for inject in (None, STEER)
    )
    store = DirectoryStore(tmp_path / "store")
    one, other = (load(store.get(found.artifacts[0]))["hidden.last_prompt"][0] for found in (plain, steered))
    assert float((other - one).norm() / one.norm()) == pytest.approx(0.9, rel=1e-4)
    assert torch.isfinite(other).all()


def test_settings_that_make_no_sense_are_refused_when_they_are_written() -> None:
    with pytest.raises(ValueError, match="layer belongs to"):
        Injection(kind="soft_prompt", layer=2)
    with pytest.raises(ValueError, match="finite"):
        Injection(kind="steering", strength=float("nan"))
    with pytest.raises(ValueError, match="no setting stregth"):
        Injection(kind="steering", stregth=0.1)  # type: ignore[call-arg]
    assert ThoughtCapture().inject is None
