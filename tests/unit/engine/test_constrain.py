"""A constrained answer is a value of its type, and nothing else about the run is different."""

import json
import re
import sys
from enum import IntEnum
from typing import Annotated, Any, Literal

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from tokenizers import Tokenizer, decoders, models, normalizers

from tests.unit.engine.conftest import VOCABULARY, build
from tests.unit.engine.reference import eager_twin, read, reference
from wonder import ActionDef
from wonder.actions.act import _document
from wonder.embedded import EMBEDDED, SUPPORT_DESK
from wonder.embedded.world import prompt, tickets
from wonder.engine.constrain import Constrainer, Constraint, masked
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.engine.sampling import Drawer
from wonder.errors import ExtraMissing, SettingNotSupported
from wonder.trace.sampling import Sampling

Word = Annotated[str, Field(max_length=8)]


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Person(BaseModel):
    name: Word
    code: Annotated[str, Field(pattern=r"^[A-Z]{2}-\d{3}$")]


class Case(BaseModel):
    team: Literal["billing", "sales", "näh 😀"]
    level: Level
    score: float = Field(ge=0, le=1)
    people: list[Person] = Field(max_length=2)
    pair: tuple[int, bool] | None = None


TYPES: list[Any] = [
    Case,
    Person,
    Literal["billing", "sales"],
    Literal[1, 2, True, "no"],
    Level,
    bool,
    Annotated[int, Field(ge=-5, le=500)],
    Annotated[float, Field(ge=0, le=1)],
    Annotated[str, Field(max_length=12)],
    Annotated[str, Field(pattern="^[a-z]{3}/[0-9]$")],
    Annotated[list[Word], Field(max_length=3)],
    Word | None,
]


def ask(schema: Any, answer_format: Any = "json", *, seed: int | None = None, **rest: Any) -> Request:
    sampling = Sampling(max_new_tokens=900, temperature=0 if seed is None else 1.5, seed=seed)
    return Request(prompt="Ticket: hello", sampling=sampling, answer_format=answer_format, answer_schema=schema, **rest)


def request_of(action: ActionDef[Any], **rest: Any) -> Request:
    return ask(action.output_schema, "json" if action.writes_json else "text", **rest)


def parsed(action: ActionDef[Any], message: Any) -> Any:
    assert message.thought_trace.finish_reason == "stop", message.text
    return action.parse(_document(message.text, json=action.writes_json))


@pytest.fixture(scope="module")
def untrained() -> TraceEngine:
    """A random model that speaks the embedded model's tokens."""
    words = hf.PreTrainedTokenizerFast.from_pretrained(EMBEDDED[SUPPORT_DESK])
    return TraceEngine(build("llama", vocab_size=len(words)), words, max_batch=64)


@pytest.mark.parametrize("output", TYPES, ids=lambda kind: getattr(kind, "__name__", str(kind))[:40])
def test_an_untrained_model_writes_a_value_of_the_type(output: Any, untrained: TraceEngine) -> None:
    action: ActionDef[Any] = ActionDef(name="a", prompt="x", output=output, constrained=True)
    seeds = [None, *range(5)]
    for message in untrained.generate([request_of(action, seed=seed) for seed in seeds]):
        parsed(action, message)


leaves = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.tuples(st.integers(-50, 50), st.integers(0, 1000)).map(
        lambda at: {"type": "integer", "minimum": at[0], "maximum": at[0] + at[1]}
    ),
    st.integers(0, 6).map(lambda most: {"type": "string", "maxLength": most}),
    st.lists(st.one_of(st.text(max_size=6), st.integers(-(2**53), 2**53), st.none()), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(inner, st.integers(0, 3)).map(lambda part: {"type": "array", "items": part[0], "maxItems": part[1]}),
        st.dictionaries(st.text(max_size=4), inner, max_size=3).map(
            lambda parts: {"type": "object", "properties": parts, "required": list(parts)[:2]}
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
    ),
    max_leaves=5,
)


