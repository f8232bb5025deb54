"""Hidden states of prompts at every layer, reduced to one vector per text."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from wonder.embedded.world import prompt
from wonder.probes.manifest import Aggregation, HookPoint

# Shape suffixes: N texts, B batch, T token, D d_model.

PROMPT_AGGREGATIONS: Final[tuple[Aggregation, ...]] = ("last_prompt", "mean_prompt")


@torch.inference_mode()
def prompt_states(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, batch: int = 128
) -> dict[HookPoint, Tensor]:
    """Return the (N, D) float32 states of every layer, at the last prompt token and averaged over the prompt.

    A state is what a decoder block puts out, taken by a hook: the last of a Hugging Face model's `hidden_states` has
    already been through the final norm.
    """
    points = [
        HookPoint(layer=layer, aggregation=aggregation)
        for layer in range(len(model.model.layers))
        for aggregation in PROMPT_AGGREGATIONS
    ]
    parts: dict[HookPoint, list[Tensor]] = {point: [] for point in points}
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])

    handles = [block.register_forward_hook(keep) for block in model.model.layers]
    try:
        for start in range(0, len(texts), batch):
            rows = tokenizer([prompt(text) for text in texts[start : start + batch]])["input_ids"]
            lengths_B = torch.tensor([len(row) for row in rows])
            longest = int(lengths_B.max())
            # Padded on the right, which causal attention never sees; the means below leave it out.
            ids_BT = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
            seen.clear()
            model.model(input_ids=ids_BT, use_cache=False)
            real_BT = (torch.arange(longest) < lengths_B[:, None]).float()
            for layer, states_BTD in enumerate(seen):
                last_BD = states_BTD[torch.arange(len(rows)), lengths_B - 1]
                mean_BD = (states_BTD * real_BT[:, :, None]).sum(1) / lengths_B[:, None]
                parts[HookPoint(layer=layer, aggregation="last_prompt")].append(last_BD)
                parts[HookPoint(layer=layer, aggregation="mean_prompt")].append(mean_BD)
    finally:
        for handle in handles:
            handle.remove()
    return {point: torch.cat(part).float() for point, part in parts.items()}
