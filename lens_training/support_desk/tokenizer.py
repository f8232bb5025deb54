"""A byte-level BPE tokenizer for the support-desk world: any text round-trips, and each answer value is one token."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from wonder.embedded.world import TEAMS, URGENCIES, answer, prompt, stream

BOS: Final = "<s>"
EOS: Final = "</s>"
PAD: Final = "<pad>"


def train_tokenizer(*, vocabulary: int, seed: int, tickets: int = 40_000) -> PreTrainedTokenizerFast:
    """Train the tokenizer on tickets of the training split; it puts BOS before every text, and no EOS after it.

    Raises:
        ValueError: A team or an urgency is more than one token, so the vocabulary is too small.
    """
    core = Tokenizer(models.BPE())
    # Single digits: an order number is then spelled, not looked up, and the vocabulary is left to words.
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_texts(seed, tickets), trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    for value in (*TEAMS, *URGENCIES):
        value_id(tokenizer, value)
    return tokenizer


def value_id(tokenizer: PreTrainedTokenizerFast, value: str) -> int:
    """Return the token of an answer value.

    Raises:
        ValueError: The value is more than one token.
    """
    ids = tokenizer.encode(value, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"{value!r} is {len(ids)} tokens, wanted one: train with a larger vocabulary")
    return int(ids[0])


def _texts(seed: int, tickets: int) -> Iterator[str]:
    for ticket in islice(stream(seed=seed, split="train"), tickets):
        yield prompt(ticket.text) + answer(ticket)
