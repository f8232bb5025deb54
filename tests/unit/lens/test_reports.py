"""What a run tells of itself: records, what an operation costs, trackers that may fail, a loss that runs away."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lens_training.run_spec import ParallelSpec, Phase, Run, RunSpec
from lens_training.spec import parse
from lens_training.system import Objective, Weights
from lens_training.train.flops import Cost, peak
from lens_training.train.guard import LEAST, PATIENCE, Guard
from lens_training.train.loop import Trainer
from lens_training.train.progress import ProgressRecord, read_progress
from lens_training.train.trackers import Lenient, flat, mirrors
from tests.unit.lens.systems import system
from wonder.errors import Diverged, ExtraMissing

RECORD = ProgressRecord(step=20, time=1.0, phase="grpo", loss=0.5, metrics={"error": 0.25}, seconds={"data": 0.1})


def spec(folder: Path, *kinds: str) -> RunSpec:
    value = {
        "folder": str(folder),
        "corpus": {"source": "jsonl", "path": "x.jsonl"},
        "target": {"model": "m", "layer": 1},
        "track": {"kinds": kinds},
    }
    return parse(RunSpec, value)


def test_a_report_holds_rates_times_norms_and_memory_and_no_mfu_on_a_processor(tmp_path: Path) -> None:
    made, batch = system()
    Trainer(made, batch, Run(phases=(Phase(objective="grpo", steps=3, batch=4, group=3),)), tmp_path).train()
    record = list(read_progress(tmp_path))[-1]
    assert record.activations_per_s is not None
    assert record.tokens_per_s == pytest.approx(record.activations_per_s * 3 * 5, rel=1e-3)
    assert record.gradient_norms.keys() == {"decoder", "encoder"}
    assert all(value > 0 for value in record.gradient_norms.values())
    assert record.seconds.keys() == {"data", "forward", "backward", "optimizer", "other"}
    assert (record.memory_peak_bytes or 0) > 10**7
    assert record.mfu is None
    assert peak(torch.device("cpu")) is None


@pytest.mark.parametrize("objective", ["warm_start", "grpo", "ste_parallel"])
def test_the_cost_of_a_step_is_what_its_matrix_products_cost_without_what_attention_adds(objective: Objective) -> None:
    made, batch = system()
    weights = Weights(group=4)
    with FlopCounterMode(display=False) as counter:
        made(batch, objective, 1, weights).loss.backward()
    counted = counter.get_total_flops() / len(batch)
    told = Cost(made)(objective, weights, batch.ids_BS.shape[1])
    assert told == pytest.approx(counted, rel=0.25)


def test_a_loss_that_has_left_its_range_for_good_ends_the_run_and_a_jump_does_not() -> None:
    guard = Guard()
    usual = [1.0 + 0.01 * (at % 7) for at in range(LEAST)]
    assert not any(guard(0, loss) for loss in usual)
    assert not any(guard(0, 50.0) for _ in range(PATIENCE - 1))
    assert not guard(0, 1.0)
    other = Guard()
    other.restore(guard.state())
    for one in (guard, other):
        assert not any(one(0, 3.0) for _ in range(PATIENCE - 1))
        assert one(0, 3.0) == f"the loss was far above its usual 1.03 for {PATIENCE} steps and is 3"
    assert not any(guard(1, 50.0) for _ in range(2 * PATIENCE))  # another phase, another range


def test_a_run_whose_loss_runs_away_is_diverged(tmp_path: Path) -> None:
    made, batch = system()
    rate = f"1e-5 for {LEAST + 5}s then 10"
    phase = Phase(objective="warm_start", steps=LEAST + 5 + 3 * PATIENCE, batch=2, decoder_rate=rate)
    with pytest.raises(Diverged, match=r"far above its usual .*go back one checkpoint and halve the learning rate"):
        Trainer(made, batch, Run(phases=(phase,), clip=1e9), tmp_path).train()


def test_tensorboard_and_wandb_get_every_number(tmp_path: Path, monkeypatch: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_SILENT", "true")
    found = mirrors(spec(tmp_path, "tensorboard", "wandb"))
    (tmp_path / "run").mkdir()
    for mirror in found:
        mirror(RECORD)
        mirror.close()
        assert mirror._works  # type: ignore[attr-defined]
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {name: events.Scalars(name)[0].value for name in events.Tags()["scalars"]} == pytest.approx(flat(RECORD))
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_a_tracker_that_fails_is_left_alone_and_training_goes_on(tmp_path: Path, caplog: Any) -> None:
    class Broken:
        calls = 0

        def __call__(self, record: ProgressRecord) -> None:
            self.calls += record.step > 0
            raise OSError("no route to host")

        def close(self) -> None:
            raise AssertionError("it was told no more")

    broken = Broken()
    made, batch = system()
    run = Run(phases=(Phase(objective="warm_start", steps=41, batch=2),))
    assert Trainer(made, batch, run, tmp_path, mirrors=[Lenient("somebody", broken)]).train()
    assert broken.calls == 1
    assert "somebody is told no more of this run (OSError: no route to host)" in caplog.text


@pytest.mark.parametrize(("kind", "package"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: Any, kind: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if kind == "tensorboard":
        monkeypatch.delattr(torch.utils, "tensorboard", raising=False)
    with pytest.raises(ExtraMissing, match=rf"{kind}.*wonder-temporal\[track\]"):
        mirrors(spec(tmp_path, kind))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch looks at inputs
def test_compiled_blocks_give_the_same_gradient() -> None:
    found = []
    for compiled in (False, True):
        made, batch = system()
        phase = Phase(objective="grpo", steps=1, batch=6, decoder_rate="1e-9", encoder_rate="1e-9")
        parallel = ParallelSpec(compile_blocks=compiled, gradient_checkpointing=compiled)
        trainer = Trainer(made, batch, Run(phases=(phase,), clip=1e9), parallel=parallel)
        trainer.train()
        found.append([p.grad for named in trainer.trained.values() for p in named.values()])
    norms = [nn.utils.get_total_norm([value for value in grads if value is not None]) for grads in found]
    assert norms[0] > 0
    for one, other in zip(*found, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, atol=float(norms[0]) * 1e-5, rtol=1e-3)
