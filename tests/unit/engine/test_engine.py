import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load

from tests.unit.engine.conftest import build
from tests.unit.engine.reference import read
from wonder.actions.contracts import ThinkRequest
from wonder.engine.engine import TraceEngine
from wonder.engine.request import EngineRequest, Request
from wonder.errors import (
    ArtifactCorrupt,
    ArtifactError,
    EngineFailed,
    ModelNotFound,
    ModelNotUsable,
    OutOfMemory,
    PromptTooLong,
    SettingNotSupported,
    WonderError,
)
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.schema import TRACE_LIMIT_BYTES, AgentMessage, ThoughtTrace
from wonder.trace.size import encoded_bytes, rounded
from wonder.trace.store import DirectoryStore

FULL = ThoughtCapture(
    capture_hidden_states=True,
    capture_attention=True,
    capture_expert_routing=True,
    compute_attention_entropy=True,
    compress_state=True,
    top_alternatives=5,
)


def ask(prompt: str = "hello", tokens: int = 6, **capture: Any) -> Request:
    return Request(prompt=prompt, sampling=Sampling(max_new_tokens=tokens), capture=ThoughtCapture(**capture))


def trace_of(message: AgentMessage | WonderError) -> ThoughtTrace:
    assert isinstance(message, AgentMessage), message
    assert message.thought_trace is not None
    return message.thought_trace


def test_an_answer_has_one_entry_per_token_and_per_layer(make_engine: Any) -> None:
    message = make_engine("llama").generate_one(ask(compute_attention_entropy=True, capture_attention=True))
    trace = trace_of(message)
    assert len(trace.tokens) == len(trace.token_confidences) == len(trace.logits_entropy) == len(trace.token_margins)
    assert [len(items) for items in trace.top_alternatives] == [3] * len(trace.tokens)
    assert len(trace.layer_norms) == len(trace.attention_entropy) == 4
    assert len(trace.representation_shifts) == 3
    assert trace.attention_entropy[:3] == [None, None, None]
    assert trace.missing["attention_entropy"] == "read in layers 3 only (attention_layers)"
    assert [pair.layer for pair in trace.key_attention_pairs] == [3] * 4
    assert message.text == "".join(piece for piece in trace.tokens if piece != "</s>").strip()


def test_the_most_likely_alternative_is_the_greedy_token(make_engine: Any) -> None:
    trace = trace_of(make_engine("llama").generate_one(ask()))
    for probability, margin, items in zip(
        trace.token_confidences, trace.token_margins, trace.top_alternatives, strict=True
    ):
        assert probability == pytest.approx(items[0].probability, rel=1e-3)
        assert margin == pytest.approx(items[0].probability - items[1].probability, abs=1e-3)


def test_changing_only_generated_tokens_changes_the_trace(make_engine: Any, store: Any) -> None:
    engine = make_engine("llama", store=store)
    states = {"capture_hidden_states": [0, 3]}
    greedy, sampled = (
        Request(
            prompt="hello", sampling=Sampling(max_new_tokens=8, temperature=t, seed=3), capture=ThoughtCapture(**states)
        )
        for t in (0.0, 2.0)
    )
    one, other = read(engine, [greedy, sampled])
    assert one.answer != other.answer
    assert one.trace.layer_norms != other.trace.layer_norms
    torch.testing.assert_close(one.tensors["hidden.mean_prompt"], other.tensors["hidden.mean_prompt"])
    assert not torch.equal(one.tensors["hidden.last_generated"], other.tensors["hidden.last_generated"])


def test_pooled_prompt_states_are_the_same_with_and_without_padding(make_engine: Any, store: Any) -> None:
    engine = make_engine("llama", store=store)
    short, long = ask("short", capture_hidden_states=True), ask("x" * 60)
    alone = read(engine, [short])[0].tensors
    padded = read(engine, [short, long])[0].tensors
    for name, states in alone.items():
        torch.testing.assert_close(states, padded[name], rtol=1e-4, atol=1e-4)


