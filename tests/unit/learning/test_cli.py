"""`wonder calibrate` on files, as a person runs it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.learning.world import answers
from wonder.calibration.outcomes import LabeledOutcome, write_outcomes
from wonder.calibration.registry import CalibrationRegistry
from wonder.cli.__main__ import dispatch, parser
from wonder.cli.calibrate import DRIFTED
from wonder.entry import exit_code
from wonder.errors import CalibrationMismatch, DefinitionError, NotPromoted, TooFewLabels

LATER = 100_000


async def calibrate(folder: Path, rows: list[LabeledOutcome], *more: str) -> int:
    write_outcomes(folder / "labels.jsonl", rows)
    given = ["calibrate", "--action", "classify", "--labels", str(folder / "labels.jsonl")]
    return await dispatch(parser().parse_args([*given, "--registry", str(folder / "registry"), *more]))


async def test_labels_become_a_calibration_in_force_with_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "reliability.svg"
    assert await calibrate(tmp_path, answers(400, seed=1), "--picture", str(picture)) == 0
    told = capsys.readouterr().out
    assert "classify on m, signal value_probability" in told
    assert re.search(r"labels +400 judged, \d+ of them wrong", told)
    assert re.search(r"ECE +0\.\d+ +0\.\d+", told)
    assert re.search(r"risk 0\.2 +accept from 0\.\d+ on", told)
    assert "gate        passed" in told
    assert picture.read_text().startswith("<svg")
    (entry,) = CalibrationRegistry(tmp_path / "registry").entries()
    assert entry.bundle[:12] in told


async def test_a_dry_run_moves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await calibrate(tmp_path, answers(400, seed=1), "--dry-run") == 0
    assert "nothing was moved" in capsys.readouterr().out
    assert not (tmp_path / "registry").exists()


async def test_a_newer_calibration_replaces_the_older_one_and_names_it(tmp_path: Path) -> None:
    await calibrate(tmp_path, answers(400, seed=1))
    await calibrate(tmp_path, answers(3000, seed=41), "--method", "beta")
    (entry,) = CalibrationRegistry(tmp_path / "registry").entries()
    first, second = entry.moves
    assert CalibrationRegistry(tmp_path / "registry").get(second.bundle).parent == first.bundle
    assert "nats" in second.because


async def test_a_worse_one_is_not_promoted_and_the_command_says_so(tmp_path: Path) -> None:
    await calibrate(tmp_path, answers(1500, seed=1))
    with pytest.raises(NotPromoted, match="nothing was moved") as refused:
        # Fitted where the model was honest, compared where it is not.
        await calibrate(tmp_path, answers(140, seed=2, sharpen=0.5) + answers(60, seed=4, first_minute=LATER))
    assert exit_code(refused.value) == 4
    (entry,) = CalibrationRegistry(tmp_path / "registry").entries()
    assert len(entry.moves) == 1


async def test_the_check_says_drift_with_its_own_exit_code_and_new_labels_end_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await calibrate(tmp_path, answers(600, seed=1))
    assert await calibrate(tmp_path, answers(400, seed=130, first_minute=LATER), "--check") == 0
    harder = answers(400, seed=3, ease=0.6, first_minute=LATER)
    capsys.readouterr()
    assert await calibrate(tmp_path, harder, "--check", "--dry-run") == DRIFTED
    assert "DRIFT  input" in capsys.readouterr().out
    registry = CalibrationRegistry(tmp_path / "registry")
    assert registry.entries()[0].drift is None
    assert await calibrate(tmp_path, harder, "--check", "--json") == DRIFTED
    assert json.loads(capsys.readouterr().out)["drifted"] is True
    assert registry.entries()[0].drift is not None
    with pytest.raises(TooFewLabels):
        await calibrate(tmp_path, answers(600, seed=1))  # from before the drift: they describe a world that is gone
    assert await calibrate(tmp_path, harder) == 0
    assert registry.entries()[0].drift is None


async def test_one_of_several_models_can_be_chosen(tmp_path: Path) -> None:
    mixed = [*answers(300, model_fingerprint="a" * 64), *answers(300, seed=1, model_fingerprint="b" * 64)]
    with pytest.raises(CalibrationMismatch, match="--fingerprint"):
        await calibrate(tmp_path, mixed)
    assert await calibrate(tmp_path, mixed, "--fingerprint", "bbbb") == 0
    (entry,) = CalibrationRegistry(tmp_path / "registry").entries()
    assert CalibrationRegistry(tmp_path / "registry").get(entry.bundle).model_fingerprint == "b" * 64


async def test_answers_can_be_chosen_by_time_and_exported(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    day = 24 * 60
    rows = answers(2 * day, seed=5)
    await calibrate(tmp_path, rows, "--since", "2026-11-02", "--export", str(out), "--method", "beta")
    assert len(out.read_text().splitlines()) == day - 1


@pytest.mark.parametrize(
    "more", [("--since", "lately"), ("--risk", "0"), ("--risk", "0.05", "2"), ("--delta", "1")], ids=str
)
async def test_a_number_that_makes_no_sense_is_refused(more: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(DefinitionError):
        await calibrate(tmp_path, answers(100), *more)


async def test_too_few_labels_end_the_command_with_a_sentence(tmp_path: Path) -> None:
    refused: Any
    with pytest.raises(TooFewLabels, match="judge 40 more") as refused:
        await calibrate(tmp_path, answers(10))
    assert exit_code(refused.value) == 4
