"""Lenses in the engine: the text is that of the state that produced the token, and nothing else changes."""

import copy
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from lens_training.export import export, states_digest
from tests.unit.engine.conftest import build, byte_tokenizer
from tests.unit.lens.bundles import metrics, source, system, write
from wonder.engine.engine import TraceEngine
from wonder.engine.explain import NO_ROOM, Speaker, _Ask
from wonder.engine.numbers import NOT_FINITE
from wonder.engine.request import Request
from wonder.engine.slot_recorder import SlotRecorder
from wonder.errors import CorruptBundle, LensMismatch, SettingNotSupported, UnknownLens
from wonder.lens.bundle import ConsistencyLens, Guess, load_lens
from wonder.trace.capture import ThoughtCapture
from wonder.trace.explanation import Explain
from wonder.trace.sampling import Sampling
from wonder.trace.schema import TRACE_LIMIT_BYTES, ThoughtTrace
from wonder.trace.size import encoded_bytes
from wonder.trace.store import DirectoryStore

LAYER = 1


def ask(explain: Any = "last", prompt: str = "hello", tokens: int = 6, **capture: Any) -> Request:
    settings = ThoughtCapture(explain=explain, **capture)
    # Drawn, so that the tokens differ: a random model repeats its likeliest one.
    return Request(prompt, sampling=Sampling(max_new_tokens=tokens, temperature=1.0, seed=3), capture=settings)


