"""Gradients through a text of discrete tokens: the forward value is the token drawn, the backward one its soft twin."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function

# Shape suffixes: B texts, T tokens, V vocabulary, D d_model.


class _StraightThroughEmbed(Function):
    @staticmethod
    def forward(
        ctx: Any, logits_BTV: Tensor, noise_BTV: Tensor, ids_BT: Tensor, table_VD: Tensor, tau: float
    ) -> Tensor:
        ctx.save_for_backward(logits_BTV, noise_BTV, ids_BT, table_VD)
        ctx.tau = tau
        return table_VD[ids_BT]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_BTD,) = gradients
        logits_BTV, noise_BTV, ids_BT, table_VD = ctx.saved_tensors
        soft_BTV = torch.softmax((logits_BTV + noise_BTV) / ctx.tau, -1)
        towards_BTV = gradient_BTD.to(table_VD.dtype) @ table_VD.T
        jacobian_BTV = soft_BTV * (towards_BTV - (soft_BTV * towards_BTV).sum(-1, keepdim=True)) / ctx.tau
        for_table = None
        if ctx.needs_input_grad[3]:
            for_table = torch.zeros_like(table_VD)
            for_table.index_add_(0, ids_BT.flatten(), gradient_BTD.flatten(0, 1).to(table_VD.dtype))
        return jacobian_BTV.to(logits_BTV.dtype), None, None, for_table, None


def straight_through_embed(
    logits_BTV: Tensor, noise_BTV: Tensor, ids_BT: Tensor, table_VD: Tensor, tau: float
) -> Tensor:
    """The embeddings of drawn tokens, (B, T, D), with the gradient of the softmax to the logits.

    The value is that of the tokens; the gradient is the one of `soft @ table` with soft = softmax((logits + noise)/τ)
    (straight-through Gumbel-softmax, Jang et al. 2017), without ever making a one-hot of the vocabulary. The table gets
    the gradient of its used rows.

    Args:
        logits_BTV: Of the pass that is differentiated.
        noise_BTV: The Gumbel noise with which the tokens were drawn.
        ids_BT: The tokens: the largest of logits + noise.
        table_VD: Embeddings of whoever reads the text.
        tau: Temperature of the soft twin, > 0; smaller is sharper.
    """
    return cast(Tensor, _StraightThroughEmbed.apply(logits_BTV, noise_BTV, ids_BT, table_VD, tau))  # type: ignore[no-untyped-call]
