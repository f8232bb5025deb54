"""The random models that the engine is measured on, and a tokenizer in which one word is one token."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

VOCABULARY = 32000


def llama(layers: int = 8, width: int = 512, vocabulary: int = VOCABULARY) -> Any:
    """A Llama with random weights; 8 × 512 is the base model of the figures."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=int(width * 2.75) // 16 * 16,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.pad_token_id = 0
    return model


def tokenizer(vocabulary: int = VOCABULARY) -> Any:
    """Words `w0`, `w1` …, one token each, nothing added."""
    inner = Tokenizer(models.WordLevel({f"w{at}": at for at in range(vocabulary)}, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False)


def prompt_ids(length: int, seed: int = 0, vocabulary: int = VOCABULARY) -> list[int]:
    """Random tokens."""
    return random.Random(1000 * seed + length).choices(range(1, vocabulary), k=length)


def text_of(ids: Sequence[int]) -> str:
    """The prompt that is tokenized to these."""
    return " ".join(f"w{token}" for token in ids)