def test_a_bad_request_does_not_sink_its_neighbours(make_engine: Any) -> None:
    engine = make_engine("llama")
    bad = [
        ask("x" * 2000),
        ask(run_concept_probes=["legal_risk"]),
        ask(capture_hidden_states=True),
        ask(store_in="artifact"),
        ask(capture_hidden_states=[9]),
        ask(capture_attention=True, attention_layers=[4]),
    ]
    results = engine.generate([ask("a"), *bad, ask("b")])
    assert isinstance(results[0], AgentMessage)
    assert isinstance(results[-1], AgentMessage)
    said = [str(result) for result in results[1:-1]]
    assert all(isinstance(result, WonderError) for result in results[1:-1])
    assert isinstance(results[1], PromptTooLong)
    assert "the prompt has 2001 tokens and max_new_tokens is 6, together 2007; llama has room for 1024" in said[0]
    assert "no probe for 'legal_risk': it was loaded without any bundles" in said[1]
    assert "capture_hidden_states needs an artifact store" in said[2]
    assert "store_in='artifact' needs an artifact store" in said[3]
    assert "capture_hidden_states asks for layer 9, this model has layers 0..3" in said[4]
    assert "attention_layers asks for layer 4" in said[5]
    with pytest.raises(PromptTooLong):
        engine.generate_one(bad[0])


def test_no_requests_give_no_results(make_engine: Any) -> None:
    assert make_engine("llama").generate([]) == []


def test_results_come_in_the_order_of_the_requests_whatever_the_batches(make_engine: Any) -> None:
    engine = make_engine("llama", max_batch=2)
    prompts = ["a long prompt " * 3, "b", "medium prompt", "c", "dd"]
    together = engine.generate([ask(prompt) for prompt in prompts])
    for prompt, message in zip(prompts, together, strict=True):
        assert isinstance(message, AgentMessage)
        assert message.text == engine.generate_one(ask(prompt)).text
        assert trace_of(message).prompt_tokens == len(prompt) + 1
        assert trace_of(message).batch_size <= 2


def test_capture_off_leaves_tokens_and_timings(make_engine: Any) -> None:
    trace = trace_of(make_engine("llama").generate_one(ask(enabled=False)))
    assert trace.tokens
    assert trace.timings.total_s > 0
    assert (trace.overall_confidence, trace.confidence_status) == (None, "unknown")
    assert trace.confidence_reason == "capture is off (thought_capture.enabled=False)"
    assert trace.token_confidences == trace.layer_norms == []


def test_confidence_can_be_left_out(make_engine: Any) -> None:
    trace = trace_of(make_engine("llama").generate_one(ask(compute_confidence=False, top_alternatives=0)))
    assert trace.overall_confidence is None
    assert trace.confidence_reason == "not asked for (compute_confidence=False)"
    assert trace.top_alternatives == []
    assert trace.token_confidences


def test_weights_that_are_not_numbers_make_everything_unknown(make_engine: Any, store: Any) -> None:
    model = build("llama")
    model.model.layers[2].mlp.down_proj.weight.data[0, 0] = float("nan")
    engine = make_engine("llama", model=model, store=store)
    sampled = Request(prompt="b", sampling=Sampling(max_new_tokens=4, temperature=1.0), capture=FULL)
    for message in engine.generate(
        [Request(prompt="hello", sampling=Sampling(max_new_tokens=4), capture=FULL), sampled]
    ):
        trace = trace_of(message)
        assert trace.overall_confidence is None
        assert trace.confidence_status == "unknown"
        assert trace.confidence_reason
        assert trace.token_confidences == [None] * len(trace.tokens)
        assert trace.generation_probs in (None, [None] * len(trace.tokens))
        assert trace.layer_norms[2:] == [None, None]
        assert all(norm is not None for norm in trace.layer_norms[:2])
        assert trace.attention_entropy[3] is None
        for name in ("token_confidences", "logits_entropy", "layer_norms", "attention_entropy", "key_attention_pairs"):
            assert "finite" in trace.missing[name]


def test_an_attention_that_cannot_be_watched_is_missing_with_a_reason(make_engine: Any) -> None:
    engine = make_engine("falcon")
    trace = trace_of(engine.generate_one(ask(compute_attention_entropy=True, capture_attention=True)))
    assert trace.attention_entropy == []
    assert "does not call its attention through an interface" in trace.missing["attention_entropy"]
    assert trace.missing.keys() >= {"attention_entropy", "attention_sink_mass", "key_attention_pairs"}
    assert engine.info.unsupported["attention_entropy"] == trace.missing["attention_entropy"]
    assert trace.overall_confidence is not None


