"""The tokenizer of FactWorld: words between spaces, each one token."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lens_training.fact_world.words import BOS, EOS, PAD, UNKNOWN, WORDS

_SPACE = "▁"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer; it puts BOS before every text, and no EOS after it.

    A token carries the space before it, so that the texts of tokens, joined, are the text.
    """
    special = (PAD, BOS, EOS, UNKNOWN)
    ids = {word if word in special else _SPACE + word: place for place, word in enumerate(WORDS)}
    core = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    core.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, ids[BOS])]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )
