"""`Shape`: the sizes of a model, from its `config.json` alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from lens_training.plan.known import PUBLISHED
from wonder.embedded import embedded_path
from wonder.errors import SpecError

DTYPES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
GATED: Final = frozenset(
    {
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma",
        "gemma2",
        "gemma3_text",
        "phi3",
        "olmo2",
        "mixtral",
        "qwen3_moe",
    }
)
PLAIN: Final = frozenset({"gpt2", "gpt_neox"})
BIASED_QKV: Final = frozenset({"qwen2"})
ROUTED: Final = frozenset({"mixtral", "qwen3_moe"})
HEAD_NORMS: Final = frozenset({"qwen3", "qwen3_moe", "gemma3_text"})
FOUR_NORMS: Final = frozenset({"gemma2", "gemma3_text"})
TIED_BY_DEFAULT: Final = frozenset({"gpt2", "gemma", "gemma2", "gemma3_text"})


@dataclass(frozen=True)
class Map:
    """A linear map of a block."""

    name: str
    inputs: int
    outputs: int

    @property
    def size(self) -> int:
        """Weights."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder-only model."""

    family: str
    layers: int
    width: int
    vocabulary: int
    heads: int
    key_heads: int
    head_size: int
    inner: int
    gated: bool
    tied: bool
    maps: tuple[Map, ...]
    """Of each block, what an adapter can be put beside; experts are apart."""
    small: int
    """Norms, biases and routers of each block."""
    outside: int
    """Parameters beside blocks, embedding and head: the last norm, learned positions."""
    experts: int
    experts_used: int
    expert_size: int
    """Weights of one expert."""
    head_norms: bool
    """Whether queries and keys are normalised."""
    dtype: str
    published: bool = False
    """Whether it is a shape known by name, as the model itself is not on this machine."""

    @cached_property
    def block(self) -> int:
        """Parameters of a block."""
        return sum(each.size for each in self.maps) + self.experts * self.expert_size + self.small

    @cached_property
    def block_active(self) -> int:
        """Weights of a block that each token is multiplied with."""
        routed = self.experts_used * self.expert_size + (self.width * self.experts)
        return sum(each.size for each in self.maps) + routed

    @property
    def embedding(self) -> int:
        """Parameters of the table of embeddings."""
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        return self.embedding * (1 if self.tied else 2) + self.layers * self.block + self.outside

    @property
    def key_bytes(self) -> int:
        """Numbers that one token leaves in the keys and values of one block."""
        return 2 * self.key_heads * self.head_size


def read_shape(model: str) -> Shape:
    """The shape of a model on this machine, or of a published one by its name.

    Raises:
        SpecError: It is neither, or its family is not known here.
    """
    path = config_path(model)
    if path is not None:
        return shape_of(_read(path), str(path))
    if model in PUBLISHED:
        return shape_of({**PUBLISHED[model], "published": True}, model)
    raise SpecError(
        f"{model}: its config.json is not on this machine, and its shape is not known by name "
        f"({', '.join(sorted(PUBLISHED))}): name a folder, or load the model once"
    )


def config_path(model: str) -> Path | None:
    """Where the model's config.json is: in a folder, in the package, or among what the hub's client has loaded."""
    folder = embedded_path(model) or Path(model)
    if (Path(folder) / "config.json").is_file():
        return Path(folder) / "config.json"
    try:
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - half a second, and often not needed

        found = try_to_load_from_cache(model, "config.json")
    except (ImportError, ValueError):
        return None
    return Path(found) if isinstance(found, str) else None


def shape_of(config: Mapping[str, Any], where: str = "the model") -> Shape:
    """The shape that a configuration describes.

    Raises:
        SpecError: The family is not known here.
    """
    text: Mapping[str, Any] = config.get("text_config") or config
    family = str(text.get("model_type", ""))
    if family not in GATED | PLAIN:
        raise SpecError(
            f"{where} is of the family {family!r}, whose parts are not known here ({', '.join(sorted(GATED | PLAIN))} "
            "are): a plan cannot be made; start with small batches instead"
        )
    try:
        return _gpt2(text, config) if family == "gpt2" else _usual(family, text, config, where)
    except KeyError as error:
        raise SpecError(f"{where} has no {error}, so its size cannot be known") from None


