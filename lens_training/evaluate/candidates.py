"""Which ways to a reconstruction are compared: the lens, its texts tampered with, true words, and no words at all."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lens_training.batch import Batch, Statistics
from lens_training.build import Bench, first_ids, trained_copy
from lens_training.evaluate.controls import clustered, permuted, principal, quantised, random_words, ridge, shuffled
from lens_training.evaluate.metrics import entropy_bits, text_nll
from lens_training.evaluate.readers import mean_entropy, read, read_untrained, speak, train_reader
from lens_training.evaluate.record import GREEDY, SHUFFLED
from lens_training.evaluate.table import Candidate
from lens_training.evaluate.weights import LensWeights, warm_start
from lens_training.run_spec import EvaluationSpec
from wonder.lens.encoder import Encoder

# Shape suffixes: N rows, T tokens, D d_model.

RIDGES = (1, 2, 4, 8)
PRINCIPALS = (8, 16, 32, 64)
CLUSTERS = (4, 8)
DRAWN_SEED = 7_919
"""Of drawn texts; far from the seeds of training steps."""


@dataclass(frozen=True)
class Spoken:
    """The lens's own texts on the measured rows, and what is known of them."""

    greedy_NT: Tensor
    drawn_NT: Tensor
    tail_NT: Tensor
    random_NT: Tensor
    predicted_ND: Tensor
    """From the greedy texts."""
    entropy_nats: float
    bits_most: float
    bits_least: float


def speak_all(bench: Bench, batch: Batch, seed: int) -> Spoken:
    """Let the lens speak, with the weights it has now."""
    system, length = bench.system, bench.system.length
    greedy_NT = speak(system.decoder, batch.activation_BD, length)
    drawn_NT = speak(system.decoder, batch.activation_BD, length, DRAWN_SEED + seed)
    forbidden = system.decoder.bias_V.nonzero()[:, 0].cpu()  # type: ignore[operator]
    by_place = sum(entropy_bits(greedy_NT[:, at : at + 1]) for at in range(length))
    nats = float(text_nll(system.target, greedy_NT, system.neutral).double().mean()) * length
    return Spoken(
        greedy_NT,
        drawn_NT,
        batch.tail(length),
        random_words(greedy_NT, system.target.vocabulary, forbidden, seed),
        read(system.encoder, greedy_NT),
        mean_entropy(system.decoder, batch.activation_BD, drawn_NT),
        min(by_place, nats / float(torch.log(torch.tensor(2.0)))),
        entropy_bits(greedy_NT),
    )


def own(bench: Bench, spoken: Spoken) -> Iterator[Candidate]:
    """The lens itself."""
    system = bench.system
    yield Candidate(GREEDY, "lens, likeliest text", "lens", [spoken.predicted_ND], texts=spoken.greedy_NT)
    yield Candidate(
        "drawn", "lens, drawn text", "lens", [read(system.encoder, spoken.drawn_NT)], texts=spoken.drawn_NT,
        note="One text per activation, drawn at temperature 1.",
    )  # fmt: skip


def other_weights(bench: Bench, batch: Batch, spec: EvaluationSpec, newest: LensWeights) -> Iterator[Candidate]:
    """The lens with its averaged weights, or its newest ones, and as it was after the warm start.

    The weights that stand for the lens are put back.
    """
    system, length = bench.system, bench.system.length
    if newest.average:
        newest.put(system, "average" if spec.weights == "newest" else "newest")
        ids_NT = speak(system.decoder, batch.activation_BD, length)
        title = "averaged weights" if spec.weights == "newest" else "newest weights"
        yield Candidate(
            "other_weights", f"lens, {title}", "lens", [read(system.encoder, ids_NT)], texts=ids_NT,
            note="The likeliest text with the other weights that the checkpoint keeps.",
        )  # fmt: skip
    early = warm_start(bench.spec)
    if early is not None:
        early.put(system, "newest")
        ids_NT = speak(system.decoder, batch.activation_BD, length)
        yield Candidate(
            "warm_start", "lens, after the warm start", "lens", [read(system.encoder, ids_NT)], texts=ids_NT,
            note=f"Decoder and encoder of step {early.step}, before anything rewarded a good reconstruction.",
        )  # fmt: skip
        if spec.control_steps:
            trained = _trained(bench, spec, on_tails=False)
            yield Candidate(
                "encoder_only", "encoder trained, decoder not", "lens", [read(trained, ids_NT)], texts=ids_NT,
                note=f"The decoder as it was after the warm start; a fresh encoder trained for {spec.control_steps:,} "
                "steps on its drawn texts: what training the decoder further has added is the rest.",
            )  # fmt: skip
    newest.put(system, spec.weights)


def tampered(bench: Bench, spoken: Spoken, spec: EvaluationSpec) -> Iterator[Candidate]:
    """Texts that are not the row's own, read by the lens's encoder."""
    encoder = bench.system.encoder
    moved_NT = shuffled(spoken.greedy_NT, spec.seed)
    yield Candidate(
        SHUFFLED, "shuffled texts", "other_texts", [read(encoder, moved_NT)], texts=moved_NT, says_texts=False,
        note="Each row reads another row's text. An encoder that gives the mean of what a text may stand for comes to "
        "minus the lens's own figure.",
    )  # fmt: skip
    orders = [permuted(spoken.greedy_NT, spec.seed + at) for at in range(spec.permutations)]
    yield Candidate(
        "permuted", "words in another order", "other_texts", [read(encoder, ids_NT) for ids_NT in orders],
        texts=orders[0], says_texts=False,
        note=f"Mean over {spec.permutations} orders of the words of each text.",
    )  # fmt: skip
    yield Candidate(
        "random_words", "random words", "other_texts", [read(encoder, spoken.random_NT)], texts=spoken.random_NT,
        note="Uniform tokens that the decoder may speak.",
    )  # fmt: skip


