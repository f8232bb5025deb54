"""Which kernel runs the experts of a mixture: the one that `generate` of transformers would take."""

from collections.abc import Mapping
from typing import Final

from transformers import PreTrainedModel

PROMPT_KERNEL: Final = "grouped_mm"
"""Sorts tokens by expert first: best for many tokens."""
TOKEN_KERNEL: Final = "batched_mm"
"""Fetches each token's own experts: best for few, except on a CPU."""


def token_kernels(device: str, kernels: Mapping[str, str | None]) -> dict[str, str | None] | None:
    """The kernels to decode with.

    Args:
        device: Its type, such as `cuda`.
        kernels: Sub-model → the kernel of its experts, as `get_experts_implementation` gives them.

    Returns:
        The same with other kernels, or None where nothing is to be changed.
    """
    if device == "cpu" or PROMPT_KERNEL not in kernels.values():
        return None
    return {part: TOKEN_KERNEL if kernel == PROMPT_KERNEL else kernel for part, kernel in kernels.items()}


class ExpertKernels:
    """Switches a model between the two. Only a change costs anything; what was chosen at load comes back."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._decoding = False
        self._usual: dict[str, str | None] | None = None
        """What to go back to; None: nothing was changed."""

    def for_tokens(self) -> None:
        """One token of each row is fed from now on."""
        if self._decoding:
            return
        usual = self._model.get_experts_implementation()
        found = token_kernels(self._model.device.type, usual)
        if found is not None:
            self._model.set_experts_implementation(found)
            self._usual = usual
        self._decoding = True

    def for_prompts(self) -> None:
        """Prompts are fed from now on, or nothing is."""
        if self._usual is not None:
            self._model.set_experts_implementation(self._usual)
        self._usual, self._decoding = None, False
