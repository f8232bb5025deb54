"""Whether what an activation is about survives its text: linear probes, fitted on true activations, read elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lens_training.evaluate.metrics import Draws
from lens_training.evaluate.record import Figure, ProbeResult, Reading
from wonder.errors import SpecError

# Shape suffixes: N rows, F features, C classes, R draws.

PENALTIES: Final = (1e-4, 1e-3, 1e-2, 1e-1)
"""Of the squared weights, from which the one that does best on held-out training documents is taken."""
AUROC_DRAWS: Final = 200
MOST_CLASSES: Final = 100
FEWEST_ROWS: Final = 16
MOST_WORDS: Final = 4096


@dataclass(frozen=True)
class Features:
    """Something that a label is read from."""

    name: str
    title: str
    train_NF: Tensor | None
    """What a probe of its own is fitted on; None: it is read by the probe of the activation."""
    test_NF: Tensor


def probe(
    label: str,
    train_label: Sequence[str | None],
    train_document_N: Tensor,
    test_label: Sequence[str | None],
    test_document_N: Tensor,
    features: Sequence[Features],
    *,
    draws: int,
    seed: int,
) -> ProbeResult:
    """Fit on the training rows that have a label, read on the held-out ones that have.

    Args:
        label: Its name.
        train_label: Of each training row.
        train_document_N: Its document.
        test_label: Of each measured row.
        test_document_N: Its document.
        features: The first is the activation; its probe reads all that have no training rows of their own.
        draws: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        SpecError: The labels are of other rows, or too few, or all the same, or too many classes.
    """
    train_at = torch.tensor([at for at, value in enumerate(train_label) if value is not None], dtype=torch.long)
    classes = sorted({value for value in train_label if value is not None})
    number = {value: at for at, value in enumerate(classes)}
    test_at = torch.tensor([at for at, value in enumerate(test_label) if value in number], dtype=torch.long)
    if min(len(train_at), len(test_at)) < FEWEST_ROWS:
        raise SpecError(
            f"label {label!r} is known for {len(train_at)} training rows and {len(test_at)} measured ones, and at "
            f"least {FEWEST_ROWS} of each are needed: give labels of the documents of this corpus"
        )
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise SpecError(f"label {label!r} has {len(classes)} values: a probe needs 2 to {MOST_CLASSES}")
    train_N = torch.tensor([number[str(train_label[at])] for at in train_at])
    test_N = torch.tensor([number[str(test_label[at])] for at in test_at])
    held = Draws(test_document_N[test_at], draws, seed)
    fitted: _Probe | None = None
    readings = []
    for one in features:
        if one.train_NF is not None:
            own = _Probe.fit(one.train_NF[train_at], train_N, train_document_N[train_at], len(classes))
            fitted = fitted or own
        else:
            assert fitted is not None
            own = fitted
        score_NC = own.read(one.test_NF[test_at])
        right_N = (score_NC.argmax(-1) == test_N).double()
        auroc = _auroc(score_NC, test_N, held)
        readings.append(Reading(name=one.name, title=one.title, accuracy=held.mean(right_N), auroc=auroc))
    commonest = int(torch.bincount(train_N).argmax())
    return ProbeResult(
        label=label,
        classes=len(classes),
        train_rows=len(train_at),
        rows=len(test_at),
        chance=float((test_N == commonest).double().mean()),
        readings=readings,
    )


def bags_of_words(train_NT: Tensor, test_NT: Tensor) -> tuple[Tensor, Tensor]:
    """How often each token stands in each text, (N, F) twice; F are the commonest tokens of the training texts."""
    token_F, count_F = torch.unique(train_NT, return_counts=True)
    kept_F = token_F[count_F.argsort(descending=True, stable=True)[:MOST_WORDS]].sort().values

    def bag(ids_NT: Tensor) -> Tensor:
        place_NT = torch.searchsorted(kept_F, ids_NT).clamp_max(len(kept_F) - 1)
        known_NT = (kept_F[place_NT] == ids_NT).float()
        return torch.zeros(len(ids_NT), len(kept_F)).scatter_add_(1, place_NT, known_NT)

    return bag(train_NT), bag(test_NT)


@dataclass(frozen=True)
class _Probe:
    mean_F: Tensor
    scale_F: Tensor
    weight_FC: Tensor
    bias_C: Tensor

    @classmethod
    def fit(cls, value_NF: Tensor, class_N: Tensor, document_N: Tensor, classes: int) -> "_Probe":
        """Multinomial regression; the penalty is chosen on a fifth of the documents, then all rows are used."""
        held_N = document_N % 5 == 0
        if not 0 < int(held_N.sum()) < len(held_N):
            held_N = torch.arange(len(document_N)) % 5 == 0
        best, least = PENALTIES[0], float("inf")
        for penalty in PENALTIES:
            found = cls._fit(value_NF[~held_N], class_N[~held_N], classes, penalty)
            loss = float(cross_entropy(found.read(value_NF[held_N]), class_N[held_N]))
            if loss < least:
                best, least = penalty, loss
        return cls._fit(value_NF, class_N, classes, best)

    @classmethod
    def _fit(cls, value_NF: Tensor, class_N: Tensor, classes: int, penalty: float) -> "_Probe":
        mean_F = value_NF.mean(0)
        scale_F = value_NF.std(0, correction=0).clamp_min(1e-6)
        scaled_NF = (value_NF - mean_F) / scale_F
        weight_FC = torch.zeros(value_NF.shape[1], classes, requires_grad=True)
        bias_C = torch.zeros(classes, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight_FC, bias_C], max_iter=60, history_size=10, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            found = cross_entropy(scaled_NF @ weight_FC + bias_C, class_N) + penalty * weight_FC.square().sum()
            found.backward()  # type: ignore[no-untyped-call]
            return found

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        return cls(mean_F, scale_F, weight_FC.detach(), bias_C.detach())

    def read(self, value_NF: Tensor) -> Tensor:
        return (value_NF - self.mean_F) / self.scale_F @ self.weight_FC + self.bias_C


def _auroc(score_NC: Tensor, class_N: Tensor, draws: Draws) -> Figure | None:
    """Area under the ROC curve, mean over classes, each against the rest; with an interval over documents."""
    count = score_NC.shape[1]
    if int(torch.bincount(class_N, minlength=count).min()) == 0:
        return None
    weight_RN = torch.cat([torch.ones(1, len(class_N), dtype=torch.float64), draws.row_weights(AUROC_DRAWS)])
    share_NC = score_NC.softmax(-1)
    columns = [1] if count == 2 else range(count)
    areas_RC = torch.stack([_area(share_NC[:, at], class_N == at, weight_RN) for at in columns], 1)
    value_R = areas_RC.nanmean(1)
    low, high = value_R[1:].nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Figure(value=float(value_R[0]), low=low, high=high)


def _area(score_N: Tensor, positive_N: Tensor, weight_RN: Tensor) -> Tensor:
    """Weighted share of pairs in the right order, ties counting half, (R,)."""
    _, rank_N = torch.unique(score_N, return_inverse=True)
    groups = int(rank_N.max()) + 1
    nothing_RG = torch.zeros(len(weight_RN), groups, dtype=torch.float64)
    yes_RG = nothing_RG.index_add(1, rank_N, weight_RN * positive_N)
    no_RG = nothing_RG.index_add(1, rank_N, weight_RN * ~positive_N)
    below_RG = no_RG.cumsum(1) - no_RG / 2
    area_R: Tensor = (yes_RG * below_RG).sum(1) / (yes_RG.sum(1) * no_RG.sum(1))
    return area_R
