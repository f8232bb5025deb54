"""The gate: what passes it, what does not, and that every sentence holds its number."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lens_training.evaluate.gate import Standing, gate, standing
from lens_training.evaluate.record import Evaluation, Figure, Line, SelfTest, Texts, read_evaluation
from lens_training.run_spec import GateSpec
from wonder.errors import ArtifactCorrupt


def figure(value: float, spread: float = 0.02) -> Figure:
    return Figure(value=value, low=value - spread, high=value + spread)


def line(name: str, fve: float, kl: float | None = None, **more: Any) -> Line:
    one = figure(1.0)
    return Line(
        name=name, title=name, group="lens", fve=figure(fve), r2=figure(fve), r2_median=fve, norm_ratio=one,
        cosine=one, kl_recovered=None if kl is None else figure(kl), **more,
    )  # fmt: skip


def evaluation(fve: float = 0.8, shuffled: float = -0.8, kl: float | None = 0.9, **more: Any) -> Evaluation:
    values: dict[str, Any] = {
        "run": "stories", "spec_digest": "a" * 64, "judged_by": "b" * 64, "checkpoint": "step_00000012",
        "checkpoint_digest": "c" * 64, "step": 12, "steps": 12, "weights": "newest", "model": "m",
        "fingerprint": "f" * 64, "layer": 1, "d_model": 32, "data_digest": "d" * 64, "rows_digest": "e" * 64,
        "split": "val", "rows": 4096, "documents": 410, "kl_mean_nats": 7.0,
        "self_test": SelfTest(kl_mean_nats=0, kl_max_nats=1e-7, tolerance_nats=1e-5, kl_stored_nats=1e-4),
        "lines": [line("greedy", fve, kl), line("shuffled", shuffled)],
        "texts": Texts(
            length=8, nll_tail_nats=figure(5), nll_random_nats=figure(9), entropy_nats=1.0, distinct_tail_share=1.0,
            bits_most=40, bits_least=9,
        ),
    }  # fmt: skip
    return Evaluation(**(values | more))


BARS = GateSpec(minimum_fve=0.75, minimum_kl_recovered=0.85, maximum_shuffled_fve=-0.5)


def test_a_lens_that_reaches_every_bar_passes_and_every_bar_is_told() -> None:
    verdict = gate(evaluation(), BARS, Standing(name="old", fve=0.81))
    assert verdict.passed
    assert len(verdict.reasons) == 5
    assert any("0.800 [0.780, 0.820] reaches minimum_fve 0.75" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fve": 0.6}, "FVE 0.600 [0.580, 0.620] is under minimum_fve 0.75 by 0.150"),
        ({"fve": 0.76}, "its interval does not: measure on more rows"),
        ({"kl": None}, "KL recovered was not measured, and minimum_kl_recovered asks for 0.85"),
        ({"shuffled": -0.49}, "maximum_shuffled_fve asks for -0.5: the texts hardly matter"),
        ({"fve": 0.85, "lines": [line("greedy", 0.85, 0.9)]}, "shuffled texts were not measured"),
        (
            {"self_test": SelfTest(kl_mean_nats=1, kl_max_nats=2, tolerance_nats=1e-5, kl_stored_nats=2)},
            "2 nats at most, more than 1e-05: no KL of this evaluation can be trusted",
        ),
    ],
)
def test_a_bar_that_is_missed_comes_first_with_its_number(change: dict[str, Any], says: str) -> None:
    verdict = gate(evaluation(**change), BARS)
    assert not verdict.passed
    assert says in verdict.reasons[0]


def test_the_lens_in_force_is_beaten_when_the_interval_reaches_it() -> None:
    spec = GateSpec()
    assert gate(evaluation(0.8), spec, evaluation(0.82)).passed
    worse = gate(evaluation(0.8), spec, evaluation(0.83))
    assert not worse.passed
    assert "is worse than the 0.830 of the lens in force (stories at step 12)" in worse.reasons[0]
    assert gate(evaluation(0.8), GateSpec(beat_current=False), evaluation(0.83)).passed
    assert gate(evaluation(0.8), spec, None).passed
    elsewhere = gate(evaluation(0.8), spec, standing(evaluation(0.1, layer=0)))
    assert not elsewhere.passed
    assert "reads layer 0" in elsewhere.reasons[0]
    rows = gate(evaluation(0.8), spec, standing(evaluation(0.1, rows_digest="0" * 64)))
    assert any("measured on other rows" in reason for reason in rows.reasons)


def test_an_evaluation_survives_its_file_and_a_newer_one_can_be_read(tmp_path: Path) -> None:
    assert read_evaluation(tmp_path) is None
    value = evaluation().model_dump(mode="json") | {"from_the_future": 1}
    (tmp_path / "evaluation.json").write_text(json.dumps(value))
    assert read_evaluation(tmp_path) == evaluation()
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(ArtifactCorrupt, match="evaluate again"):
        read_evaluation(tmp_path)


def test_the_gate_needs_no_array_library() -> None:
    code = "import lens_training.evaluate.gate, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "transformers", "temporalio"} & {name.split(".")[0] for name in done.stdout.split()}
