"""Probes on reconstructions: a planted label is found where it is and not where it is not, scored as others score."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from lens_training.evaluate.metrics import Draws
from lens_training.evaluate.probes import Features, _auroc, bags_of_words, probe
from lens_training.evaluate.record import ProbeResult
from wonder.errors import SpecError


def planted(share: float, rows: int = 600, classes: int = 3) -> tuple[torch.Tensor, list[str | None], torch.Tensor]:
    """Vectors of a hidden class, which a share of the rows show."""
    generator = torch.Generator().manual_seed(int(share * 100) + rows)
    label = torch.randint(0, classes, (rows,), generator=generator)
    shown = torch.rand(rows, generator=generator) < share
    value = torch.randn(rows, 12, generator=generator)
    value[torch.arange(rows), label] += 6.0 * shown
    return value, [f"kind {at}" for at in label.tolist()], torch.arange(rows) // 3


def test_a_planted_label_is_read_from_the_activation_and_not_from_what_lost_it() -> None:
    train, train_label, train_document = planted(1.0)
    test, label, document = planted(1.0, rows=300)
    lost = test.clone()
    lost[:, :3] = 0
    found = probe(
        "kind", train_label, train_document, label, document,
        [
            Features("activation", "A", train, test),
            Features("reconstruction", "same", None, test.clone()),
            Features("lost", "without it", None, lost),
            Features("own", "a probe of its own", train[:, 3:], test[:, 3:]),
        ],
        draws=200, seed=0,
    )  # fmt: skip
    readings = {one.name: one for one in found.readings}
    assert (found.classes, found.train_rows, found.rows) == (3, 600, 300)
    assert readings["activation"].accuracy.value > 0.97
    assert readings["reconstruction"] == readings["activation"].model_copy(
        update={"name": "reconstruction", "title": "same"}
    )
    for name in ("lost", "own"):
        assert readings[name].accuracy.low < 0.45
        auroc = readings[name].auroc
        assert auroc is not None
        assert auroc.low < 0.5 < auroc.high + 0.05
    assert found.chance == pytest.approx(1 / 3, abs=0.08)


def test_the_area_under_the_curve_is_sklearns_ties_and_all() -> None:
    generator = torch.Generator().manual_seed(0)
    for classes in (2, 4):
        label = torch.randint(0, classes, (200,), generator=generator)
        score = (torch.randn(200, classes, generator=generator) * 2).round() / 2
        score[torch.arange(200), label] += 0.5
        found = _auroc(score, label, Draws(torch.arange(200) // 2, 200))
        share = score.softmax(-1).double()
        each = [roc_auc_score((label == at).numpy(), share[:, at].numpy()) for at in range(classes)]
        expected = each[1] if classes == 2 else sum(each) / classes
        assert found is not None
        assert found.value == pytest.approx(expected, abs=1e-6)
        assert found.low < found.value < found.high
    assert _auroc(score, torch.zeros(200, dtype=torch.long), Draws(torch.arange(200), 100)) is None


def test_words_are_counted_and_the_rarest_left_out() -> None:
    train = torch.tensor([[5, 5, 9], [5, 7, 9]])
    test = torch.tensor([[9, 9, 3], [7, 5, 5]])
    bag, other = bags_of_words(train, test)
    assert bag.tolist() == [[2, 0, 1], [1, 1, 1]]
    assert other.tolist() == [[0, 0, 2], [2, 1, 0]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda label: [None] * len(label), "known for 600 training rows and 0 measured ones"),
        (lambda label: ["never seen"] * len(label), "and 0 measured ones"),
        (lambda label: label[:10] + [None] * (len(label) - 10), "at least 16 of each"),
    ],
)
def test_labels_of_other_rows_are_refused(change: object, says: str) -> None:
    train, train_label, train_document = planted(1.0)
    test, label, document = planted(1.0, rows=300)
    features = [Features("activation", "A", train, test)]
    with pytest.raises(SpecError, match=says):
        probe("kind", train_label, train_document, change(label), document, features, draws=100, seed=0)  # type: ignore[operator]


def test_labels_that_are_all_the_same_or_all_different_are_refused() -> None:
    train, _, train_document = planted(1.0)
    features = [Features("activation", "A", train, train)]

    def read(labels: list[str | None]) -> ProbeResult:
        return probe("kind", labels, train_document, labels, train_document, features, draws=100, seed=0)

    with pytest.raises(SpecError, match="has 1 values"):
        read(["one"] * 600)
    with pytest.raises(SpecError, match="has 600 values: a probe needs 2 to 100"):
        read([str(at) for at in range(600)])
