"""The pages: what they warn of, that no text can break out of them, and runs side by side."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from lens_training.__main__ import main
from lens_training.evaluate.caveats import caveats
from lens_training.evaluate.charts import Axis, Curve, chart, thinned
from lens_training.evaluate.compare import Judged, comparison, differences, paired
from lens_training.evaluate.metrics import Draws
from lens_training.evaluate.record import (
    BestOf,
    Evaluation,
    Group,
    NextToken,
    ProbeResult,
    Reading,
    RowErrors,
    Sample,
    SelfTest,
    Slice,
)
from lens_training.evaluate.report import report
from lens_training.evaluate.samples import words
from lens_training.train.progress import ProgressRecord
from tests.unit.lens.conftest import Specify
from tests.unit.lens.test_evaluate import Page
from tests.unit.lens.test_gate import evaluation, figure, line

HOSTILE = "</div><script>alert('x')</script><img src=x onerror=\"y\"> & \u202eabc"
BROKEN = SelfTest(kl_mean_nats=1, kl_max_nats=2, tolerance_nats=1e-5, kl_stored_nats=2)


def full(**more: Any) -> Evaluation:
    """An evaluation in which every text is somebody's attempt at the page."""
    groups: list[Group] = ["lens", "other_texts", "true_words", "no_text"]
    names = ["greedy", "shuffled", "ridge_8", "clustered"]
    lines = [
        line(name, value, 0.9, note=HOSTILE, nll_nats=figure(6.0), distinct_share=0.5, bits=40.0, ahead=figure(0.2))
        .model_copy(update={"title": HOSTILE, "group": group})
        for name, group, value in zip(names, groups, (0.8, -0.8, 0.6, 0.7), strict=True)
    ]  # fmt: skip
    token = NextToken(token=HOSTILE, probability=0.5)
    sample = Sample(
        kind="worst", document=1, position=2, context=HOSTILE, current=f" {HOSTILE}", text=HOSTILE, drawn=HOSTILE,
        error=1.5, kl_nats=2.0, own_next=[token], replaced_next=[token],
    )  # fmt: skip
    reading = Reading(name="activation", title=HOSTILE, accuracy=figure(0.7), auroc=figure(0.8))
    kept = reading.model_copy(update={"name": "reconstruction", "accuracy": figure(0.45)})
    probe = ProbeResult(label=HOSTILE, classes=3, train_rows=99, rows=50, chance=0.3, readings=[reading, kept])
    values: dict[str, Any] = {
        "run": HOSTILE, "model": HOSTILE, "lines": lines, "samples": [sample], "probes": [probe],
        "slices": {HOSTILE: [Slice(name=HOSTILE, rows=3, fve=figure(0.5), error_share=0.2)]},
        "best_of": [BestOf(k=k, fve=figure(0.8)) for k in (1, 2, 4)], "settings": {HOSTILE: HOSTILE},
    }  # fmt: skip
    found = evaluation(**(values | more))
    return found.model_copy(update={"warnings": caveats(found)})


def records(*losses: float) -> list[ProgressRecord]:
    return [
        ProgressRecord(step=at, time=0, phase="grpo" if at > 20 else "warm_start", loss=loss, metrics={"error": loss})
        for at, loss in enumerate(losses, 1)
    ]


def test_no_text_breaks_out_of_the_page() -> None:
    for text in (
        report(full(), records(*[1.0] * 40)),
        comparison([Judged(HOSTILE, full(), records(1.0, 0.5)), Judged("b", full(settings={HOSTILE: "c"}), [])]),
    ):
        page = Page(text)
        assert not page.open
        assert not page.loads
        assert not {"script", "img"} & set(page.seen)
        assert "<script" not in text
        assert "&lt;script&gt;" in text


def test_a_failed_self_test_stands_on_top() -> None:
    found = full(self_test=BROKEN)
    text = report(found)
    assert "No KL here can be trusted" in found.warnings[0]
    assert text.index("No KL here can be trusted") < text.index("variance explained")
    assert "self-test passed" not in text
    assert "self-test passed" in report(full())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rows": 400}, "400 rows were measured. Claims about the fraction of variance explained want 4,096"),
        ({"documents": 30}, "The rows come from 30 documents"),
        ({"step": 5}, "Training has done 5 of 12 steps"),
        ({"lines": [line("greedy", 0.8), line("shuffled", -0.3)]}, "hardly uses the text"),
        ({"lines": [line("greedy", 0.8), line("shuffled", -1.4)]}, "further from the mean than its text warrants"),
        ({"lines": [line("greedy", 0.01)]}, "not shown to explain more than the mean activation"),
        (
            {"lines": [line("greedy", 0.8), line("ridge_8", 0.79, ahead=figure(0.01))]},
            "The lens is not ahead of least squares on the true words: 0.800 against 0.790, a difference of +0.010 "
            "[-0.010, +0.030].",
        ),
        ({"lines": [line("greedy", 0.8, nll_nats=figure(8.0))]}, "a code that the encoder knows, not language"),
        ({"lines": [line("greedy", 0.8, distinct_share=0.2)]}, "Only 20% of 512 texts are different from each other"),
    ],
)
def test_what_a_reader_has_to_know_is_said(change: dict[str, Any], says: str) -> None:
    assert any(says in sentence for sentence in caveats(evaluation(**change)))
    assert caveats(evaluation(lines=[line("greedy", 0.8, distinct_share=0.9), line("shuffled", -0.79)])) == []


def test_the_sentence_on_top_names_the_best_reading_of_the_true_words() -> None:
    text = report(full())
    assert "8 tokens of text give back 80.0 % of the variance" in text
    assert "0.200 more variance than the best reading of the true words" in text
    assert "the reconstruction keeps about 37%" in text or "the reconstruction keeps about 38%" in text


def test_curves_are_thinned_and_the_last_report_of_a_step_counts() -> None:
    points = [(float(at), 1.0) for at in range(4000)]
    assert len(thinned(points)) <= 400
    assert sum(x for x, _ in thinned(points)) / len(thinned(points)) == pytest.approx(1999.5)
    assert thinned([]) == []
    assert chart("t", [Curve("a", [])], Axis(), Axis()) == ""
    drawn = chart("t", [Curve("a", [(1.0, 2.0)])], Axis(log=True), Axis(log=True))
    assert drawn.count("<circle") == 1
    text = report(full(), [*records(*[1.0] * 30), *records(*[9.0] * 30)])
    assert "How it learned" in text
    assert text.count("<line class=phase") == 2


def test_only_settings_that_decide_a_figure_and_differ_are_told_apart() -> None:
    runs = [
        full(settings={"lens.length": "8", "folder": "a", "launch.kind": "local", "run.seed": "1"}),
        full(settings={"lens.length": "4", "folder": "b", "launch.kind": "slurm", "run.seed": "1", "new": "x"}),
    ]
    assert differences(runs) == {"lens.length": ["8", "4"], "new": ["–", "x"]}
    same = comparison([Judged("a", runs[0], []), Judged("b", runs[0], [])])
    assert "In no setting that decides a figure" in same
    assert "measured on different activations" not in same
    other = comparison([Judged("a", runs[0], []), Judged("b", full(rows_digest="0" * 64), [])])
    assert "measured on different activations" in other


def test_two_lenses_are_compared_on_the_same_draws_of_documents() -> None:
    generator = torch.Generator().manual_seed(0)
    spread, document = torch.rand(200, generator=generator) + 1, torch.arange(200) // 4
    mine = torch.rand(200, generator=generator)
    theirs = mine + 0.2 * torch.rand(200, generator=generator)

    def rows(error: torch.Tensor, digest: str = "a") -> RowErrors:
        kl = [0.0] * 200
        return RowErrors(
            rows_digest=digest, document=document.tolist(), error=error.tolist(), spread=spread.tolist(), kl=kl
        )

    found = paired(rows(mine), rows(theirs))
    expected = Draws(document, 4000).ratio(theirs - mine, spread)
    assert found is not None
    assert found.value == pytest.approx(expected.value, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.003)
    assert paired(rows(mine), rows(theirs, "b")) is None
    assert paired(rows(mine), None) is None


def test_runs_are_put_side_by_side_from_the_command_line(specify: Specify, tmp_path: Path, capsys: Any) -> None:
    paths = []
    for name, fve in (("one", 0.8), ("two", 0.7)):
        spec = specify(tmp_path / name).model_dump(mode="json") | {"name": name}
        paths.append(str(tmp_path / f"{name}.json"))
        Path(paths[-1]).write_text(json.dumps(spec))
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "evaluation.json").write_text(evaluation(fve).model_dump_json())
    assert main(["compare", *paths, "--out", str(tmp_path / "compare.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["one"] == "0.800 [0.780, 0.820]"
    assert "2 lenses side by side" in (tmp_path / "compare.html").read_text()
    assert main(["compare", paths[0], "--out", str(tmp_path / "no.html")]) == 2
    (tmp_path / "two" / "run" / "evaluation.json").unlink()
    assert main(["compare", *paths, "--out", str(tmp_path / "no.html")]) == 3
    assert not (tmp_path / "no.html").exists()


def test_what_steers_a_display_is_made_visible() -> None:
    word = "a\nb\u202ec\u0007d"
    core = Tokenizer(WordLevel({word: 0, "<unk>": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    assert words(tokenizer, [0]) == "a↵b�c�d"


def test_pages_need_no_array_library() -> None:
    code = "import lens_training.evaluate.compare, lens_training.evaluate.report, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "transformers", "temporalio"} & {name.split(".")[0] for name in done.stdout.split()}
