"""The stage `evaluate` on a real small run: what it writes, that its figures are what they say, and what it refuses."""

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from lens_training.__main__ import main
from lens_training.build import build
from lens_training.evaluate.judge import evaluate
from lens_training.evaluate.metrics import next_tokens, text_nll
from lens_training.evaluate.readers import read, speak
from lens_training.evaluate.record import Evaluation, Figure, read_evaluation, read_rows
from lens_training.evaluate.weights import open_weights, warm_start
from lens_training.export import states_digest
from lens_training.run_spec import RunSpec
from lens_training.spec import load, parse
from tests.unit.lens.conftest import Specify
from wonder.errors import ArtifactMissing, SpecError

PHASES = [
    {"objective": "warm_start", "steps": 20, "batch": 16},
    {"objective": "grpo", "steps": 6, "batch": 4, "group": 3, "encoder_rate": "1e-4"},
]
JUDGED = {
    "rows": 100, "draws": 200, "samples": 8, "fit_rows": 300, "best_of": 3, "best_of_rows": 40, "control_steps": 2,
    "labels": ["place", "hero"],
}  # fmt: skip


@pytest.fixture(scope="module")
def config(specify: Specify, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, judged once."""
    folder = tmp_path_factory.mktemp("judged")
    spec = specify(folder / "data").model_dump(mode="json")
    run = {"phases": PHASES, "checkpoint_every": 20, "average": 0.9}
    spec |= {"lens": {"length": 5}, "run": run, "evaluation": JUDGED, "name": "tiny"}
    path = folder / "config.json"
    path.write_text(json.dumps(spec))
    for stage in ("tokens", "dump", "train", "evaluate"):
        assert main([stage, str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def spec(config: Path) -> RunSpec:
    return load(RunSpec, config)


@pytest.fixture(scope="module")
def found(spec: RunSpec) -> Evaluation:
    there = read_evaluation(spec.run_folder)
    assert there is not None
    return there


def changed(config: Path, change: Callable[[dict[str, Any]], object], to: Path) -> Path:
    """Another specification, with a copy of the run."""
    value = json.loads(config.read_text())
    shutil.copytree(value["folder"], to / "data")
    value["folder"] = str(to / "data")
    change(value)
    (to / "config.json").write_text(json.dumps(value))
    return to / "config.json"


def test_every_line_is_measured_on_the_same_rows_and_the_fixed_points_are_fixed(found: Evaluation) -> None:
    names = [line.name for line in found.lines]
    assert {
        "greedy", "drawn", "other_weights", "warm_start", "encoder_only", "shuffled", "permuted", "random_words",
        "true_tail", "true_tail_untrained", "true_tail_trained", "current_token", "ridge_1", "ridge_2", "ridge_4",
        "ridge_8", "mean", "quantised", "clustered", "clustered_8", "principal_8",
    } <= set(names)  # fmt: skip
    assert len(names) == len(set(names))
    mean = found.line("mean")
    assert mean is not None
    assert mean.fve.value == pytest.approx(0, abs=1e-9)
    assert mean.kl_recovered is not None
    assert mean.kl_recovered.value == pytest.approx(0, abs=1e-6)
    assert mean.ahead is not None
    assert mean.ahead.value == pytest.approx(found.greedy.fve.value, abs=1e-6)
    assert (mean.ahead.low, mean.ahead.high) == pytest.approx((found.greedy.fve.low, found.greedy.fve.high), abs=1e-6)
    assert found.greedy.ahead is None
    permuted = found.line("permuted")
    assert permuted is not None
    assert permuted.repeats == 8
    assert found.self_test.passed
    assert found.self_test.kl_max_nats < 1e-5
    assert found.rows == 100
    assert (found.checkpoint, found.step, found.steps) == ("step_00000026", 26, 26)


def test_the_figures_of_the_lens_are_their_definitions(spec: RunSpec, found: Evaluation) -> None:
    bench = build(spec)
    open_weights(spec).put(bench.system, "newest")
    batch = bench.rows("val").sample(100)
    assert states_digest(batch.activation_BD) == found.rows_digest
    ids = bench.system.decoder.rollout(batch.activation_BD, 5).ids_BT
    with torch.no_grad():
        predicted = bench.system.reconstruct(ids)
    true, mean = batch.activation_BD, bench.statistics.mean_D
    fve = 1 - (true - predicted).square().sum() / (true - mean).square().sum()
    assert found.greedy.fve.value == pytest.approx(fve.item(), abs=1e-5)
    r2 = 1 - (true - predicted).square().sum() / (true - true.mean(0)).square().sum()
    assert found.greedy.r2.value == pytest.approx(r2.item(), abs=1e-5)
    each = 1 - (true - predicted).square().sum(0) / (true - mean).square().sum(0)
    assert found.greedy.r2_median == pytest.approx(each.median().item(), abs=1e-5)
    (with_it, with_mean), _ = next_tokens(bench.target, [predicted, mean.expand_as(true)], batch, size=100)
    kl = found.greedy.kl_recovered
    assert kl is not None
    assert kl.value == pytest.approx(1 - (with_it.kl_N.sum() / with_mean.kl_N.sum()).item(), abs=1e-4)
    assert found.kl_mean_nats == pytest.approx(with_mean.kl_N.mean().item(), rel=1e-4)
    nll = found.greedy.nll_nats
    assert nll is not None
    assert nll.value == pytest.approx(text_nll(bench.target, ids, bench.system.neutral).mean().item(), abs=1e-4)
    rows = read_rows(spec.run_folder, found)
    assert rows is not None
    assert rows.document == batch.document_B.tolist()
    assert 1 - sum(rows.error) / sum(rows.spread) == pytest.approx(fve.item(), abs=1e-4)
    assert rows.kl == pytest.approx(with_it.kl_N.tolist(), abs=1e-4)
    worst = [sample for sample in found.samples if sample.kind == "worst"]
    error = (true - predicted).square().sum(-1) / bench.statistics.variance
    assert max(sample.error for sample in worst) == pytest.approx(error.max().item(), abs=1e-4)


def test_an_untrained_encoder_is_the_target_itself_and_other_weights_are_those_that_were_kept(
    spec: RunSpec, found: Evaluation
) -> None:
    bench = build(spec)
    batch = bench.rows("val").sample(100)
    weights, early = open_weights(spec), warm_start(spec)
    assert early is not None
    assert early.step == 20

    def fve(ids: torch.Tensor) -> float:
        true, mean = batch.activation_BD, bench.statistics.mean_D
        predicted = read(bench.system.encoder, ids)
        return float(1 - (true - predicted).square().sum() / (true - mean).square().sum())

    measured = {line.name: line.fve.value for line in found.lines}
    assert fve(batch.tail(5)) == pytest.approx(measured["true_tail_untrained"], abs=1e-4)
    for name, which, kind in (("other_weights", weights, "average"), ("warm_start", early, "newest")):
        which.put(bench.system, kind)  # type: ignore[arg-type]
        assert fve(speak(bench.system.decoder, batch.activation_BD, 5)) == pytest.approx(measured[name], abs=1e-5)
    weights.put(bench.system, "newest")
    assert fve(batch.tail(5)) == pytest.approx(measured["true_tail"], abs=1e-5)


def test_what_was_judged_is_not_judged_again_and_anything_that_changed_is(
    config: Path, tmp_path: Path, capsys: Any
) -> None:
    path = changed(config, lambda value: value["evaluation"].update(labels=[], control_steps=0), tmp_path)
    folder = load(RunSpec, path).run_folder
    before = (folder / "evaluation.json").read_bytes()
    assert main(["evaluate", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    after = (folder / "evaluation.json").read_bytes()
    assert after != before
    assert told["self_test"] == "passed"
    assert "100 rows were measured" in told["note 1"]
    (folder / "report.html").write_text("mine")
    assert main(["evaluate", str(path)]) == 0
    assert (folder / "evaluation.json").read_bytes() == after
    assert (folder / "report.html").read_text() == "mine"
    assert main(["evaluate", str(path), "--train-control", "1"]) == 0
    assert (folder / "evaluation.json").read_bytes() != after
    (folder / "evaluation.json").unlink()
    shutil.rmtree(folder / "step_00000026")
    (folder / "LATEST").write_text("step_00000020")
    assert main(["evaluate", str(path)]) == 0
    again = read_evaluation(folder)
    assert again is not None
    assert again.step == 20
    assert again.line("warm_start") is None
    assert "Training has done 20 of 26 steps." in again.warnings


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda value: value["run"].update(seed=5), 1, "judge it with the specification"),
        (lambda value: value["evaluation"].update(weights="average") or value["run"].update(average=0), 1, "Digest"),
        (lambda value: value["evaluation"].update(labels=["colour"]), 2, "has no label 'colour'; it has text, hero"),
        (lambda value: value["evaluation"].update(label_file="/nowhere.jsonl"), 2, "/nowhere.jsonl cannot be read"),
        (lambda value: value["evaluation"].update(rows=12), 2, "greater than or equal to 16"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    config: Path, tmp_path: Path, capsys: Any, change: Callable[[dict[str, Any]], object], code: int, says: str
) -> None:
    path = changed(config, change, tmp_path)
    (tmp_path / "data" / "run" / "evaluation.json").unlink()
    assert main(["evaluate", str(path)]) == code
    assert says in capsys.readouterr().err
    assert not (tmp_path / "data" / "run" / "evaluation.json").exists()


def test_a_run_without_a_checkpoint_and_a_split_without_rows_are_refused(config: Path, tmp_path: Path) -> None:
    spec = load(RunSpec, changed(config, lambda value: value["run"].pop("average"), tmp_path))
    shutil.rmtree(spec.run_folder)
    with pytest.raises(ArtifactMissing, match="has no checkpoint, so there is no lens to judge: train first"):
        evaluate(spec)


def test_too_few_rows_are_refused(specify: Specify, tmp_path: Path) -> None:
    shares = {"train": 0.84, "val": 0.08, "test": 0.08}
    value = specify(tmp_path / "data", shares=shares, positions_per_document=1).model_dump(mode="json")
    value |= {"lens": {"length": 5}, "run": {"phases": [{"objective": "warm_start", "steps": 1}]}}
    (tmp_path / "config.json").write_text(json.dumps(value))
    for stage in ("tokens", "dump", "train"):
        assert main([stage, str(tmp_path / "config.json")]) == 0
    with pytest.raises(SpecError, match=r"the split val has \d+ rows of \d+ documents, and at least 16"):
        evaluate(parse(RunSpec, value))


def test_labels_of_a_file_go_by_document_and_row_and_those_of_others_are_refused(
    config: Path, spec: RunSpec, tmp_path: Path
) -> None:
    from lens_training.evaluate.labels import of_rows, read_labels
    from lens_training.tokens import TokenStore

    store = TokenStore(spec.tokens)

    def read_file(*lines: Any) -> Any:
        (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, lines)))
        wanted = spec.evaluation.model_copy(update={"label_file": str(tmp_path / "labels.jsonl"), "labels": ()})
        return read_labels(spec.model_copy(update={"evaluation": wanted}), store)

    labels = read_file({"document": 3, "tone": "sad"}, {"document": 3, "position": 9, "tone": "glad"})
    assert of_rows(labels["tone"], [3, 3, 4], [8, 9, 9]) == ["sad", "glad", None]
    for line, says in (
        ({"tone": "sad"}, "has no document"),
        ({"document": 120, "tone": "sad"}, "the corpus has 0 to 119"),
        ({"document": 1, "tone": 0.5}, "a label is a word"),
        ({"document": 1, "position": "x", "tone": "sad"}, "position 'x'"),
        ([1], "write one object per line"),
    ):
        with pytest.raises(SpecError, match=says):
            read_file(line)
    corpus = read_labels(spec, store)
    assert len(corpus["place"]) == len(store)
    ids = store.document(7)
    text = build(spec).tokenizer.decode(ids[1:])
    line = (Path(spec.corpus.path)).read_text().splitlines()[7]
    assert json.loads(line)["text"] == text
    assert corpus["place"][(7, None)] == json.loads(line)["place"]
    short = tmp_path / "short.jsonl"
    short.write_text("\n".join(Path(spec.corpus.path).read_text().splitlines()[:50]))
    other = spec.model_copy(update={"corpus": spec.corpus.model_copy(update={"path": str(short)})})
    with pytest.raises(SpecError, match=r"has 50 texts, and the tokens .* are of 120 documents"):
        read_labels(other, store)


class Page(HTMLParser):
    """Whether every tag is closed, and what a page would load or run."""

    VOID = frozenset({"meta", "line", "polyline", "polygon", "circle", "rect", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.loads: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in {"src", "href", "srcset"} or name[:2] == "on"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> does not close what is open: {self.open[-3:]}"


def test_the_report_is_one_page_that_loads_and_runs_nothing(spec: RunSpec, found: Evaluation) -> None:
    text = (spec.run_folder / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert not page.loads
    assert not {"script", "link", "iframe", "img"} & set(page.seen)
    assert "http-equiv" in text
    assert "http://" not in text
    assert "https://" not in text
    assert page.seen.count("svg") >= 3
    for line in found.lines:
        assert line.title.replace("'", "&#x27;") in text
    assert "by at most" not in text
    assert "self-test passed" in text
    for result in found.probes:
        assert f"{result.label}<small>" in text


def test_the_bundle_goes_with_the_figures_and_the_gate_stands_before_the_registry(
    config: Path, tmp_path: Path, capsys: Any
) -> None:
    from wonder.lens.bundle import load_lens
    from wonder.lens.registry import LensRegistry

    registry = str(tmp_path / "registry")
    path = changed(config, lambda value: value.update(register_as={"registry": registry, "name": "tiny"}), tmp_path)
    assert main(["register", str(path)]) == 3
    assert "export first" in capsys.readouterr().err
    assert main(["export", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    spec = load(RunSpec, path)
    measured = read_evaluation(spec.run_folder)
    assert measured is not None
    bundle = spec.run_folder / "bundle"
    files = {file: file.stat().st_mtime_ns for file in bundle.rglob("*")}
    assert main(["export", str(path)]) == 0
    assert files == {file: file.stat().st_mtime_ns for file in bundle.rglob("*")}
    lens = load_lens(bundle)
    assert lens.manifest.id == told["id"]
    assert lens.manifest.metrics.fve.value == measured.greedy.fve.value
    assert lens.manifest.metrics.controls["shuffled"].low == measured.lines[5].fve.low
    assert lens.manifest.metrics.data_sha256 == measured.rows_digest
    assert main(["register", str(path)]) == 1
    assert "the lower bound must reach 0.000" in capsys.readouterr().err
    good = Figure(value=0.6, low=0.5, high=0.7)
    lines = [line.model_copy(update={"fve": good}) if line.name == "greedy" else line for line in measured.lines]
    measured = measured.model_copy(update={"lines": lines})
    (spec.run_folder / "evaluation.json").write_text(measured.model_dump_json())
    assert main(["export", str(path)]) == 0
    lens = load_lens(bundle)
    assert lens.manifest.id != told["id"]
    assert lens.manifest.metrics.fve.low == 0.5
    assert main(["register", str(path)]) == 0
    entry = LensRegistry(registry).in_force("tiny", measured.fingerprint)
    assert entry is not None
    assert entry.version == lens.manifest.digest
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"gate": {"minimum_fve": 0.999}}))
    assert main(["register", str(path)]) == 1
    assert "minimum_fve 0.999" in capsys.readouterr().err
    (spec.run_folder / "evaluation.json").unlink()
    assert main(["export", str(path)]) == 3
    assert "evaluate first" in capsys.readouterr().err