def test_asked_for_attention_is_there_or_explained(make_engine: Any) -> None:
    for family in ("llama", "gemma2", "gpt_oss", "falcon"):
        trace = trace_of(make_engine(family).generate_one(ask(compute_attention_entropy=True, attention_layers="all")))
        finite = bool(trace.attention_entropy) and all(value is not None for value in trace.attention_entropy)
        assert finite or trace.missing["attention_entropy"]


def test_experts_of_a_model_without_routers_are_missing_with_a_reason(make_engine: Any) -> None:
    trace = trace_of(make_engine("llama").generate_one(ask(capture_expert_routing=True)))
    assert trace.missing["expert_distribution"] == "this model has no routers"


def test_compression_without_a_bundle_is_missing_with_a_reason(make_engine: Any) -> None:
    trace = trace_of(make_engine("llama").generate_one(ask(compress_state=True)))
    assert trace.compressed_state is None
    assert trace.missing["compressed_state"] == "no compressor bundle for this model"


def test_generation_ends_at_the_end_token_and_at_stop_strings(make_engine: Any) -> None:
    engine = make_engine("llama")
    whole = trace_of(engine.generate_one(ask(tokens=30)))
    text = "".join(whole.tokens)
    stop = next(text[i : i + 2] for i in range(4, 20) if text.find(text[i : i + 2]) == i and text[i : i + 2].strip())
    message = engine.generate_one(Request(prompt="hello", sampling=Sampling(max_new_tokens=30, stop=["never", stop])))
    trace = trace_of(message)
    assert trace.finish_reason == "stop"
    assert message.text == text[: text.find(stop)].strip()
    assert len(trace.tokens) < len(whole.tokens)
    assert whole.finish_reason == ("length" if len(whole.tokens) == 30 else "stop")


def test_a_finished_row_keeps_its_own_numbers_while_its_neighbours_go_on(make_engine: Any) -> None:
    engine = make_engine("llama")
    alone = trace_of(engine.generate_one(ask(tokens=2)))
    together = trace_of(engine.generate([ask(tokens=2), ask("other", tokens=40)])[0])
    assert len(together.tokens) == 2
    assert alone.layer_norms == pytest.approx(together.layer_norms, rel=1e-4)
    assert together.timings.total_s > 0


def test_hidden_states_go_to_the_store_and_a_changed_artifact_is_refused(make_engine: Any, store: Any) -> None:
    trace = trace_of(make_engine("llama", store=store).generate_one(ask(capture_hidden_states=[1, 3])))
    (ref,) = trace.artifacts
    tensors = load(store.get(ref))
    assert tensors["hidden.layers"].tolist() == [1, 3]
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == {
        name: spec.shape for name, spec in ref.tensors.items()
    }
    assert tensors["hidden.last_prompt"].shape == (2, 32)
    path = store.root / ref.sha256[:2] / ref.sha256
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactCorrupt):
        store.get(ref)


