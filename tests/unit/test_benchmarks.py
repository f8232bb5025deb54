"""What benchmarks need a rare machine or other tools for still runs here, at toy size, and says what it is."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from benchmarks import _lens_world, _readme, engine, gpu, lens
from benchmarks.__main__ import main as everything
from benchmarks._results import RESULTS, Row, merged, table


def test_the_gpu_benchmark_runs_at_toy_size_and_leaves_the_results_alone(capsys: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in RESULTS.glob("*.json")}
    gpu.main(["--toy", "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {path: path.stat().st_mtime_ns for path in RESULTS.glob("*.json")} == before
    assert all(row["value"] > 0 for row in rows)
    assert all(row["met"] is None and row["figure"].startswith("toy of") for row in rows)
    for figure in ("traced over untraced", "one request at a time", "bandwidth bound", "p99"):
        assert [row for row in rows if figure in row["figure"]], figure


def test_a_step_reads_the_weights_once_but_only_the_experts_that_are_chosen() -> None:
    config = gpu.sparse(toy=True)
    model = AutoModelForCausalLM.from_config(config)
    sizes = {name: weight.nbytes for name, weight in model.named_parameters() if "embed_tokens" not in name}
    experts = sum(size for name, size in sizes.items() if ".experts." in name)
    keys_and_values = 5 * 2 * 3 * 2 * 16 * 4  # tokens × both × layers × key heads × head size × bytes
    assert experts > 0
    assert gpu.bytes_per_step(model, config, [5]) == pytest.approx(
        sum(sizes.values()) - experts * (1 - 2 / 8) + keys_and_values
    )
    many = gpu.bytes_per_step(model, config, [0] * 500)
    assert many == pytest.approx(sum(sizes.values()), rel=1e-6)


def test_tools_that_are_not_installed_are_named_and_not_counted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(engine, "PEERS", tmp_path / "python")
    rows = engine.peers(16, 1, 1)
    assert len(rows) == 4
    assert all(row.value is None and "make bench-peers" in row.how for row in rows)
    assert "not installed here" in table([row.as_dict() for row in rows])


def test_a_figure_that_was_not_measured_is_never_met() -> None:
    assert Row("throughput", None, "x", ">= 1.5", "no card").met is None
    assert Row("throughput", 1.4, "x", ">= 1.5", "").met is False
    assert Row("throughput", 1.5, "x", ">= 1.5", "").met is True


def test_rows_measured_again_take_their_places_among_the_others_of_the_same_machine() -> None:
    rows = [Row(name, value, "x", "<= 1", "").as_dict() for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
    before = {"machine": {"cores": 2}, "versions": {"torch": "2"}, "rows": rows}
    again = [Row(name, 0.5, "x", "<= 1", "").as_dict() for name in ("d", "b")]
    found = merged(again, before, {**before, "rows": again})
    assert [(row["figure"], row["value"], row["met"]) for row in found] == [
        ("a", 1.0, True),
        ("b", 0.5, True),
        ("c", 3.0, False),
        ("d", 0.5, True),
    ]
    with pytest.raises(SystemExit, match="another machine"):
        merged(again, before, {**before, "machine": {"cores": 4}})


def test_one_group_of_the_engine_figures_runs_alone(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        engine.main(["--only", "steps-7"])
    assert "steps-2048" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "says"), [("--help", "--quick"), ("--quik", "unrecognized arguments: --quik")])
def test_help_helps_and_a_misspelt_option_runs_nothing(option: str, says: str, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_a, **_k: pytest.fail("a benchmark was run"))
    with pytest.raises(SystemExit) as left:
        everything([option])
    assert left.value.code == (0 if option == "--help" else 2)
    found = capsys.readouterr()
    assert says in found.out + found.err


def test_the_proof_that_lenses_learn_runs_at_toy_size_and_keeps_what_it_measured(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(lens, "CACHE", tmp_path)
    monkeypatch.setattr(_lens_world, "CACHE", tmp_path)
    tiny = lens.Scale((1,), 3, 300, 64, 0.001)
    found = {1: lens.measured(1, tiny)}
    told = {row.figure: row for row in lens.rows(found)}
    assert {row.reach for row in told.values()} >= {">= 0.84", ">= 0.89", ">= 0.90", ">= 0.60", ">= 0.70", ">= 0.85"}
    for method in ("readable, 150 s", "readable, 6 min", "two-pass straight-through", "recurrent straight-through"):
        assert told[f"lens, {method}: CPU seconds, worst seed"].value > 0  # type: ignore[operator]
        value = found[1]["methods"][method]["fve"]["value"]
        assert told[f"lens, {method}: variance explained"].value == value
        assert "one seed" in told[f"lens, {method}: variance explained"].how
    over = told["lens, readable, 6 min: over ridge on the true words"].value
    best = max(value for name, value in found[1]["baselines"].items() if name.startswith("ridge"))
    assert over == found[1]["methods"]["readable, 6 min"]["fve"]["value"] - best
    monkeypatch.setattr(_readme, "RESULTS", tmp_path)
    (tmp_path / "lens.json").write_text(json.dumps({"seeds": {"1": found[1]}}))
    shown = _readme.lens_lines()
    assert sum(line.startswith("| readable, 6 min | ") for line in shown) == 1
    assert sum(line.startswith("| … ") for line in shown) == len(found[1]["methods"]["readable, 6 min"]["samples"])
    monkeypatch.setattr(lens, "one", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(lens, "prepare", lambda *_: pytest.fail("trained again"))
    assert lens.measured(1, tiny) == found[1]


def test_the_mean_over_seeds_has_the_interval_of_student() -> None:
    # numpy: mean 2, deviation 1, 4.303 / sqrt(3) = 2.484
    assert lens.spread([1.0, 2.0, 3.0]).endswith("95 % interval -0.484 to 4.484")