def conforms(value: Any, schema: dict[str, Any]) -> bool:
    """A reading of the few keywords above that shares nothing with the grammar."""
    if "anyOf" in schema:
        return any(conforms(value, part) for part in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    match schema["type"]:
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case "string":
            return isinstance(value, str) and len(value) <= schema["maxLength"]
        case "array":
            if not isinstance(value, list) or len(value) > schema["maxItems"]:
                return False
            return all(conforms(item, schema["items"]) for item in value)
        case _:
            parts = schema["properties"]
            if not isinstance(value, dict) or not set(schema["required"]) <= set(value) <= set(parts):
                return False
            return all(conforms(item, parts[name]) for name, item in value.items())


@given(schemas, st.integers(0, 2**32))
@settings(max_examples=30)
def test_any_schema_is_kept_under_any_draw(untrained: TraceEngine, schema: dict[str, Any], seed: int) -> None:
    message = untrained.generate_one(ask(schema, seed=seed))
    assert conforms(json.loads(message.text), schema), message.text


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**53 - 1])
def test_an_integer_is_written_to_its_last_digit(number: int, untrained: TraceEngine) -> None:
    for schema in ({"enum": [number]}, {"const": [number]}, {"type": "integer", "minimum": number, "maximum": number}):
        assert json.loads(untrained.generate_one(ask(schema)).text) in (number, [number])


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": ["a", 2**53 + 1]},
        {"const": {"a": [9007199254741505]}},
        {"type": "integer", "minimum": 2**53 + 1},
        {"type": "array", "items": {"type": "number", "exclusiveMaximum": -1e300}},
        {"enum": [-(2**63)]},  # the library would take the whole process down
        {"$ref": "#/default", "default": {"enum": [-(2**63) + 1]}},
    ],
)
def test_numbers_that_would_lose_their_last_digits_are_refused(schema: dict[str, Any], untrained: TraceEngine) -> None:
    with pytest.raises(SettingNotSupported, match=r"cannot be held to exactly .* names a number beyond ±2⁵³"):
        untrained.submit(ask(schema))


def test_a_plain_text_is_one_of_several_large_numbers_to_the_last_digit(untrained: TraceEngine) -> None:
    action: ActionDef[Any] = ActionDef(name="a", prompt="x", output=Literal[9007199254741505, 7], constrained=True)
    found = {parsed(action, untrained.generate_one(request_of(action, seed=seed))) for seed in range(12)}
    assert found == {9007199254741505, 7}


def test_clear_tickets_are_answered_as_without_a_constraint() -> None:
    class Answer(BaseModel):
        team: str
        urgency: Literal["low", "normal", "high"]

    engine = TraceEngine.load(device="cpu")
    clear = [prompt(ticket.text) for ticket in tickets(60, seed=5, split="held_out") if ticket.kind == "clear"]
    sampling = Sampling(max_new_tokens=24)
    free = [Request(prompt=text, sampling=sampling, answer_format="json") for text in clear]
    schema = Answer.model_json_schema()
    held = [Request(prompt=text, sampling=sampling, answer_format="json", answer_schema=schema) for text in clear]
    without, within = engine.generate(free), engine.generate(held)
    assert len(clear) > 20
    assert [message.text for message in within] == [message.text for message in without]  # type: ignore[union-attr]


def test_a_row_beside_a_constrained_one_is_the_same_to_the_bit(make_engine: Any) -> None:
    engine = make_engine("llama")
    free = Request(prompt="another one", sampling=Sampling(max_new_tokens=12, temperature=1.0, seed=3))
    beside_held, held = engine.generate([free, ask({"enum": ["a", "b"]}, "text")])
    # As long as the constrained answer: the same rows share the same passes.
    sampling = Sampling(max_new_tokens=len(held.thought_trace.tokens))
    beside_free = engine.generate([free, Request(prompt="Ticket: hello", sampling=sampling)])[0]
    same = {"timings": beside_free.thought_trace.timings}
    assert beside_held.thought_trace.model_copy(update=same) == beside_free.thought_trace
    assert beside_held.text == beside_free.text


def test_only_a_copy_of_the_constrained_rows_is_masked(tokenizer: Any) -> None:
    constrainer = Constrainer(tokenizer, frozenset({2}), VOCABULARY)
    logits = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    held = constrainer.start(ask({"enum": ["yes"]}, "text"))
    assert held is not None
    drawn_from = masked(logits, [None, held, None])
    assert torch.equal(logits, before)
    assert torch.equal(drawn_from[[0, 2]], before[[0, 2]])
    allowed = held.allowed()
    assert torch.equal(drawn_from[1][allowed], before[1][allowed])
    assert torch.isneginf(drawn_from[1][~allowed]).all()
    assert masked(logits, [None] * 3) is logits


def test_the_trace_keeps_the_raw_probabilities_of_forced_tokens(make_model: Any, make_engine: Any) -> None:
    model = make_model("llama")
    twin, engine = eager_twin(model), make_engine("llama", model=model)
    row = read(engine, [ask({"enum": ["billing"]}, "text", seed=1)])[0]
    message = engine.generate_one(ask({"enum": ["billing"]}, "text", seed=1))
    trace = message.thought_trace
    answer = engine.tokenizer.encode("".join(trace.tokens), add_special_tokens=False)
    want = reference(twin, row.prompt, answer)
    assert message.text == "billing"
    assert trace.token_confidences == pytest.approx(want.chosen, rel=1e-3, abs=1e-9)
    assert trace.logits_entropy == pytest.approx(want.entropy, rel=1e-3)
    assert min(trace.token_confidences) < 0.01
    assert trace.overall_confidence < 0.01
    assert max(trace.generation_probs) == 1.0


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_do_not_break_out(broken: float, temperature: float, tokenizer: Any) -> None:
    held = Constrainer(tokenizer, frozenset({2}), VOCABULARY).start(ask({"enum": ["yes", "no"]}, "text"))
    assert held is not None
    logits = torch.full((1, VOCABULARY), broken)
    token, _ = Drawer([Sampling(temperature=temperature, seed=1)]).draw(masked(logits, [held]))
    assert held.allowed()[token]


def byte_fallback_tokenizer() -> Any:
    """Pieces with a meta space, and bytes for all that is no piece, as in Llama 2 and Gemma."""
    pieces = ["<pad>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdeinoty{}", "▁a", "no"]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[("n", "o"), ("▁", "a")], byte_fallback=True))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return hf.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def test_tokenizers_that_fall_back_to_bytes_are_held_as_well() -> None:
    engine = TraceEngine(build("llama"), byte_fallback_tokenizer())
    action: ActionDef[Any] = ActionDef(name="a", prompt="x", output=Case)
    for message in engine.generate([request_of(action, seed=seed) for seed in range(4)]):
        parsed(action, message)


def test_a_model_may_spell_its_json_as_it_likes(untrained: TraceEngine) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "null"}}, "required": ["a"]}

    def accepts(text: str) -> bool:
        held = constraint_of(untrained, schema)
        for token in [*untrained.tokenizer.encode(text, add_special_tokens=False), untrained.tokenizer.eos_token_id]:
            if not held.allowed()[token]:
                return False
            held.accept(token)
        return held.failure is None

    for text in ('{"a":1}', ' {"a": 1, "b": null}', '\n{\n  "a": 1,\n  "b": null\n}', '{ "a" : 1 }'):
        assert accepts(text)
    for text in ('{"a":1', '{"a":1,"c":2}', '{"b":null}', "{'a':1}", "Sure: {}", '{"a":' + " " * 100 + "1}"):
        assert not accepts(text)