def quoted(bench: Bench, batch: Batch, fit: Batch, spoken: Spoken, spec: EvaluationSpec) -> Iterator[Candidate]:
    """The words that were really there: what plain quotation is worth."""
    system, statistics = bench.system, bench.statistics
    length, left = system.length, first_ids(bench.tokenizer)
    yield Candidate(
        "true_tail", "true words, lens's encoder", "true_words", [read(system.encoder, spoken.tail_NT)],
        texts=spoken.tail_NT, note=f"The last {length} tokens before the activation, itself included.",
    )  # fmt: skip
    yield Candidate(
        "true_tail_untrained", "true words, untrained encoder", "true_words",
        [read_untrained(system.target, spoken.tail_NT, left)], texts=spoken.tail_NT, says_texts=False,
        note="The target's own state after those words alone.",
    )  # fmt: skip
    if spec.control_steps:
        trained = _trained(bench, spec, on_tails=True)
        yield Candidate(
            "true_tail_trained", "true words, encoder of their own", "true_words", [read(trained, spoken.tail_NT)],
            texts=spoken.tail_NT, says_texts=False,
            note=f"An encoder trained for {spec.control_steps:,} steps on true words.",
        )  # fmt: skip
    yield Candidate(
        "current_token", "current token alone, lens's encoder", "true_words",
        [read(system.encoder, spoken.tail_NT[:, -1:])],
        note="A text of one token: the one at the position.",
    )  # fmt: skip
    fitted = f"Least squares from one-hot tokens, penalty 3, on {len(fit):,} training rows."
    for words in RIDGES:
        if words <= _reach(bench):
            title = "current token" if words == 1 else f"last {words} words"
            yield Candidate(
                f"ridge_{words}", f"ridge on the {title}", "true_words",
                [ridge(fit, batch, statistics, words=words, vocabulary=system.target.vocabulary)],
                note=fitted if words == RIDGES[0] else "",
            )  # fmt: skip


def wordless(batch: Batch, fit: Batch, statistics: Statistics, spoken: Spoken) -> Iterator[Candidate]:
    """Bottlenecks that need no words, some with as many bits as a text can hold."""
    mean_ND = statistics.mean_D.cpu().expand_as(batch.activation_BD)
    yield Candidate("mean", "mean activation", "no_text", [mean_ND], note="Of the training rows.", bits=0.0)
    bits = max(1, round(spoken.bits_most))
    what = "as many bits as a greedy text holds at most"
    yield Candidate(
        "quantised", f"principal directions, {bits} bits", "no_text", [quantised(fit, batch, statistics, bits)],
        note=f"Linear, with {what}, each put where it helps most.", bits=bits,
    )  # fmt: skip
    yield Candidate(
        "clustered", f"k-means in rounds, {bits} bits", "no_text", [clustered(fit, batch, bits)],
        note=f"Residual vector quantisation with {what}.", bits=bits,
    )  # fmt: skip
    for few in CLUSTERS:
        yield Candidate(
            f"clustered_{few}", f"k-means, {few} bits", "no_text", [clustered(fit, batch, few)],
            note=f"The nearest of {2**few} centres.", bits=few,
        )  # fmt: skip
    held = "Without rounding: how many dimensions the activations have."
    for dimensions in PRINCIPALS:
        if dimensions < batch.activation_BD.shape[1]:
            yield Candidate(
                f"principal_{dimensions}", f"{dimensions} principal directions", "no_text",
                [principal(fit, batch, statistics, dimensions)],
                note=held if dimensions == PRINCIPALS[0] else "",
            )  # fmt: skip


def _trained(bench: Bench, spec: EvaluationSpec, *, on_tails: bool) -> Encoder:
    """An encoder trained from the start on true words, or on what the decoder says now."""
    assert bench.spec.run is not None
    system, phase = bench.system, bench.spec.run.phases[-1]
    place = bench.statistics.mean_D.device
    model = trained_copy(system.target.model)
    encoder = Encoder(model, bench.spec.target.layer, left=first_ids(bench.tokenizer)).to(place)

    def said(step: int, activation_BD: Tensor, tail_BT: Tensor) -> Tensor:
        if on_tails:
            return tail_BT
        return system.decoder.rollout(activation_BD, system.length, seed=DRAWN_SEED + step).ids_BT

    return train_reader(
        encoder, said, bench.rows("train", check=False), bench.statistics.variance, steps=spec.control_steps,
        batch=phase.batch * (phase.group if phase.objective == "grpo" else 1), length=system.length, seed=spec.seed,
    )  # fmt: skip


def _reach(bench: Bench) -> int:
    """Words that every row has before its position and with it."""
    return bench.spec.dump.minimum_position + 1
