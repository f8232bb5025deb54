"""The stories and their target as files: a corpus of JSON lines, and a model folder with its tokenizer."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lens_training.stories.target import BOS, PAD, UNKNOWN
from lens_training.stories.world import Story, vocabulary


def tokenizer() -> PreTrainedTokenizerFast:
    """Every word is one token, as in `Words`, and every text begins with the first token."""
    words = vocabulary()
    core = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token=words[UNKNOWN]))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single=f"{words[BOS]} $A", pair=f"{words[BOS]} $A $B", special_tokens=[(words[BOS], BOS)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, bos_token=words[BOS], pad_token=words[PAD], unk_token=words[UNKNOWN]
    )


def save_target(model: LlamaForCausalLM, folder: Path) -> None:
    """A folder that loads like any model."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def write_stories(found: Iterable[Story], path: Path) -> None:
    """One line of JSON per story: its text, and what it is about."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for story in found:
            file.write(json.dumps({"text": " ".join(story.words), **story.about}) + "\n")