def constraint_of(engine: TraceEngine, schema: Any) -> Constraint:
    ends = frozenset({engine.tokenizer.eos_token_id})
    held = Constrainer(engine.tokenizer, ends, engine.info.vocabulary).start(ask(schema))
    assert held is not None
    return held


@pytest.mark.parametrize(
    ("schema", "answer_format", "reason"),
    [
        ({"type": "banana"}, "json", "Invalid type: banana"),
        ({"not": {"type": "string"}}, "json", 'Unimplemented keys: ["not"]'),
        ({"type": "array", "uniqueItems": True}, "json", "uniqueItems"),
        ({"type": "string", "pattern": "^(?=a)b$"}, "json", "look-around"),
        ({"$ref": "#/nowhere"}, "json", "does not exist"),
        ({"enum": []}, "json", "Unsatisfiable"),
        ({"type": "string", "format": "date"}, "text", "a plain text of format 'date'"),
        ({"type": "string", "pattern": 5}, "text", "the pattern 5"),
        ({"type": "string", "pattern": "a\\"}, "text", "regex parse error"),
        ({"type": "string", "minLength": "x"}, "text", "minLength 'x'"),
        ({"type": "string", "maxLength": -1}, "text", "maxLength -1"),
        ({"$defs": [], "$ref": "#/$defs/A"}, "text", "answer_schema cannot constrain"),
        ({"enum": ["\ud800"]}, "text", "answer_schema cannot constrain"),
        ({"enum": [[1]]}, "text", "holds arrays or objects"),
        ({"const": float("nan")}, "json", "is not JSON"),
        ({"const": object()}, "json", "is not JSON"),
        ([1], "json", "wanted a JSON schema"),
    ],
)
def test_a_schema_that_cannot_be_held_to_is_refused_before_generating(
    schema: Any, answer_format: str, reason: str, make_engine: Any
) -> None:
    engine = make_engine("llama")
    neighbour, refused = engine.generate([ask({"type": "boolean"}), ask(schema, answer_format)])
    assert isinstance(refused, SettingNotSupported)
    assert re.search(re.escape(reason), str(refused))
    assert "\n" not in str(refused)
    assert neighbour.text in ("true", "false")


def test_a_schema_nested_without_end_is_refused(make_engine: Any) -> None:
    schema: dict[str, Any] = {}
    for _ in range(80):
        schema = {"type": "array", "items": schema}
    with pytest.raises(SettingNotSupported, match="nested more than 64 deep"):
        make_engine("llama").generate_one(ask(schema))


def test_a_model_without_an_end_token_is_refused(tokenizer: Any) -> None:
    with pytest.raises(SettingNotSupported, match="names none"):
        Constrainer(tokenizer, frozenset(), VOCABULARY).start(ask({"type": "boolean"}))


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(SettingNotSupported, match="a fast tokenizer"):
        Constrainer(object(), frozenset({2}), VOCABULARY).start(ask({"type": "boolean"}))


def test_without_the_library_the_extra_is_named(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    constrainer = Constrainer(tokenizer, frozenset({2}), VOCABULARY)
    assert constrainer.start(ask(None)) is None
    with pytest.raises(ExtraMissing, match=r"wonder-temporal\[constrained\]"):
        constrainer.start(ask({"type": "boolean"}))


def test_an_answer_that_leaves_its_grammar_ends_and_says_so(tokenizer: Any) -> None:
    held = Constrainer(tokenizer, frozenset({2}), VOCABULARY).start(ask({"type": "boolean"}))
    assert held is not None
    held.accept(100)
    assert held.allowed().nonzero().flatten().tolist() == [2]
    with pytest.raises(SettingNotSupported, match="could not be held to its schema"):
        held.check()


def test_a_request_without_the_field_asks_for_no_constraint(make_engine: Any) -> None:
    class Older:
        prompt, action, answer_format = "x", "a", "text"
        sampling = Sampling(max_new_tokens=2)
        capture = Request(prompt="x").capture

    assert make_engine("llama").generate_one(Older()).text is not None
