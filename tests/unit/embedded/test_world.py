"""The support-desk world: its posterior is true, its splits are apart, and legal risk matters."""

import json
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lens_training.support_desk.free_text import OWN_HARMLESS, OWN_LEGAL, OWN_WORDS
from wonder.embedded.foreign import FREE_ADJECTIVES, FREE_NOUNS, FREE_VERBS, unknown_wording
from wonder.embedded.grammar import SYNONYMS, expand, words_of
from wonder.embedded.legal import DECOY_WORDINGS, LEGAL_WORDINGS, NEW_DECOYS, NEW_LEGAL
from wonder.embedded.offtopic import HELD_OUT_TOPICS, TRAIN_TOPICS
from wonder.embedded.phrases import DECOYS, ISSUES, LEGAL
from wonder.embedded.splits import split_of
from wonder.embedded.wordings import NEW_WORDINGS, WORDINGS
from wonder.embedded.world import (
    DEFAULT_MIX,
    EXAMPLE_SEED,
    KINDS,
    MAX_WORDS,
    TEAMS,
    Triage,
    answer,
    bayes_accuracy,
    new_wordings,
    prompt,
    record,
    reworded,
    tickets,
)

TRAIN = tickets(6000, seed=3, split="train")
HELD_OUT = tickets(3000, seed=3, split="held_out")
KNOWN = [text for team in (WORDINGS, ISSUES) for texts in team.values() for text in texts]


def test_every_posterior_sums_to_one() -> None:
    for ticket in TRAIN:
        assert list(ticket.posterior) == list(TEAMS)
        assert sum(ticket.posterior.values()) == pytest.approx(1)


def test_the_same_seed_gives_the_same_tickets() -> None:
    assert tickets(50, seed=8, split="train") == tickets(50, seed=8, split="train")
    assert tickets(50, seed=8, split="train") == tickets(80, seed=8, split="train")[:50]
    assert tickets(50, seed=8, split="train") != tickets(50, seed=9, split="train")


def test_no_text_is_in_both_splits() -> None:
    assert {split_of(ticket.text) for ticket in TRAIN} == {"train"}
    assert {split_of(ticket.text) for ticket in HELD_OUT} == {"held_out"}
    assert not {ticket.text for ticket in TRAIN} & {ticket.text for ticket in HELD_OUT}


def test_no_off_topic_sentence_is_in_both_splits() -> None:
    assert not set(TRAIN_TOPICS) & set(HELD_OUT_TOPICS)
    train = {sentence for topic in TRAIN_TOPICS.values() for sentence in topic}
    assert not train & {sentence for topic in HELD_OUT_TOPICS.values() for sentence in topic}


def test_labels_are_drawn_from_the_posterior() -> None:
    drawn = tickets(12_000, seed=5, split="train", mix={"ambiguous": 1.0})
    for share in (0.85, 0.75, 0.6, 0.5, 1 / 3):
        part = [ticket for ticket in drawn if max(ticket.posterior.values()) == pytest.approx(share)]
        hits = sum(ticket.team == max(ticket.posterior, key=ticket.posterior.__getitem__) for ticket in part)
        assert len(part) > 500
        assert hits / len(part) == pytest.approx(share, abs=4 * (share * (1 - share) / len(part)) ** 0.5)


def test_the_team_of_an_unseen_product_or_of_no_ticket_is_anybodys_guess() -> None:
    for ticket in TRAIN:
        if ticket.kind in ("unseen", "off_topic"):
            assert set(ticket.posterior.values()) == {1 / len(TEAMS)}
    teams = Counter(ticket.team for ticket in tickets(3000, seed=6, split="train", mix={"unseen": 1.0}))
    assert all(400 < teams[team] < 600 for team in TEAMS)


def test_kinds_come_in_the_asked_for_shares() -> None:
    counts = Counter(ticket.kind for ticket in TRAIN)
    for kind in KINDS:
        assert counts[kind] / len(TRAIN) == pytest.approx(DEFAULT_MIX[kind], abs=0.025)


def test_legal_risk_makes_a_ticket_urgent_and_is_not_the_only_thing_that_does() -> None:
    legal = [ticket for ticket in TRAIN if ticket.legal_risk]
    assert {ticket.kind for ticket in legal} == {"legal"}
    assert {ticket.urgency for ticket in legal} == {"high"}
    other = [ticket.urgency for ticket in TRAIN if not ticket.legal_risk]
    assert other.count("high") > len(legal)
    assert other.count("high") < len(other) / 3


def test_decoys_sound_legal_and_carry_no_risk() -> None:
    decoys = [ticket for ticket in HELD_OUT if ticket.decoy]
    assert len(decoys) > 150
    assert not any(ticket.legal_risk for ticket in decoys)
    words = ("law", "court", "legal", "solicitor", "attorney", "terms", "police", "hospital", "injur", "fire", "judge")
    assert sum(any(word in ticket.text.lower() for word in words) for ticket in decoys) > len(decoys) / 2


def test_every_ticket_is_short_and_has_no_open_slot() -> None:
    for ticket in TRAIN:
        assert 0 < len(ticket.text.split()) <= MAX_WORDS
        assert "{" not in ticket.text or ticket.kind == "off_topic"


def test_the_answer_is_the_exact_json_that_triage_reads() -> None:
    ticket = TRAIN[0]
    assert answer(ticket) == f' {{"team": "{ticket.team}", "urgency": "{ticket.urgency}"}}'
    assert Triage.model_validate_json(answer(ticket)) == Triage(team=ticket.team, urgency=ticket.urgency)
    assert prompt("Hello.") == "Ticket: Hello.\nTriage:"


def test_nobody_can_expect_more_than_the_bayes_accuracy() -> None:
    assert bayes_accuracy([ticket for ticket in TRAIN if ticket.kind == "clear"]) == 1
    assert bayes_accuracy([ticket for ticket in TRAIN if ticket.kind == "unseen"]) == pytest.approx(1 / len(TEAMS))


def test_the_module_prints_tickets_as_json_lines() -> None:
    command = [sys.executable, "-m", "wonder.embedded.world", "--n", "3", "--seed", "7"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    keys = {"id", "text", "kind", "team", "urgency", "legal_risk", "posterior"}
    assert [set(json.loads(line)) for line in lines] == [keys] * 3


def test_the_tickets_of_the_example_are_held_out_and_of_every_kind() -> None:
    path = Path(__file__).parents[3] / "examples" / "ticket_triage" / "tickets.jsonl"
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert found == [record(ticket) for ticket in tickets(60, seed=EXAMPLE_SEED, split="held_out")]
    assert {ticket["kind"] for ticket in found} == set(KINDS)
    assert 4 <= sum(ticket["legal_risk"] for ticket in found) <= 6


def test_reworded_tickets_share_no_legal_sentence_with_any_split() -> None:
    new = reworded(40, seed=1)
    assert sum(ticket.legal_risk for ticket in new) == 20
    assert sum(ticket.decoy for ticket in new) == 20
    assert not set(NEW_LEGAL) & {*LEGAL, *LEGAL_WORDINGS}
    assert not set(NEW_DECOYS) & {*DECOYS, *DECOY_WORDINGS}


def test_new_wordings_are_in_no_split_and_go_round_the_teams() -> None:
    assert not {text for texts in NEW_WORDINGS.values() for text in texts} & set(KNOWN)
    new = new_wordings(600, seed=1)
    assert Counter(ticket.team for ticket in new) == dict.fromkeys(TEAMS, 100)
    assert not {ticket.text for ticket in new} & {ticket.text for ticket in (*TRAIN, *HELD_OUT)}


def test_hand_written_tickets_are_many_and_made_by_no_template() -> None:
    assert all(len(OWN_WORDS[team]) >= 8 for team in TEAMS)
    assert sum(map(len, OWN_WORDS.values())) >= 60
    assert len(OWN_LEGAL) >= 12
    patterns = [pattern(text) for text in (*KNOWN, *LEGAL, *LEGAL_WORDINGS, *DECOYS, *DECOY_WORDINGS)]
    written = [bare(text) for texts in (*OWN_WORDS.values(), OWN_LEGAL, OWN_HARMLESS) for text in texts]
    assert len(set(written)) == len(written)
    assert not [text for text in written if any(found.fullmatch(text) for found in patterns)]


def test_each_team_has_many_wordings() -> None:
    rng = random.Random(1)
    for team in TEAMS:
        made = {expand(rng, rng.choice(WORDINGS[team])) for _ in range(1000)}
        assert len(made) > 700
        assert not any(letter in text for text in made for letter in "[]|<>")


def test_a_choice_is_made_inside_out_and_synonyms_are_choices() -> None:
    made = {expand(random.Random(seed), "[we [sue|called]|<cant> {verb}] it.") for seed in range(200)}
    assert {"We sue it.", "We called it.", "Can't {verb} it.", "Cannot {verb} it."} <= made


def test_no_foreign_word_is_used_by_a_ticket_sentence() -> None:
    sentences = " ".join((*KNOWN, *LEGAL, *LEGAL_WORDINGS, *DECOYS, *DECOY_WORDINGS))
    told = words_of(sentences)
    for words in (FREE_NOUNS, FREE_ADJECTIVES, FREE_VERBS):
        assert not told & {*words["train"], *words["held_out"]}
        assert not {*words["train"]} & {*words["held_out"]}


def test_unknown_wordings_fill_every_foreign_slot() -> None:
    rng = random.Random(2)
    made = [unknown_wording(rng, "train") for _ in range(2000)]
    assert not any("{" + slot in text for text in made for slot in ("noun", "adj", "verb", "fake", "name"))


def bare(text: str) -> str:
    return " ".join(re.sub(r"[^a-z0-9 ]", "", text.lower()).split())


def pattern(wording: str) -> re.Pattern[str]:
    """What a wording can become, in bare letters; anything short fits a slot."""
    text = re.sub(r"<(\w+)>", lambda found: f"[{SYNONYMS[found[1]]}]", wording)
    text = re.sub(r"\{\w+\}", "@", text.lower())
    parts = {"[": "(?:", "]": ")", "|": "|", " ": " ?", "@": "[a-z0-9 ]{1,20}"}
    return re.compile("".join(letter if letter.isalnum() else parts.get(letter, "") for letter in text))
