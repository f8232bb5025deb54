"""`wonder claims validate`, as a person types it."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.unit.claims.test_claims import examples, trace
from wonder.claims.claim import Claim
from wonder.claims.known import alternatives
from wonder.cli.__main__ import dispatch, parser
from wonder.errors import RequestError


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    claim, lines = tmp_path / "claim.json", tmp_path / "traces.jsonl"
    claim.write_text(alternatives().model_dump_json(exclude_none=True))
    lines.write_text(
        "".join(json.dumps({"trace": t.model_dump(mode="json"), "holds": holds}) + "\n" for t, holds in examples())
    )
    return claim, lines


def run(*words: object) -> int:
    return asyncio.run(dispatch(parser().parse_args([str(word) for word in words])))


def test_a_validated_claim_is_written_and_decides(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    claim, lines = files
    assert run("claims", "validate", claim, "--examples", lines, "--dataset", "made up", "--write") == 0
    told = capsys.readouterr().out
    assert "may decide: yes" in told
    assert "holds (80)               100.0%     0.0%     0.0%" in told
    assert "AUROC of -thought_trace.signals.min_relative_margin: 1.000" in told
    assert Claim.model_validate_json(claim.read_text()).evaluate(trace(0.1)).verdict == "supported"


def test_a_bad_line_is_named(files: tuple[Path, Path]) -> None:
    claim, lines = files
    lines.write_text(lines.read_text() + '{"trace": {"action": "a", "model": "m"}}\n')
    with pytest.raises(RequestError, match="line 161: holds: Field required"):
        run("claims", "validate", claim, "--examples", lines)


def test_too_few_examples_do_not_let_it_decide(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    claim, lines = files
    rows = lines.read_text().splitlines()
    lines.write_text("\n".join(rows[:20] + rows[-20:]) + "\n")
    assert run("claims", "validate", claim, "--examples", lines) == 1
    assert "may decide: no, claim 'alternatives' was validated on tiny with too few examples" in capsys.readouterr().out
