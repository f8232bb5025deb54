"""What other tools' readings cost beside plain `generate`, run by the interpreter in which they are installed.

They are no dependencies. `make bench-peers` puts `benchmarks/requirements-peers.txt` into an environment of its own;
there `benchmarks/engine.py` runs this file with the length of the prompt, the number of new tokens and that of turns.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks._models import VOCABULARY, llama, prompt_ids, tokenizer
from benchmarks._timing import in_turns, ratio

PACKAGES = ("nnsight", "transformer-lens", "transformers", "torch")


def plain(model: Any, ids: torch.Tensor, new: int) -> None:
    """Greedy `generate` of transformers."""
    with torch.inference_mode():
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False)


def nnsight_variants(ids: torch.Tensor, new: int) -> dict[str, Callable[[], object]]:
    """Norms of all layers and logit entropy; with attention entropy the model has to be an eager one."""
    from nnsight import TransformersModel  # type: ignore[import-not-found]  # noqa: PLC0415 — in this interpreter, or not

    def wrapped(attention: str) -> Any:
        model = llama()
        model.set_attn_implementation(attention)
        return TransformersModel(model, tokenizer=tokenizer(VOCABULARY), task="text-generation")

    def read(model: Any, attention: bool) -> None:
        with torch.inference_mode(), model.generate(ids, max_new_tokens=new, do_sample=False) as tracer:
            found = list().save()  # noqa: C408 — nnsight's way of keeping a value
            for _ in tracer.iter[:new]:
                for layer in model.model.layers:
                    if attention:
                        found.append(torch.special.entr(layer.self_attn.output[1][:, :, -1]).sum(-1).mean(-1))
                    found.append(layer.output[:, -1].norm(dim=-1))
                found.append(torch.distributions.Categorical(logits=model.lm_head.output[:, -1]).entropy())
        per_step = len(model.model.layers) * (2 if attention else 1) + 1
        if len(found) != new * per_step:
            raise RuntimeError(f"nnsight gave {len(found)} numbers, wanted {new * per_step}")

    return {
        "nnsight, norms": partial(read, wrapped("sdpa"), False),
        "nnsight, norms and attention": partial(read, wrapped("eager"), True),
    }


def transformer_lens_variants(ids: torch.Tensor, new: int) -> dict[str, Callable[[], object]]:
    """The same by hooks while it generates, and by its own replay into a cache."""
    from transformer_lens.model_bridge import TransformerBridge  # type: ignore[import-not-found]  # noqa: PLC0415

    model = llama()
    model.set_attn_implementation("eager")
    bridge = TransformerBridge.boot_transformers(
        "meta-llama/Llama-2-7b-hf", hf_model=model, tokenizer=tokenizer(VOCABULARY), device="cpu"
    )
    options = {
        "max_new_tokens": new,
        "do_sample": False,
        "stop_at_eos": False,
        "verbose": False,
        "return_type": "tokens",
    }
    kept: list[torch.Tensor] = []

    def norm(states: torch.Tensor, hook: Any) -> None:  # noqa: ARG001 — their signature
        kept.append(states[:, -1].norm(dim=-1))

    def entropy(pattern: torch.Tensor, hook: Any) -> None:  # noqa: ARG001
        kept.append(torch.special.entr(pattern[:, :, -1]).sum(-1).mean(-1))

    layers = range(model.config.num_hidden_layers)
    hooks = [(f"blocks.{layer}.attn.hook_pattern", entropy) for layer in layers]
    hooks += [(f"blocks.{layer}.hook_out", norm) for layer in layers]

    def hooked() -> None:
        kept.clear()
        with torch.inference_mode(), bridge.hooks(fwd_hooks=hooks):
            bridge.generate(ids, **options)
        if len(kept) != 2 * len(layers) * new:
            raise RuntimeError(f"TransformerLens gave {len(kept)} numbers, wanted {2 * len(layers) * new}")

    def replayed() -> None:
        with torch.inference_mode():
            bridge.generate(ids, return_cache=True, **options)

    return {"TransformerLens, hooks": hooked, "TransformerLens, return_cache": replayed}


def main(argv: list[str]) -> None:
    """Measure what is installed here."""
    length, new, turns = (int(argument) for argument in argv)
    torch.set_num_threads(1)
    ids = torch.tensor([prompt_ids(length)])
    variants: dict[str, Callable[[], object]] = {"plain": partial(plain, llama(), ids, new)}
    failed: dict[str, str] = {}
    for name, make in (("nnsight", nnsight_variants), ("TransformerLens", transformer_lens_variants)):
        try:
            variants |= make(ids, new)
        except ImportError as error:
            failed[name] = f"not installed here ({error})"
    seconds = in_turns(variants, turns)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    ratios = {name: ratio(seconds, name, "plain") for name in variants if name != "plain"}
    sys.stdout.write(json.dumps({"ratios": ratios, "failed": failed, "versions": versions}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