def test_a_store_that_fails_sinks_only_the_request_that_needs_it(make_engine: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    engine = make_engine("llama", store=DirectoryStore(tmp_path / "file"))
    plain, stored = engine.generate([ask(), ask(capture_hidden_states=True)])
    assert isinstance(plain, AgentMessage)
    assert isinstance(stored, ArtifactError)
    assert "did not take the artifact" in str(stored)


def test_a_trace_kept_as_an_artifact_leaves_its_scalars(make_engine: Any, store: Any) -> None:
    engine = make_engine("llama", store=store)
    travelling, both, inline = (
        trace_of(engine.generate_one(ask(store_in=where))) for where in ("artifact", "both", "context")
    )
    (ref,) = travelling.artifacts
    whole = ThoughtTrace.model_validate_json(store.get(ref))
    assert ref.format == "json"
    assert whole.tokens == inline.tokens
    assert travelling.tokens == []
    assert travelling.overall_confidence == inline.overall_confidence
    assert travelling.missing["tokens"] == f"{len(whole.tokens)} entries are in the artifact, to keep the trace small"
    assert both.tokens == inline.tokens
    assert both.artifacts


def test_a_full_trace_of_512_tokens_fits_into_a_history(make_engine: Any, store: Any) -> None:
    model = build("qwen3_moe", eos_token_id=None)
    engine = make_engine("qwen3_moe", model=model, store=store)
    engine._runtime = engine._runtime.__class__(**{**vars(engine._runtime), "end_ids": frozenset()})
    request = Request(prompt="hello", sampling=Sampling(max_new_tokens=512), capture=FULL)
    trace = trace_of(engine.generate_one(request))
    assert encoded_bytes(trace) <= TRACE_LIMIT_BYTES
    assert "moved to the artifact" in trace.missing["top_alternatives"]
    tensors = load(store.get(trace.artifacts[-1]))
    assert "moved.top_alternatives.json" in tensors
    assert len(trace.token_confidences) == 512 or "moved.token_confidences" in tensors


def test_long_arrays_without_a_store_are_dropped_and_it_says_so(make_engine: Any) -> None:
    engine = make_engine("llama", model=build("llama"))
    engine._runtime = engine._runtime.__class__(**{**vars(engine._runtime), "end_ids": frozenset()})
    request = Request(
        prompt="hello", sampling=Sampling(max_new_tokens=900), capture=ThoughtCapture(top_alternatives=10)
    )
    trace = trace_of(engine.generate_one(request))
    assert encoded_bytes(trace) <= TRACE_LIMIT_BYTES
    assert "dropped, because there is no artifact store" in trace.missing["top_alternatives"]


def test_a_batch_that_has_no_room_is_split_and_one_request_that_has_none_says_so(make_engine: Any) -> None:
    engine = make_engine("llama")

    def small_device(_module: Any, _args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].shape[0] > 2 or kwargs["position_ids"].max() > 100:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = engine.model.register_forward_pre_hook(small_device, with_kwargs=True)
    results = engine.generate([ask(f"prompt {i}") for i in range(7)] + [ask("x" * 150)])
    handle.remove()
    assert all(isinstance(result, AgentMessage) for result in results[:7])
    assert max(trace_of(result).batch_size for result in results[:7]) == 2
    assert isinstance(results[7], OutOfMemory)
    assert "151 tokens" in str(results[7])
    assert OutOfMemory.retryable


def test_another_failure_is_not_taken_for_a_full_device(make_engine: Any) -> None:
    engine = make_engine("llama")

    def broken(_module: Any, _args: Any) -> None:
        raise RuntimeError("shape mismatch")

    handle = engine.model.model.register_forward_pre_hook(broken)
    (failed,) = engine.generate([ask()])
    assert isinstance(failed, EngineFailed)
    assert "RuntimeError: shape mismatch" in str(failed)
    handle.remove()
    assert isinstance(engine.generate([ask()])[0], AgentMessage)


def test_a_caller_may_give_up_between_tokens(make_engine: Any) -> None:
    engine = make_engine("llama")
    seen = []

    class Cancelled(Exception):
        pass

    def stop(count: int) -> None:
        seen.append(count)
        if count == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.generate([ask(tokens=20, compute_attention_entropy=True)], on_step=stop)
    assert seen == [1, 2, 3]
    assert trace_of(engine.generate_one(ask(compute_attention_entropy=True))).attention_entropy[3] is not None


def test_calls_from_several_threads_do_not_mix(make_engine: Any) -> None:
    engine = make_engine("llama")
    prompts = [f"prompt {i}" * (i + 1) for i in range(6)]
    want = [engine.generate_one(ask(prompt)).text for prompt in prompts]
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: engine.generate_one(ask(prompts[i])).text}))
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(6)] == want


def test_two_engines_live_side_by_side(make_engine: Any) -> None:
    one, other = make_engine("llama", seed=1), make_engine("gemma2", seed=2)
    first = trace_of(one.generate_one(ask(compute_attention_entropy=True)))
    trace_of(other.generate_one(ask(compute_attention_entropy=True)))
    again = trace_of(one.generate_one(ask(compute_attention_entropy=True)))
    assert first.attention_entropy == again.attention_entropy


def test_a_request_from_a_workflow_is_a_request(make_engine: Any) -> None:
    request: EngineRequest = ThinkRequest(
        action="classify", model="llama", prompt="hello", sampling=Sampling(max_new_tokens=3), answer_format="json"
    )
    trace = trace_of(make_engine("llama").generate_one(request))
    assert trace.action == "classify"
    assert trace.overall_confidence is None
    assert trace.confidence_reason == "no JSON document was found in the answer (generation was cut off at 3 tokens)"


def test_a_prompt_without_tokens_is_refused(make_model: Any, tokenizer: Any) -> None:
    bare = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>")
    bare.backend_tokenizer.post_processor = None
    engine = TraceEngine(make_model("llama"), bare)
    with pytest.raises(SettingNotSupported, match="no tokens"):
        engine.generate_one(ask(""))


