"""Two processes do what one does: real torchrun, real gloo, batches that do not divide evenly."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lens_training.train.checkpoint import file_name, load_checkpoint, save_checkpoint
from lens_training.train.progress import read_status
from lens_training.train.ranks import Ranks
from tests.unit.lens import two_ranks
from tests.unit.lens.two_ranks import KINDS, OBJECTIVES, RUN, gradients, losses, one_step, trainer

ALONE = Ranks()
pytestmark = pytest.mark.timeout(600)  # where processors are shared by many


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have left what they found."""
    folder = tmp_path_factory.mktemp("two-ranks")
    losses(trainer("none", RUN, ALONE, folder / "chain"), 3)
    for at in range(2):
        save_checkpoint(folder / "half", at + 1, {"x": torch.ones(1000)}, {})
    half = folder / "half" / "step_00000002" / file_name(0)
    half.write_bytes(half.read_bytes()[:2000])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", two_ranks.__name__, str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def told(place: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((place / "told.json").read_text())
    return found


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The norm of the difference, relative to that of the first."""
    assert one.keys() == other.keys()
    size = sum(float(value.square().sum()) for value in one.values()) ** 0.5
    return sum(float((value - other[name]).square().sum()) for name, value in one.items()) ** 0.5 / size


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_two_processes_is_that_of_one(place: Path, kind: str, objective: str) -> None:
    alone = trainer("lora" if kind == "lora" else "none", one_step(objective), ALONE)
    alone.train()
    found = distance(gradients(alone), load_file(place / f"{kind}-{objective}.safetensors"))
    assert found <= 1e-5


def test_a_pass_that_goes_round_the_wrapper_has_another_gradient(place: Path) -> None:
    alone = trainer("none", one_step("warm_start"), ALONE)
    alone.train()
    assert distance(gradients(alone), load_file(place / "bypassed.safetensors")) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_run_has_the_losses_of_one_process(told: list[dict[str, Any]], kind: str) -> None:
    alone = losses(trainer("lora" if kind == "lora" else "none", RUN, ALONE))
    assert len(alone) == RUN.steps
    for rank in told:
        assert rank[f"losses {kind}"] == pytest.approx(alone, rel=1e-6)


def test_a_run_goes_on_with_another_number_of_processes_and_another_way_to_spread_it(
    place: Path, told: list[dict[str, Any]]
) -> None:
    alone = losses(trainer("none", RUN, ALONE))
    assert told[0]["chain ddp"] == pytest.approx(alone[3:6], abs=1e-6)
    assert told[0]["chain fsdp2"] == pytest.approx(alone[6:9], abs=1e-6)
    last = trainer("none", RUN, ALONE, place / "chain")
    files = sorted(path.name for path in (place / "chain" / "step_00000009").iterdir())
    assert files == ["checkpoint.json", file_name(0), file_name(1)]
    assert last.resume()
    assert losses(last) == pytest.approx(alone[9:], abs=1e-6)
    found = load_checkpoint(place / "chain")
    assert found is not None
    assert found[0] == RUN.steps


def test_all_stop_at_one_step_if_one_wishes_to(place: Path, told: list[dict[str, Any]]) -> None:
    assert [rank["stopped"] for rank in told] == [2, 2]
    status = read_status(place / "stopped")
    assert status is not None
    assert (status.state, status.checkpoint) == ("preempted", "step_00000002")


def test_a_rollout_brings_sharded_parameters_together_once_for_all_its_tokens(told: list[dict[str, Any]]) -> None:
    for rank in told:
        short, long = rank["gathers"]
        assert short == long > 0


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("diverged", "Diverged: step 0: the loss is nan"),
        ("lease", "LeaseLost: "),
        ("corrupt", "CorruptCheckpoint: "),
        ("few rows", "SpecError: a batch of 1 rows cannot be shared by 2 processes"),
        ("alone", "SpecError: parallel.kind is none and 2 processes were started"),
    ],
)
def test_all_end_with_the_same_error(place: Path, told: list[dict[str, Any]], what: str, says: str) -> None:
    assert all(rank[what].startswith(says) for rank in told), [rank[what] for rank in told]
    if what == "lease":
        assert not list((place / what).glob("*step_*"))
        assert not (place / what / "LATEST").exists()
