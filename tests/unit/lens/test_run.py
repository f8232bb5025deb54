"""A run from its specification: the stage `train`, its segments, its lease and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lens_training.__main__ import main
from lens_training.run_spec import RunSpec
from lens_training.spec import parse
from lens_training.train.checkpoint import load_checkpoint
from lens_training.train.kept import go_back, kept_steps, latest_step
from lens_training.train.progress import final_trace, last_progress, read_progress, read_status
from lens_training.train.segment import Segment, check_lease, next_epoch, take_lease
from tests.unit.lens.conftest import Specify
from wonder.errors import ArtifactMissing, LeaseLost, SpecError

PHASES = [
    {"objective": "warm_start", "steps": 6, "batch": 8},
    {"objective": "grpo", "steps": 6, "batch": 4, "group": 3, "encoder_rate": "1e-4"},
]


@pytest.fixture
def config(specify: Specify, tmp_path: Path) -> Path:
    """A finished dump, and the specification of a run on it."""
    spec = specify(tmp_path / "data").model_dump(mode="json")
    spec |= {"lens": {"length": 5}, "run": {"phases": PHASES, "checkpoint_every": 4, "average": 0.5}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(spec))
    assert main(["tokens", str(path)]) == main(["dump", str(path)]) == 0
    return path


def trained(config: Path, folder: Path) -> dict[str, Any]:
    """The config with another folder for what is trained, on the same data."""
    value = json.loads(config.read_text())
    folder.mkdir()
    for name in ("tokens", "activations"):
        (folder / name).symlink_to(Path(value["folder"]) / name)
    return value | {"folder": str(folder)}


def test_segments_and_signals_change_nothing(config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        (tmp_path / f"{folder.name}.json").write_text(json.dumps(trained(config, folder)))
    assert main(["train", str(tmp_path / "whole.json")]) == 0
    assert main(["train", str(tmp_path / "parts.json"), "--until", "5"]) == 0
    status = read_status(parts / "run")
    assert status is not None
    assert (status.state, status.step, status.steps) == ("segment_done", 5, 12)
    segment = Segment(spec=str(tmp_path / "parts.json"), epoch=next_epoch(parts / "run"))
    (tmp_path / "segment.json").write_text(segment.model_dump_json())
    process = subprocess.Popen([sys.executable, "-m", "lens_training.train.main", str(tmp_path / "segment.json")])
    while process.poll() is None and not (parts / "run" / "step_00000008").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    status = read_status(parts / "run")
    assert status is not None
    assert status.state in {"preempted", "completed"}
    assert main(["train", str(tmp_path / "parts.json")]) == 0
    found = [load_checkpoint(folder / "run") for folder in (whole, parts)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0][0] == found[1][0] == 12
    assert found[0][1].keys() == found[1][1].keys()
    assert all(value.equal(found[1][1][name]) for name, value in found[0][1].items())
    assert [record.step for record in read_progress(whole / "run")] == [12]


def test_a_run_of_another_specification_is_not_gone_on_with(config: Path, capsys: Any) -> None:
    assert main(["train", str(config), "--until", "4"]) == 0
    value = json.loads(config.read_text())
    value["run"]["seed"] = 7
    config.write_text(json.dumps(value))
    assert main(["train", str(config)]) == 1
    assert "DigestMismatch" in capsys.readouterr().err


def test_a_run_can_be_extended_by_phases_but_what_has_begun_cannot_be_changed(config: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    further = {"objective": "warm_start", "steps": 3, "batch": 4}
    for folder in (whole, parts):
        value = trained(config, folder)
        value["run"] = value["run"] | {"phases": [*PHASES, further]}
        (tmp_path / f"{folder.name}.json").write_text(json.dumps(value))
        if folder is parts:
            (tmp_path / "short.json").write_text(json.dumps(value | {"run": value["run"] | {"phases": PHASES}}))
    assert main(["train", str(tmp_path / "whole.json")]) == 0
    assert main(["train", str(tmp_path / "short.json")]) == 0
    assert main(["train", str(tmp_path / "parts.json")]) == 0
    found = [load_checkpoint(folder / "run") for folder in (whole, parts)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0][0] == found[1][0] == 15
    assert all(value.equal(found[1][1][name]) for name, value in found[0][1].items())
    value = json.loads((tmp_path / "parts.json").read_text())
    value["run"]["phases"][1]["steps"] = 7
    (tmp_path / "parts.json").write_text(json.dumps(value))
    assert main(["train", str(tmp_path / "parts.json")]) == 1


def test_a_run_goes_back_to_an_older_checkpoint_or_to_its_beginning(config: Path) -> None:
    folder = parse(RunSpec, json.loads(config.read_text())).run_folder
    assert main(["train", str(config)]) == 0
    assert kept_steps(folder) == [4, 8, 12]
    for _ in range(2):
        go_back(folder, 4)
        assert (latest_step(folder), kept_steps(folder)) == (4, [4])
    with pytest.raises(ArtifactMissing, match=r"no checkpoint of step 8; it has \[4\]"):
        go_back(folder, 8)
    assert main(["train", str(config)]) == 0
    assert kept_steps(folder) == [4, 8, 12]
    go_back(folder, 0)
    assert (latest_step(folder), kept_steps(folder)) == (0, [])


def test_the_newest_report_is_read_from_the_end_and_steps_taken_again_count_once(tmp_path: Path) -> None:
    assert last_progress(tmp_path) is None
    lines = [f'{{"step": {step}, "time": 1.0, "phase": "{"x" * 900}"}}' for step in (20, 40, 60, 40, 60, 80)]
    (tmp_path / "progress.jsonl").write_text("\n".join([*lines, '{"step": 100, "ti']))
    found = last_progress(tmp_path)
    assert found is not None
    assert found.step == 80
    assert [record.step for record in final_trace(read_progress(tmp_path))] == [20, 40, 60, 80]


def test_the_attempt_with_the_highest_epoch_owns_a_run(tmp_path: Path) -> None:
    assert next_epoch(tmp_path) == 0
    take_lease(tmp_path, 0)
    take_lease(tmp_path, 3)
    check_lease(tmp_path, 3)
    for stale in (take_lease, check_lease):
        with pytest.raises(LeaseLost, match="attempt 3 has taken it over"):
            stale(tmp_path, 2)
    assert next_epoch(tmp_path) == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"run": {"phases": []}}, "run.phases"),
        ({"run": {"phases": [{"objective": "grpo", "steps": 3, "group": 1}]}}, "at least 2"),
        ({"run": {"phases": [{"objective": "grpo", "steps": 3, "tau": "1 to 2"}]}}, "tau"),
        ({"run": {"phases": [{"objective": "gpro", "steps": 3}]}}, "objective"),
        ({"run": {"phases": PHASES}, "lens": {"length": 50}}, "dump.minimum_position"),
        ({"lunch": {}}, "did you mean launch?"),
        ({"name": "My Lens"}, "name"),
    ],
)
def test_what_cannot_be_is_refused(specify: Specify, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    value = specify(tmp_path).model_dump(mode="json")
    with pytest.raises(SpecError, match=says):
        parse(RunSpec, value | change)
    assert parse(RunSpec, value).run is None


def test_a_trainer_that_lost_its_lease_publishes_nothing(config: Path) -> None:
    folder = parse(RunSpec, json.loads(config.read_text())).run_folder
    folder.mkdir()
    take_lease(folder, 5)
    segment = Segment(spec=str(config), epoch=4)
    (config.parent / "segment.json").write_text(segment.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-m", "lens_training.train.main", str(config.parent / "segment.json")],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 1
    assert "LeaseLost" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["lease.json"]
