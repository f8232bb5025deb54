"""Measures the shipped support-desk model and its probe again, on tickets that neither training nor the card used."""

import torch

from benchmarks._results import Row, arguments, report
from lens_training.support_desk.__main__ import load_model
from lens_training.support_desk.measure import measure
from lens_training.support_desk.states import prompt_states
from lens_training.support_desk.wordings import WordingFigures, measure_wordings
from wonder.embedded import EMBEDDED, SUPPORT_DESK
from wonder.embedded.world import tickets
from wonder.probes.bundle import find_bundle, load_bundle
from wonder.probes.fingerprint import model_fingerprint
from wonder.probes.metrics import auroc

SEED = 31_337
FULL, QUICK = 10_000, 1200

_ABOUT = {
    "new templates": "clear, in templates that no split uses",
    "own words": "hand-written, never trained on",
}


def main() -> None:
    """Measure, then print the rows."""
    n = QUICK if arguments().quick else FULL
    folder = EMBEDDED[SUPPORT_DESK]
    model, tokenizer = load_model(folder)
    fresh = tickets(n, seed=SEED, split="held_out")
    figures = measure(model, tokenizer, fresh)
    probe = load_bundle(find_bundle(folder / "probes", "legal_risk"))
    probe.check_fits(model_fingerprint(model), model.config.hidden_size)
    states_ND = prompt_states(model, tokenizer, [ticket.text for ticket in fresh])[probe.manifest.hook_point]
    probability_N = probe.probability(states_ND @ probe.weight_D + probe.bias)
    risky_N = torch.tensor([ticket.legal_risk for ticket in fresh])
    fires_N = probability_N > 0.8
    new = measure_wordings(model, tokenizer, probe, seed=SEED)
    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    on = f"on {n} fresh held-out tickets"
    report(
        "embedded_model",
        [
            Row(
                "accuracy lost to the best possible answer",
                figures.bayes_accuracy - figures.accuracy,
                "",
                "<= 0.03",
                f"expected accuracy of whoever knows the posterior, minus greedy accuracy of both fields, {on}",
            ),
            Row(
                "accuracy on clear tickets",
                figures.kinds["clear"].accuracy,
                "",
                ">= 0.97",
                f"share of clear tickets with both fields right, greedy, {on}",
            ),
            Row(
                "error of a team's probability",
                figures.mean_abs_error,
                "",
                "<= 0.03",
                f"mean |model's probability - true posterior| over teams and tickets, {on}",
            ),
            Row("ECE of the confidence", figures.ece, "", "<= 0.05", f"15 bins of equal count, uncalibrated, {on}"),
            Row(
                "AUROC of the confidence",
                figures.auroc,
                "",
                ">= 0.9",
                f"confidence (product of both value probabilities) against correctness, {on}",
            ),
            Row(
                "errors caught at confidence < 0.7",
                figures.errors_caught,
                "",
                ">= 0.8",
                f"share of wrong answers whose confidence is below 0.7, {on}",
            ),
            Row(
                "answers reviewed at confidence < 0.7",
                figures.reviewed,
                "",
                "<= 0.35",
                f"share of all answers whose confidence is below 0.7, {on}",
            ),
            Row(
                "confidence on unseen products, 95 % quantile",
                figures.kinds["unseen"].confidence_quantiles["0.95"],
                "",
                "<= 0.7",
                f"tickets about made-up names that training never had, {on}",
            ),
            Row(
                "confidence on off-topic text, 75 % quantile",
                figures.kinds["off_topic"].confidence_quantiles["0.75"],
                "",
                "<= 0.7",
                f"topics that training never had, {on}",
            ),
            Row(
                "AUROC of the legal_risk probe",
                auroc(probability_N, risky_N),
                "",
                ">= 0.97",
                f"calibrated probability against the label, decoys among the negatives, {on}",
            ),
            Row(
                "precision of legal_risk > 0.8",
                risky_N[fires_N].float().mean().item(),
                "",
                ">= 0.9",
                f"share of tickets over 0.8 that carry legal risk, {on}",
            ),
            Row(
                "recall of legal_risk > 0.8",
                fires_N[risky_N].float().mean().item(),
                "",
                ">= 0.8",
                f"share of tickets with legal risk that are over 0.8, {on}",
            ),
            Row(
                "AUROC of the legal_risk probe on new wordings",
                new.reworded_auroc,
                "",
                "",
                "legal sentences and decoys in templates that no split uses; only recorded",
            ),
            *_wording_rows(new),
            Row("size of the shipped model", size_bytes / 1e6, "MB", "<= 8", "all files of its folder, probe included"),
        ],
    )


def _wording_rows(new: WordingFigures) -> list[Row]:
    rows = []
    for name, found in (("new templates", new.new_wordings), ("own words", new.own_words)):
        on = f"{found.tickets} tickets, {_ABOUT[name]}; only recorded"
        rows += [
            Row(f"accuracy of the team on {name}", found.accuracy, "", "", f"greedy, {on}"),
            Row(f"mean confidence on {name}", found.mean_confidence, "", "", on),
            Row(f"answers at confidence >= 0.7 on {name}", found.sure, "", "", on),
            Row(f"error of the team at confidence >= 0.7 on {name}", found.error_when_sure, "", "", on),
            Row(f"AUROC of the confidence on {name}", found.auroc, "", "", f"against a right team, {on}"),
        ]
    written = "hand-written, never trained on; only recorded"
    return [
        *rows,
        Row(
            "texts of no team at confidence >= 0.7",
            new.strange_sure,
            "",
            "",
            f"{new.strange} texts that belong to no team, {written}",
        ),
        Row(
            "AUROC of the legal_risk probe on own words",
            new.own_legal_auroc,
            "",
            "",
            f"{new.own_legal} legal tickets against all others, {written}",
        ),
        Row("recall of legal_risk > 0.8 on own words", new.own_legal_recall_at_080, "", "", written),
        Row(
            "legal_risk > 0.8 on own words that only sound legal",
            new.own_harmless_over_080,
            "",
            "",
            f"share of {new.own_harmless} tickets, {written}",
        ),
    ]


if __name__ == "__main__":
    main()
