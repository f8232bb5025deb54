"""Tiny random models of real architectures, and a byte-level tokenizer, made in memory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from wonder.engine.engine import TraceEngine
from wonder.trace.store import DirectoryStore

VOCABULARY = 320
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MOE = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}

FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: hf.LlamaConfig(**COMMON),
    "qwen3": lambda: hf.Qwen3Config(**COMMON, head_dim=8),
    "mistral": lambda: hf.MistralConfig(**COMMON, sliding_window=8),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=4, n_head=4, n_positions=1024, bos_token_id=1, eos_token_id=2
    ),
    "gemma": lambda: hf.GemmaConfig(**COMMON, head_dim=8),
    "phi3": lambda: hf.Phi3Config(**COMMON, sliding_window=8),
    "gemma2": lambda: hf.Gemma2Config(
        **COMMON, head_dim=8, sliding_window=8, query_pre_attn_scalar=8, attn_logit_softcapping=2.0
    ),
    "gemma3": lambda: hf.Gemma3TextConfig(**COMMON, head_dim=8, sliding_window=8),
    "qwen3_moe": lambda: hf.Qwen3MoeConfig(
        **COMMON, **MOE, head_dim=8, num_experts=6, decoder_sparse_step=1, mlp_only_layers=[1]
    ),
    "mixtral": lambda: hf.MixtralConfig(**COMMON, num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
    "llama4": lambda: hf.Llama4TextConfig(
        **COMMON,
        head_dim=8,
        intermediate_size_mlp=64,
        num_local_experts=4,
        num_experts_per_tok=1,
        interleave_moe_layer_step=2,
        attention_chunk_size=8,
        no_rope_layers=[1, 1, 1, 0],
        attn_temperature_tuning=True,
    ),
    "deepseek_v3": lambda: hf.DeepseekV3Config(
        **{**COMMON, "num_key_value_heads": 4},
        **MOE,
        n_routed_experts=8,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        n_shared_experts=1,
    ),
    "llama4_scout": lambda: hf.Llama4TextConfig(
        **COMMON,
        head_dim=8,
        intermediate_size_mlp=64,
        num_local_experts=16,
        num_experts_per_tok=1,
        interleave_moe_layer_step=1,
        attention_chunk_size=8,
        no_rope_layers=[1, 1, 1, 0],
        attn_temperature_tuning=True,
    ),
    "llama4_maverick": lambda: hf.Llama4TextConfig(
        **COMMON,
        head_dim=8,
        intermediate_size_mlp=64,
        num_local_experts=32,
        num_experts_per_tok=1,
        interleave_moe_layer_step=2,
        attention_chunk_size=8,
        no_rope_layers=[1, 1, 1, 0],
        attn_temperature_tuning=True,
        use_qk_norm=False,
    ),
    "glm4_moe": lambda: hf.Glm4MoeConfig(
        **COMMON,
        **MOE,
        head_dim=8,
        n_routed_experts=8,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=2,
        n_shared_experts=2,
    ),
    "gpt_oss": lambda: hf.GptOssConfig(
        **COMMON, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
    ),
    "falcon": lambda: hf.FalconConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        alibi=False,
        bos_token_id=1,
        eos_token_id=2,
    ),
}


def build(family: str, seed: int = 0, **overrides: Any) -> Any:
    """A random model whose next-token distributions are far from flat."""
    config = FAMILIES[family]()
    for name, value in overrides.items():
        setattr(config, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = hf.AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.data.normal_(0, 0.35 if "embed" in name or "wte" in name else 0.2)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.data.normal_(0, 0.5)  # makes the choice differ from the largest logits
        for name, weight in model.named_parameters():
            if name.endswith("e_score_correction_bias"):
                weight.data.normal_(0, 0.5)
    return model.eval()


def byte_tokenizer() -> Any:
    """One token per byte and the usual special tokens: parts of characters are the rule here, not the exception."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {letter: at + 3 for at, letter in enumerate(alphabet)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """For tensors this small a second thread only waits, for long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    return build


@pytest.fixture(scope="session")
def make_engine(tokenizer: Any) -> Callable[..., TraceEngine]:
    def make(family: str = "llama", *, seed: int = 0, model: Any = None, **options: Any) -> TraceEngine:
        return TraceEngine(model if model is not None else build(family, seed), tokenizer, name=family, **options)

    return make


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")
