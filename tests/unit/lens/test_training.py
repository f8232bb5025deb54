"""A run is the same whether it is left alone, cut into segments, or killed at any step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lens_training.batch import Batch
from lens_training.run_spec import Phase, Run
from lens_training.system import LensSystem
from lens_training.train.checkpoint import load_checkpoint, save_checkpoint
from lens_training.train.loop import Trainer
from lens_training.train.progress import read_progress, read_status
from tests.unit.lens import killed
from tests.unit.lens.test_system import system
from wonder.errors import CorruptCheckpoint, Diverged

RUN = Run(
    phases=[
        Phase(objective="warm_start", steps=6, batch=4),
        Phase(objective="grpo", steps=6, batch=3, decoder_rate="1e-3 -> 1e-4", encoder_rate="0 for 2s then 5e-4"),
    ],
    average=0.9,
    checkpoint_every=2,
)


def weights(made: LensSystem) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in made.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def undisturbed() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    made, data = system()
    trainer = Trainer(made, data, RUN)
    assert trainer.train()
    return weights(made), trainer.average


def test_segments_and_stops_give_the_weights_of_one_run_to_the_bit(tmp_path: Path) -> None:
    expected, average = undisturbed()
    ends: list[int | None] = [3, 7, None]
    for at, until in enumerate(ends):
        made, data = system()
        trainer = Trainer(made, data, RUN, tmp_path)
        assert trainer.resume() is (at > 0)
        if at == 1:
            calls = iter([False, False, True])
            assert not trainer.train(stop=lambda calls=calls: next(calls))  # type: ignore[misc]
            assert trainer.step == 5
            status = read_status(tmp_path)
            assert status is not None
            assert status.state == "preempted"
            continue
        assert trainer.train(until=until) is (until is None)
    assert same(weights(made), expected)
    assert same(trainer.average, average)
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.step) == ("completed", 12)
    assert [record.step for record in read_progress(tmp_path)] == [3, 12]


def test_accumulating_gives_the_gradient_of_the_whole_batch() -> None:
    found = []
    for pieces in (1, 2):
        made, data = system()
        run = Run(
            phases=[Phase(objective="warm_start", steps=1, batch=6, decoder_rate="1e-9", encoder_rate="1e-9")],
            accumulate=pieces,
            clip=1e9,
        )
        trainer = Trainer(made, data, run)
        trainer.train()
        found.append({name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None})
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], atol=1e-5, rtol=1e-3)


def test_a_frozen_encoder_stays_as_it_is() -> None:
    made, data = system()
    before = {name: value.clone() for name, value in made.encoder.state_dict().items()}
    Trainer(made, data, Run(phases=[Phase(objective="grpo", steps=2, batch=3, encoder_rate="0")])).train()
    assert same(before, dict(made.encoder.state_dict()))


def test_a_loss_that_is_no_number_changes_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    made, data = system()
    broken = Batch(data.activation_BD.clone().fill_(float("nan")), data.ids_BS, data.pos_B, data.document_B)
    before = weights(made)
    with pytest.raises(Diverged, match=r"step 0: the loss is nan .*halve the learning rate"):
        Trainer(made, broken, RUN, tmp_path).train()
    assert same(weights(made), before)
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.error) == ("failed", "Diverged")


def test_a_checkpoint_cut_in_half_or_changed_is_refused_and_an_older_one_can_be_named(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"x": torch.full((4,), float(step))}, {"a": step})
    newest = tmp_path / "step_00000002" / "tensors-00000.safetensors"
    whole = newest.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-1] + b"\x01"):
        newest.write_bytes(damaged)
        with pytest.raises(CorruptCheckpoint, match="point LATEST to an older one"):
            load_checkpoint(tmp_path)
    (tmp_path / "LATEST").write_text("step_00000001")
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert (found[0], found[1]["x"].tolist(), found[2]) == (1, [1.0] * 4, {"a": 1})


def test_a_disk_that_is_full_leaves_the_old_checkpoint_and_no_half_of_the_new_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"x": torch.ones(4)}, {})
    script = (
        "import resource, torch; from pathlib import Path; from lens_training.train.checkpoint import save_checkpoint; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); import signal; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"save_checkpoint(Path({str(tmp_path)!r}), 2, {{'x': torch.ones(100_000)}}, {{}})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "StoreNotUsable" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LATEST", "step_00000001"]
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["random", "publishing"])
def test_killed_twenty_times_it_ends_with_the_same_weights(tmp_path: Path, way: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", killed.__name__, str(tmp_path), way],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int((tmp_path / "kills").read_text()) == killed.KILLS
    whole = killed.trainer(None)
    assert whole.train()
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == killed.RUN.steps
    for named, prefix in ((whole._parameters(), "model."), (whole.average, "average.")):
        kept = {name.removeprefix(prefix): value for name, value in found[1].items() if name.startswith(prefix)}
        assert same(dict(named), kept)
    assert not list(tmp_path.glob(".*"))


def test_a_disk_that_fills_up_ends_the_run_with_a_sentence_and_it_goes_on_from_the_checkpoint_before(
    tmp_path: Path,
) -> None:
    expected, _ = undisturbed()
    script = (
        "import resource, signal, sys; from pathlib import Path; from lens_training.train.loop import Trainer; "
        "from tests.unit.lens.test_system import system; from tests.unit.lens.test_training import RUN; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); made, data = system(); folder = Path(sys.argv[1]); "
        "trainer = Trainer(made, data, RUN, folder); trainer.train(until=4); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); trainer.train()"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "StoreNotUsable: tensors-00000.safetensors cannot be written" in done.stderr
    assert sorted(path.name for path in tmp_path.glob("*step*")) == ["step_00000002", "step_00000004"]
    made, data = system()
    trainer = Trainer(made, data, RUN, tmp_path)
    assert trainer.resume()
    assert trainer.step == 4
    assert trainer.train()
    assert same(weights(made), expected)