def test_a_first_token_that_the_prompt_already_has_is_not_doubled(make_engine: Any) -> None:
    engine = make_engine("llama")
    assert trace_of(engine.generate_one(ask("<s>hello"))).prompt_tokens == 6
    assert engine.generate_one(ask("<s>hello")).text == engine.generate_one(ask("hello")).text


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_saved_model_loads_and_says_what_it_is(family: str, tmp_path: Path, make_model: Any, tokenizer: Any) -> None:
    model = make_model(family)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = TraceEngine.load(tmp_path, device="cpu", store=DirectoryStore(tmp_path / "store"))
    info = engine.info
    assert (info.n_layers, info.d_model, info.vocabulary, info.context_length) == (4, 32, 320, 1024)
    assert info.model == str(tmp_path)
    assert info.dtype == "float32"
    assert info.concepts == []
    assert trace_of(engine.generate_one(ask())).model_fingerprint == info.fingerprint
    half = TraceEngine.load(tmp_path, device="cpu", dtype="bfloat16")
    assert trace_of(half.generate_one(ask())).dtype == "bfloat16"


def test_what_cannot_be_loaded_is_explained(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(ModelNotFound, match="there is no folder /no/such/folder"):
        TraceEngine.load("/no/such/folder")
    with pytest.raises(ModelNotFound, match=r"has no config\.json"):
        TraceEngine.load(tmp_path)
    with pytest.raises(ModelNotFound, match=r"neither embedded \(support-desk\) nor a folder"):
        TraceEngine.load("suport-desk")
    with pytest.raises(SettingNotSupported, match="dtype 'float17'"):
        TraceEngine.load(dtype="float17")
    hf.T5Config(vocab_size=320, d_model=16, num_layers=1, d_kv=8, d_ff=16, num_heads=2).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelNotUsable, match="not a causal language model"):
        TraceEngine.load(tmp_path)


def test_broken_weights_are_explained(tmp_path: Path, make_model: Any, tokenizer: Any) -> None:
    make_model("llama").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelNotUsable, match="was found but cannot be loaded"):
        TraceEngine.load(tmp_path)


def test_weights_that_the_config_asks_for_and_the_folder_lacks_are_an_error(
    tmp_path: Path, make_model: Any, tokenizer: Any
) -> None:
    make_model("llama", num_hidden_layers=3).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 3', '"num_hidden_layers": 4'))
    with pytest.raises(ModelNotUsable, match="lacks 9 weights"):
        TraceEngine.load(tmp_path)


def test_closing_takes_the_hooks_off(make_engine: Any) -> None:
    engine = make_engine("llama")
    engine.close()
    assert not engine.model.model.layers[0]._forward_hooks


@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_binning_leaves_every_number_that_decides_as_it_is(family: str, make_engine: Any, store: Any) -> None:
    engine = make_engine(family, store=store)
    full = FULL.model_copy(update={"capture_hidden_states": False, "boosted_probability": True})
    asked = [
        Request(prompt="hello", sampling=Sampling(max_new_tokens=40), capture=capture)
        for capture in (full, full.model_copy(update={"detail": "binned", "store_in": "both", "time_bins": 7}))
    ]
    whole, small = (trace_of(message) for message in engine.generate(asked))
    for name in ("overall_confidence", "field_confidences", "signals", "layer_norms", "representation_shifts"):
        assert getattr(whole, name) == getattr(small, name), name
    assert small.tokens == []
    assert small.time_bins is not None
    assert small.least_certain[0].confidence == pytest.approx(min(whole.token_confidences), rel=1e-3)
    (ref,) = small.artifacts
    kept = ThoughtTrace.model_validate_json(store.get(ref))
    assert rounded(kept).token_confidences == whole.token_confidences
    table = small.time_bins.table("layer_norms")
    for layer, mean in enumerate(whole.layer_norms):
        spans = [len(small.time_bins.span(index)) for index in range(small.time_bins.bins)]
        weighted = sum(n * x for n, x in zip(spans, table[str(layer)], strict=True)) / sum(spans)
        assert weighted == pytest.approx(mean, rel=5e-3)
    assert set(small.time_bins.table("attention_entropy")) == {"3"}
    assert small.time_bins.table("expert_distribution").keys() == whole.expert_distribution.keys()
