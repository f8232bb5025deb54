"""Shapes of models that are often asked about, as their makers published them, so that a plan needs no download."""

from typing import Any, Final

_LLAMA: Final[dict[str, Any]] = {"model_type": "llama", "dtype": "bfloat16", "tie_word_embeddings": False}

PUBLISHED: Final[dict[str, dict[str, Any]]] = {
    "meta-llama/Llama-2-7b-hf": {
        **_LLAMA,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
    },
    "meta-llama/Meta-Llama-3-8B": {
        **_LLAMA,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "Qwen/Qwen2.5-7B": {
        **_LLAMA,
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    },
}
