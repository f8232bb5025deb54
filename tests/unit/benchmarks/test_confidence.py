"""The confidence leaderboard on anybody's questions: what it measures, and what it says of a file it cannot use."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import confidence
from benchmarks._leaderboard import UNKNOWN, Asked, best_elsewhere, everything, leaderboard, table
from benchmarks._questions import FACT_WORLD, Item, fact_world_items, is_right, support_desk_items
from wonder.learning.scoring import auroc
from wonder.trace.signals import SIGNALS


def asked(said: list[float | None], right: list[bool]) -> list[Asked]:
    """Answers of which every signal says the same."""
    return [
        Asked(Item("?", ("!",), "g"), done, dict.fromkeys(SIGNALS, value))
        for value, done in zip(said, right, strict=True)
    ]


def test_every_registered_signal_is_read_from_a_model_and_ranked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "questions.jsonl", tmp_path / "result.json"
    lines = [
        {"prompt": one.prompt, "answers": list(one.answers), "group": one.group} for one in fact_world_items()[:60]
    ]
    data.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    options = ["--max-new-tokens", "4", "--out", str(out), "--batch", "32"]
    assert confidence.main(["--model", str(FACT_WORLD), "--data", str(data), *options]) == 0
    (board,) = json.loads(out.read_text())["leaderboards"]
    assert {found["signal"] for found in board["standings"]} == set(SIGNALS)
    assert (board["questions"], board["never_read"]) == (60, {})
    assert 5 < board["wrong"] < 30
    surest = {found["signal"]: found for found in board["standings"]}["value_probability"]
    assert surest["auroc"] > 0.85
    told = capsys.readouterr().out
    assert "60 questions" in told
    assert "unseen" in told


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 1 of .* is not JSON .* at column 2"),
        ("[1]", "line 1 of .* is a list; wanted an object"),
        ('{"prompt": "a", "answer": "b"}', r"'answers' is missing \(found 'prompt', 'answer'\)"),
        ('{"prompt": " ", "answers": ["b"]}', "'prompt' is not a text with words"),
        ('{"prompt": "a", "answers": []}', "'answers' is not a list of one or more strings"),
        ('{"prompt": "a", "answers": [1]}', "'answers' is not a list of one or more strings"),
        ("\n", "has no questions"),
    ],
)
def test_a_line_that_is_no_question_is_named(
    line: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "bad.jsonl"
    data.write_text(line)
    assert confidence.main(["--model", "support-desk", "--data", str(data)]) == 2
    assert re.search(told, capsys.readouterr().err)


def test_a_file_or_a_model_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert confidence.main(["--model", "support-desk", "--data", str(tmp_path / "none.jsonl")]) == 2
    assert "No such file" in capsys.readouterr().err
    data = tmp_path / "some.jsonl"
    data.write_text('{"prompt": "a", "answers": ["b"]}')
    assert confidence.main(["--model", str(tmp_path / "no-model"), "--data", str(data)]) == 2
    assert "no-model" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        confidence.main(["--data", str(data)])


def test_questions_that_are_all_answered_alike_are_refused() -> None:
    with pytest.raises(ValueError, match="all 2 answers are wrong, so there is nothing to tell apart"):
        leaderboard("w", "m", asked([0.1, 0.2], [False, False]), {})


def test_an_unknown_signal_ranks_below_every_number_and_is_counted() -> None:
    said = [None, 0.2, 0.9, 0.8, 0.7, 0.95]
    board = leaderboard("w", "m", asked(said, [False, False, True, True, False, True]), {}, draws=5)
    found = board.of("value_probability")
    assert UNKNOWN < 0
    assert (found.unknown, found.auroc, found.reviewed_at_threshold) == (1, 1.0, pytest.approx(1 / 3))
    assert found.caught_at_threshold == pytest.approx(2 / 3)
    assert "was unknown for 1 of 6" in table(board)


def test_a_signal_that_nobody_had_is_listed_with_its_reason() -> None:
    rows = asked([0.1, 0.9, 0.2, 0.8], [False, True, False, True])
    gone = [Asked(row.item, row.right, {**row.signals, "hidden_norm": None}) for row in rows]
    board = leaderboard("w", "m", gone, {"hidden_norm": "no layer was read"}, draws=5)
    assert board.never_read == {"hidden_norm": "no layer was read"}
    assert "hidden_norm was never read: no layer was read" in table(board)


def test_the_best_signal_is_measured_where_it_was_not_chosen() -> None:
    rows = asked([0.5] * 8, [True, False, False, True] * 2)
    # This one separates the first half perfectly and the second the wrong way round.
    lucky = [
        Asked(row.item, row.right, {**row.signals, "min_margin": float(row.right == (place % 2 == 0))})
        for place, row in enumerate(rows)
    ]
    value, chosen = best_elsewhere(auroc, lucky)
    assert chosen[0] == "min_margin"
    assert value < 0.5


def test_the_settings_read_what_every_signal_needs() -> None:
    settings = everything()
    assert all(signal.is_read_by(settings) for signal in SIGNALS.values())


def test_answers_are_compared_as_words_loosely_or_as_values() -> None:
    item = Item("?", ("The Hague",))
    assert is_right(" The  Hague\n", item, "text")
    assert not is_right("the hague.", item, "text")
    assert is_right("the hague.", item, "text", loose=True)
    desk = support_desk_items(1, seed=1)[0]
    assert is_right(json.dumps(json.loads(desk.answers[0]), indent=2), desk, "json")
    assert not is_right("{}", desk, "json")
    assert not is_right("no JSON", desk, "json")