def _usual(family: str, text: Mapping[str, Any], config: Mapping[str, Any], where: str) -> Shape:
    width, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
    key_heads = int(text.get("num_key_value_heads") or heads)
    head = int(text.get("head_dim") or width // heads)
    queries, keys = heads * head, key_heads * head
    inner = int(text["intermediate_size"])
    experts = int(text.get("num_local_experts") or text.get("num_experts") or 0) if family in ROUTED else 0
    if experts and (text.get("mlp_only_layers") or int(text.get("decoder_sparse_step") or 1) != 1):
        raise SpecError(f"{where} has experts in some blocks only, which a plan does not know")
    expert_inner = int(text.get("moe_intermediate_size") or inner)
    maps = [
        Map("q_proj", width, queries),
        Map("k_proj", width, keys),
        Map("v_proj", width, keys),
        Map("o_proj", queries, width),
    ]
    gated = family in GATED
    if not experts:
        maps += [Map("gate_proj", width, inner)] * gated
        maps += [Map("up_proj", width, inner), Map("down_proj", inner, width)]
    biases = 0
    if family in BIASED_QKV:
        biases = queries + 2 * keys
    elif text.get("attention_bias") and family in {"llama", "qwen3", "qwen3_moe", "olmo2"}:
        biases = queries + 2 * keys + width
    if text.get("mlp_bias") and family == "llama":
        biases += 2 * inner + width
    norms = (4 if family in FOUR_NORMS else 2) * width
    if family in HEAD_NORMS:
        norms += 2 * head
    elif family == "olmo2":
        norms += queries + keys
    outside = width
    if not gated:  # gpt_neox: biases everywhere, norms with two parts
        biases = queries + 2 * keys + width + inner + width
        norms, outside = 2 * norms, 2 * width
    return Shape(
        family=family,
        layers=int(text["num_hidden_layers"]),
        width=width,
        vocabulary=int(text["vocab_size"]),
        heads=heads,
        key_heads=key_heads,
        head_size=head,
        inner=inner,
        gated=gated,
        tied=_tied(family, text, config),
        maps=tuple(maps),
        small=norms + biases + width * experts,
        outside=outside,
        experts=experts,
        experts_used=int(text.get("num_experts_per_tok") or 0) if experts else 0,
        expert_size=3 * width * expert_inner if experts else 0,
        head_norms=family in HEAD_NORMS | {"olmo2"},
        dtype=_dtype(text, config),
        published=bool(config.get("published")),
    )


def _gpt2(text: Mapping[str, Any], config: Mapping[str, Any]) -> Shape:
    width, heads = int(text["n_embd"]), int(text["n_head"])
    inner = int(text.get("n_inner") or 4 * width)
    return Shape(
        family="gpt2",
        layers=int(text["n_layer"]),
        width=width,
        vocabulary=int(text["vocab_size"]),
        heads=heads,
        key_heads=heads,
        head_size=width // heads,
        inner=inner,
        gated=False,
        tied=_tied("gpt2", text, config),
        maps=(
            Map("c_attn", width, 3 * width),
            Map("c_proj", width, width),
            Map("c_fc", width, inner),
            Map("c_proj", inner, width),
        ),
        small=4 * width + 3 * width + width + inner + width,
        outside=int(text["n_positions"]) * width + 2 * width,
        experts=0,
        experts_used=0,
        expert_size=0,
        head_norms=False,
        dtype=_dtype(text, config),
        published=bool(config.get("published")),
    )


def _tied(family: str, text: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    for part in (text, config):
        if "tie_word_embeddings" in part:
            return bool(part["tie_word_embeddings"])
    return family in TIED_BY_DEFAULT


def _dtype(text: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    for part in (text, config):
        for name in ("dtype", "torch_dtype"):
            if part.get(name) in DTYPES:
                return str(part[name])
    return "float32"


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read ({error}): name a folder with a config.json") from None
    if not isinstance(value, dict):
        raise SpecError(f"{path} holds no configuration")
    return value
