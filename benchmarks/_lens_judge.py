"""What a trained lens is worth, beside what its texts would be worth without it; and what its texts truly say."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks._lens_world import LENGTH, SPECIAL, Place
from lens_training.evaluate.controls import permuted, principal, random_words, ridge, shuffled
from lens_training.evaluate.metrics import distinct_share, kl_recovered, negative_log_likelihood, reconstruction
from lens_training.evaluate.record import Figure
from lens_training.objectives.losses import entropy
from lens_training.stories.target import BOS
from lens_training.stories.world import KINDS
from lens_training.system import LensSystem

# Shape suffixes: N rows, T tokens, D d_model, V vocabulary, C classes, F features of a probe.

PIECE = 512
PROBE_ROWS = 8192
SAMPLES = 8


@dataclass(frozen=True)
class Judgement:
    """Of one lens on the held-out stories; texts are greedy unless said."""

    fve: Figure
    fve_sampled: float
    fve_shuffled: float
    fve_permuted: float
    """Mean over eight orders of each text's words."""
    fve_random: float
    fve_tail: float
    """Of the true last words, read by this lens's encoder."""
    kl_recovered: Figure
    kl_mean_nats: float
    """Of the mean activation: what `kl_recovered` is a share of."""
    norm_ratio: float
    cosine: float
    nll: float
    """Nats per word of the texts under the target, after the word that begins every story."""
    nll_tail: float
    nll_random: float
    distinct: float
    distinct_tail: float
    entropy: float
    """Mean entropy of the decoder's next word, nats."""
    said: float
    """Share of the words of a kind (names, places …) that are those of the row's story …"""
    said_chance: float
    """… and of another row's story."""
    probes: dict[str, dict[str, float]]
    """Accuracy with which a linear probe reads what the story is about, per kind."""
    samples: list[dict[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As it is written to disk."""
        return asdict(self) | {"fve": self.fve.model_dump(), "kl_recovered": self.kl_recovered.model_dump()}


@torch.no_grad()
def judge(lens: LensSystem, place: Place, *, probes: bool = True) -> Judgement:
    """Measure a lens."""
    lens.train(False)
    test, statistics, target = place.test, place.statistics, place.target

    def fve(ids_NT: Tensor) -> float:
        return reconstruction(read(lens, ids_NT), test, statistics, draws=1).fve.value

    greedy_NT, tail_NT = say(lens, test.activation_BD), test.tail(LENGTH)
    random_NT = random_words(greedy_NT, len(place.words), torch.tensor(SPECIAL))
    predicted_ND = read(lens, greedy_NT)
    found = reconstruction(predicted_ND, test, statistics)
    recovered, nats = kl_recovered(target, predicted_ND, test, statistics, size=PIECE)
    heard = [entropy(lens.decoder.token_logits(*piece)) for piece in _pieces(test.activation_BD, greedy_NT)]
    about = place.about["test"]
    return Judgement(
        fve=found.fve,
        fve_sampled=fve(say(lens, test.activation_BD, seed=1)),
        fve_shuffled=fve(shuffled(greedy_NT)),
        fve_permuted=sum(fve(permuted(greedy_NT, seed)) for seed in range(8)) / 8,
        fve_random=fve(random_NT),
        fve_tail=fve(tail_NT),
        kl_recovered=recovered,
        kl_mean_nats=nats,
        norm_ratio=found.norm_ratio,
        cosine=found.cosine,
        nll=negative_log_likelihood(target, greedy_NT, BOS),
        nll_tail=negative_log_likelihood(target, tail_NT, BOS),
        nll_random=negative_log_likelihood(target, random_NT, BOS),
        distinct=distinct_share(greedy_NT),
        distinct_tail=distinct_share(tail_NT),
        entropy=float(torch.cat(heard).mean()),
        said=truly_said(place, greedy_NT, about),
        said_chance=truly_said(place, greedy_NT, [*about[1:], about[0]]),
        probes=semantic(lens, place) if probes else {},
        samples=[_sample(place, row, greedy_NT[row]) for row in range(SAMPLES)],
    )


def baselines(place: Place) -> dict[str, float]:
    """Fractions of variance explained without any text of a lens."""
    train, test, statistics = place.train, place.test, place.statistics

    def fve(predicted_ND: Tensor) -> float:
        return reconstruction(predicted_ND, test, statistics, draws=1).fve.value

    words = len(place.words)
    found = {f"ridge_{k}": fve(ridge(train, test, statistics, words=k, vocabulary=words)) for k in (1, 2, 4, 8)}
    return found | {f"principal_{k}": fve(principal(train, test, statistics, k)) for k in (8, 16, 32)}


@torch.no_grad()
def say(lens: LensSystem, activation_ND: Tensor, seed: int | None = None) -> Tensor:
    """Texts, (N, T); greedy without a seed."""
    pieces = activation_ND.split(PIECE)
    return torch.cat([lens.decoder.rollout(piece, LENGTH, seed=seed, first=at * PIECE).ids_BT
                      for at, piece in enumerate(pieces)])  # fmt: skip


@torch.no_grad()
def read(lens: LensSystem, ids_NT: Tensor) -> Tensor:
    """What the encoder makes of texts, (N, D)."""
    return torch.cat([lens.reconstruct(piece) for piece in ids_NT.split(PIECE)])


def truly_said(place: Place, ids_NT: Tensor, about: Sequence[dict[str, str]]) -> float:
    """Of the names and things that texts mention, the share that is in the story they are about."""
    kinds = {word for words in KINDS.values() for word in words}
    right = mentioned = 0
    for ids, story in zip(ids_NT.tolist(), about, strict=True):
        own = {story[kind] for kind in KINDS}
        words = [place.words.words[at] for at in ids]
        mentioned += sum(word in kinds for word in words)
        right += sum(word in own for word in words)
    return right / max(mentioned, 1)


def semantic(lens: LensSystem, place: Place) -> dict[str, dict[str, float]]:
    """How well a linear probe reads what the story is about, from the activation, its reconstruction, and texts."""
    train = place.train.rows(torch.arange(min(PROBE_ROWS, len(place.train))))
    sides = {}
    for name, batch in (("train", train), ("test", place.test)):
        ids_NT = say(lens, batch.activation_BD)
        sides[name] = {
            "activation": batch.activation_BD,
            "reconstruction": read(lens, ids_NT),
            "text": _bag(place, ids_NT),
            "true last words": _bag(place, batch.tail(LENGTH)),
        }
    found: dict[str, dict[str, float]] = {}
    for kind, words in KINDS.items():
        labels = {
            side: torch.tensor([words.index(story[kind]) for story in place.about[side]]) for side in ("train", "test")
        }
        first_N, test_N = labels["train"][: len(train)], labels["test"]
        found[kind] = {"chance": float(one_hot(test_N).sum(0).max() / len(test_N))}
        for source in sides["train"]:
            found[kind][source] = probe(sides["train"][source], first_N, sides["test"][source], test_N)
    return found


def probe(train_NF: Tensor, label_N: Tensor, test_NF: Tensor, truth_N: Tensor, alpha: float = 1.0) -> float:
    """Accuracy on the test rows of a ridge classifier (one-hot least squares in closed form, standardised features)."""
    mean_F, scale_F = train_NF.mean(0), train_NF.std(0) + 1e-6
    x, y = ((train_NF - mean_F) / scale_F).double(), one_hot(label_N).double()
    offset_C = y.mean(0)
    weights_FC = torch.linalg.solve(x.T @ x + alpha * torch.eye(x.shape[1], dtype=x.dtype), x.T @ (y - offset_C))
    scores_NC = ((test_NF - mean_F) / scale_F).double() @ weights_FC + offset_C
    return float((scores_NC.argmax(-1) == truth_N).double().mean())


def _bag(place: Place, ids_NT: Tensor) -> Tensor:
    return one_hot(ids_NT, len(place.words)).sum(1).clamp(max=1).float()


def _pieces(activation_ND: Tensor, ids_NT: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(activation_ND.split(PIECE), ids_NT.split(PIECE), strict=True))


def _sample(place: Place, row: int, ids_T: Tensor) -> dict[str, str]:
    pos = int(place.test.pos_B[row])
    context = place.test.ids_BS[row, max(1, pos - 15) : pos + 1].tolist()
    return {"context": place.words.text(context), "text": place.words.text(ids_T.tolist())}