def trace_of(engine: TraceEngine, request: Request) -> ThoughtTrace:
    found = engine.generate_one(request).thought_trace
    assert found is not None
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the random llama."""
    path = tmp_path_factory.mktemp("lenses") / "tiny"
    write(path, byte_tokenizer())
    return path


@pytest.fixture(scope="module")
def engine(folder: Path, tokenizer: Any) -> TraceEngine:
    return TraceEngine(build("llama"), tokenizer, lenses=[folder])


def states(engine: TraceEngine, prompt: str, ids: list[int], layer: int = LAYER) -> torch.Tensor:
    """What a plain forward pass of the whole text gives at the positions that produced the tokens."""
    given = engine.tokenizer(prompt)["input_ids"]
    model = copy.deepcopy(build("llama"))
    seen: list[torch.Tensor] = []
    handle = model.model.layers[layer].register_forward_hook(lambda _m, _a, out: seen.append(out))
    with torch.inference_mode():
        model(input_ids=torch.tensor([given + ids[:-1]]))
    handle.remove()
    found = seen[0][0] if isinstance(seen[0], torch.Tensor) and seen[0].ndim == 3 else seen[0]
    return found[len(given) - 1 :]


def test_each_text_is_what_the_lens_says_of_the_state_that_produced_the_token(
    engine: TraceEngine, folder: Path
) -> None:
    handle = engine.submit(ask([0, 2, 5]))
    trace, lens = handle.result().thought_trace, load_lens(folder)
    assert trace is not None
    ids = handle._job.row.tokens
    assert len(set(ids)) > 3
    expected = lens.explain(states(engine, "hello", ids)[[0, 2, 5]])
    assert [found.position for found in trace.explanations] == [0, 2, 5]
    assert [found.token for found in trace.explanations] == [trace.tokens[at] for at in (0, 2, 5)]
    assert [found.text for found in trace.explanations] == [guess.text for guess in expected]
    assert len({found.text for found in trace.explanations}) > 1
    for found, guess in zip(trace.explanations, expected, strict=True):
        assert found.reconstruction == pytest.approx(guess.reconstruction, rel=1e-3)
        assert found.fidelity == lens.manifest.metrics.fve
        assert (found.layer, found.lens, found.label) == (LAYER, lens.id, "a lens's guess")
    assert trace.bundles["explanations"] == lens.id
    assert "explanations" not in trace.missing
    assert trace.timings.explain_s > 0
    assert engine.info.lenses == [lens.id]


def test_explaining_changes_no_token_and_no_other_number(engine: TraceEngine) -> None:
    plain = engine.generate_one(ask(None, tokens=12)).thought_trace
    explained = engine.generate_one(ask([0, 5], tokens=12)).thought_trace
    assert plain is not None
    assert explained is not None
    skipped = {"explanations", "timings", "bundles"}
    assert plain.model_dump(exclude=skipped) == explained.model_dump(exclude=skipped)
    assert (plain.explanations, plain.bundles) == ([], {})


@pytest.mark.parametrize(("family", "padding_side"), [("llama", "left"), ("gpt2", "right")])
def test_neighbours_and_loops_change_no_text(family: str, padding_side: Any, tokenizer: Any, tmp_path: Path) -> None:
    write(tmp_path / "tiny", tokenizer, family)
    engine = TraceEngine(build(family), tokenizer, lenses=[tmp_path / "tiny"], padding_side=padding_side)
    requests = [ask([0, 3], "one", 5), ask(None, "a longer prompt, ragged", 9), ask("last", "another", 3)]
    alone = [engine.generate_one(request).thought_trace for request in requests]
    together = [message.thought_trace for message in engine.generate(requests)]  # type: ignore[union-attr]
    for one, other in zip(alone, together, strict=True):
        assert one is not None
        assert other is not None
        assert [(e.position, e.text) for e in one.explanations] == [(e.position, e.text) for e in other.explanations]
    assert [len(trace.explanations) for trace in alone if trace] == [2, 0, 1]


def test_a_model_with_running_states_is_explained_in_its_padded_loop(tokenizer: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = hf.BloomConfig(vocab_size=320, hidden_size=32, n_layer=3, n_head=4, bos_token_id=1, eos_token_id=2)
    model = hf.AutoModelForCausalLM.from_config(config).eval()

    made, statistics, state_ND = system(model)
    manifest = export(
        made,
        statistics,
        metrics(data=states_digest(state_ND)),
        tokenizer,
        source(model, 1),
        tmp_path / "tiny",
        name="tiny",
    )
    engine = TraceEngine(model, tokenizer, lenses=[tmp_path / "tiny"])
    trace = trace_of(engine, ask([0, 1, 2, 3], logit_lens=[0, 2]))
    assert trace.batching == "alone"
    assert [found.lens for found in trace.explanations] == [manifest.id] * 4
    assert [layer.layer for layer in trace.logit_lens] == [0, 2]


def test_the_logit_lens_beside_it_reads_its_own_layers(engine: TraceEngine) -> None:
    beside = trace_of(engine, ask("last", logit_lens=[0, 3]))
    alone = trace_of(engine, ask(None, logit_lens=[0, 3]))
    assert beside.logit_lens == alone.logit_lens
    assert len(beside.explanations) == 1


def test_the_last_position_and_the_values(engine: TraceEngine) -> None:
    trace = trace_of(engine, ask("last"))
    assert [found.position for found in trace.explanations] == [len(trace.tokens) - 1]
    # A plain-text answer is one value.
    values = trace_of(engine, ask("values"))
    (field,) = values.field_confidences.values()
    assert [found.position for found in values.explanations] == list(range(field.start, field.stop))
    unknown = trace_of(engine, ask("values", compute_confidence=False))
    assert unknown.explanations == []
    assert "values" in unknown.missing["explanations"]


def test_what_was_left_out_is_told(engine: TraceEngine) -> None:
    few = trace_of(engine, ask(Explain(positions=[0, 1, 2, 3], max_positions=2)))
    assert [found.position for found in few.explanations] == [0, 1]
    assert few.missing["explanations"] == "the first 2 of 4 states"
    beyond = trace_of(engine, ask([0, 99]))
    assert [found.position for found in beyond.explanations] == [0]
    assert beyond.missing["explanations"].startswith("1 of the positions lie beyond the ")


def test_a_trace_with_every_state_in_words_keeps_to_its_limit(engine: TraceEngine) -> None:
    everything = Explain(positions=list(range(64)), max_positions=64)
    for tokens in (64, 250):
        trace = trace_of(engine, ask(everything, tokens=tokens, top_alternatives=10))
        assert encoded_bytes(trace) <= TRACE_LIMIT_BYTES
        assert len(trace.explanations) == 64 or "to keep the trace small" in trace.missing["explanations"]


def test_without_a_lens_explain_is_refused_before_anything_is_generated(tokenizer: Any) -> None:
    bare = TraceEngine(build("llama"), tokenizer)
    with pytest.raises(SettingNotSupported, match="start it with --lens FOLDER, or leave explain out"):
        bare.generate_one(ask())
    assert trace_of(bare, ask(None)).explanations == []
    assert trace_of(bare, ask(enabled=False)).explanations == []


def test_an_unknown_name_is_refused_with_the_nearest_one(engine: TraceEngine) -> None:
    with pytest.raises(UnknownLens, match="did you mean 'tiny'"):
        engine.generate_one(ask(Explain(lens="tinny")))
    assert trace_of(engine, ask(Explain(lens="tiny"))).explanations


def test_of_several_lenses_one_is_named(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    write(tmp_path / "deep", tokenizer, layer=2, name="deep")
    engine = TraceEngine(build("llama"), tokenizer, lenses=[folder, tmp_path / "deep"])
    with pytest.raises(SettingNotSupported, match=r"deep, tiny: name one of them"):
        engine.generate_one(ask())
    found = engine.generate([ask(Explain(lens="deep")), ask(Explain(lens="tiny"))])
    assert [message.thought_trace.explanations[0].layer for message in found] == [2, 1]  # type: ignore[union-attr]
    with pytest.raises(SettingNotSupported, match="two lenses are called 'tiny'"):
        TraceEngine(build("llama"), tokenizer, lenses=[folder, folder])


def test_a_lens_that_does_not_fit_or_is_harmed_stops_the_start(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(LensMismatch, match="fingerprint"):
        TraceEngine(build("llama", seed=1), tokenizer, lenses=[folder])
    with pytest.raises(LensMismatch, match="layers 4"):
        TraceEngine(build("llama", num_hidden_layers=2), tokenizer, lenses=[folder])
    grown = copy.deepcopy(tokenizer)
    grown.add_tokens(["ticket"])
    with pytest.raises(LensMismatch, match="tokenizer"):
        TraceEngine(build("llama"), grown, lenses=[folder])
    with pytest.raises(UnknownLens, match="holds no lens"):
        TraceEngine(build("llama"), tokenizer, lenses=[tmp_path])
    write(tmp_path / "harmed", tokenizer)
    (tmp_path / "harmed/lens.safetensors").write_bytes(b"")
    with pytest.raises(CorruptBundle):
        TraceEngine(build("llama"), tokenizer, lenses=[tmp_path / "harmed"])


def test_states_that_are_not_finite_are_not_put_into_words(folder: Path, tokenizer: Any) -> None:
    engine = TraceEngine(build("llama"), tokenizer, lenses=[folder])
    with torch.no_grad():
        engine.model.model.layers[0].mlp.down_proj.weight[0, 0] = float("inf")
    trace = trace_of(engine, ask([0, 1]))
    assert trace.explanations == []
    assert trace.missing["explanations"] == NOT_FINITE


def test_a_pass_that_had_to_be_tried_again_leaves_no_state_behind(
    folder: Path, tokenizer: Any, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TraceEngine(build("llama"), tokenizer, lenses=[folder], store=store)
    undisturbed = trace_of(engine, ask([0, 1, 4], capture_hidden_states=[1]))
    plain, calls = SlotRecorder.start_sums, []

    def full_at_first(self: SlotRecorder, first: int, states_LBD: torch.Tensor) -> None:
        calls.append(first)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        plain(self, first, states_LBD)

    monkeypatch.setattr(SlotRecorder, "start_sums", full_at_first)
    again = trace_of(engine, ask([0, 1, 4], capture_hidden_states=[1]))
    assert len(calls) == 2
    assert [found.text for found in again.explanations] == [found.text for found in undisturbed.explanations]


def test_a_device_without_room_for_the_lens_costs_only_the_explanation(
    engine: TraceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: ConsistencyLens, states_PD: torch.Tensor) -> list[Guess]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ConsistencyLens, "explain", full)
    trace = trace_of(engine, ask())
    assert trace.explanations == []
    assert trace.missing["explanations"] == NO_ROOM
    assert trace.tokens


def test_requests_that_come_together_share_a_decode(folder: Path) -> None:
    lens = load_lens(folder)
    speaker, sizes = Speaker(lens), []
    began, go = threading.Event(), threading.Event()
    plain = lens.decoder.rollout

    def watched(states_PD: torch.Tensor, length: int) -> Any:
        sizes.append(len(states_PD))
        if len(sizes) == 1:
            began.set()
            assert go.wait(10)
        return plain(states_PD, length)

    object.__setattr__(lens.decoder, "rollout", watched)
    state_ND = torch.randn(9, 32, generator=torch.Generator().manual_seed(0))
    found: dict[int, list[Guess]] = {}

    def run(at: int) -> None:
        found[at] = speaker.explain(state_ND[at : at + 2])

    threads = [threading.Thread(target=run, args=(at,)) for at in (0, 2, 4, 6)]
    threads[0].start()
    assert began.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(speaker._waiting) < 3:
        threads[1].join(0.01)
    go.set()
    for thread in threads:
        thread.join()
    assert sizes == [2, 6]
    object.__setattr__(lens.decoder, "rollout", plain)
    expected = [guess.text for guess in lens.explain(state_ND[:8])]
    assert [guess.text for at in (0, 2, 4, 6) for guess in found[at]] == expected


def test_one_request_that_fails_does_not_sink_those_it_shared_a_decode_with(folder: Path) -> None:
    speaker = Speaker(load_lens(folder))
    good, bad = _Ask(torch.randn(2, 32)), _Ask(torch.randn(2, 31))
    speaker._answer([good, bad])
    assert isinstance(good.done, list)
    assert isinstance(bad.done, RuntimeError)
