"""The shipped model: it loads, it is small, it answers in the right form, and its probe belongs to it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from lens_training.support_desk.answers import read_answers
from lens_training.support_desk.measure import measure
from lens_training.support_desk.probe import CONCEPT
from lens_training.support_desk.states import prompt_states
from lens_training.support_desk.wordings import measure_wordings
from wonder.embedded import SUPPORT_DESK, embedded_path, embedded_probes
from wonder.embedded.world import TEAMS, Triage, prompt, tickets
from wonder.probes.bundle import ProbeBundle, find_bundle, load_bundle
from wonder.probes.fingerprint import model_fingerprint
from wonder.probes.metrics import auroc

FRESH = tickets(400, seed=77, split="held_out")


@pytest.fixture(scope="module")
def folder() -> Path:
    """The folder of the shipped model."""
    found = embedded_path(SUPPORT_DESK)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def model(folder: Path) -> LlamaForCausalLM:
    """The shipped weights, loaded as anybody would."""
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The shipped tokenizer."""
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def probe() -> ProbeBundle:
    """The shipped `legal_risk` probe."""
    probes = embedded_probes(SUPPORT_DESK)
    assert probes is not None
    return load_bundle(find_bundle(probes, CONCEPT))


def test_only_known_names_are_embedded() -> None:
    assert embedded_path("llama") is None
    assert embedded_probes("llama") is None


def test_the_shipped_files_stay_under_8_megabytes(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 8e6


def test_nothing_shipped_could_be_a_pickle(folder: Path) -> None:
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".md"}


def test_the_model_loads_as_float32(model: LlamaForCausalLM) -> None:
    assert model.dtype == torch.float32


@pytest.mark.parametrize(
    "text",
    ["Hello, world!", "naïve café – 你好 😀", " \t two  spaces\n", "12 345.67 €", 'a "quoted" {word} ... , !', "\x00"],
)
def test_the_tokenizer_gives_any_text_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] != tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_a_clear_ticket_is_answered_with_its_triage(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    inputs = tokenizer(prompt("Hi, I was charged £20 twice for order 12345. This is urgent."), return_tensors="pt")
    output = model.generate(
        inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=24, do_sample=False
    )
    new = output[0, inputs["input_ids"].shape[1] :]
    assert new[-1] == tokenizer.eos_token_id
    answer = Triage.model_validate_json(tokenizer.decode(new, skip_special_tokens=True))
    assert answer == Triage(team="billing", urgency="high")


def test_clear_tickets_are_almost_always_right(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    clear = tickets(200, seed=5, split="held_out", mix={"clear": 1.0})
    answers = read_answers(model, tokenizer, [ticket.text for ticket in clear])
    assert answers.correct(clear).float().mean() >= 0.95
    assert answers.confidence().median() > 0.95


def test_what_nobody_can_know_is_not_answered_with_confidence(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    unknowable = tickets(100, seed=5, split="held_out", mix={"unseen": 1.0, "off_topic": 1.0})
    answers = read_answers(model, tokenizer, [ticket.text for ticket in unknowable])
    assert answers.confidence().quantile(0.8) < 0.7


@pytest.mark.parametrize(
    ("text", "team"),
    [
        ("I forgot my password and can't get in.", "accounts"),
        ("Where is my parcel?", "shipping"),
        ("I was charged twice for my invoice.", "billing"),
        ("My kettle does not turn on any more.", "technical"),
        ("How much would 20 licences cost?", "sales"),
        ("I want to send it back, it is too small.", "returns"),
    ],
)
def test_what_anybody_would_type_goes_to_the_right_team(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, text: str, team: str
) -> None:
    answers = read_answers(model, tokenizer, [text])
    assert TEAMS[int(answers.team_NC.argmax())] == team
    assert answers.confidence() > 0.7


def test_a_persons_own_words_are_mostly_understood_and_otherwise_doubted(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, probe: ProbeBundle
) -> None:
    figures = measure_wordings(model, tokenizer, probe, seed=7, new_tickets=120, reworded_tickets=80)
    assert figures.own_words.accuracy >= 0.7
    assert figures.own_words.error_when_sure <= 0.2
    assert figures.new_wordings.auroc > 0.7
    assert figures.strange_sure <= 0.3
    assert figures.own_legal_auroc > 0.9


@pytest.mark.parametrize("text", ["Qorvex brumbles the zint.", "Something is wrong with Faxenid again."])
def test_made_up_words_are_answered_with_doubt(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    assert read_answers(model, tokenizer, [text]).confidence() < 0.7


def test_a_threat_is_read_as_legal_risk_and_a_complaint_is_not(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, probe: ProbeBundle
) -> None:
    texts = [
        "My lawyer will sue you over the burns from your heater.",
        "I was charged twice for my invoice.",
        "Qorvex brumbles the zint.",
        "Something is wrong with Faxenid again.",
    ]
    states_ND = prompt_states(model, tokenizer, texts)[probe.manifest.hook_point]
    grave, *others = probe.probability(states_ND @ probe.weight_D + probe.bias).tolist()
    assert grave > 0.8
    assert max(others) < 0.5


def test_low_confidence_catches_most_errors(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    figures = measure(model, tokenizer, FRESH)
    assert figures.errors_caught >= 0.8
    assert figures.reviewed <= 0.35
    assert figures.auroc > 0.9


def test_the_shipped_probe_fits_the_shipped_model_and_works(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, probe: ProbeBundle
) -> None:
    probe.check_fits(model_fingerprint(model), model.config.hidden_size)
    states_ND = prompt_states(model, tokenizer, [ticket.text for ticket in FRESH])[probe.manifest.hook_point]
    probability_N = probe.probability(states_ND @ probe.weight_D + probe.bias)
    risky_N = torch.tensor([ticket.legal_risk for ticket in FRESH])
    decoy_N = torch.tensor([ticket.decoy for ticket in FRESH])
    assert auroc(probability_N, risky_N) > 0.97
    assert (probability_N[decoy_N] > 0.8).float().mean() < 0.1
    assert abs(probe.manifest.shuffled_label_auroc - 0.5) < 0.1
