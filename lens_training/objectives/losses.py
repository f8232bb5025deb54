"""The terms of a lens's loss; each a plain function of tensors."""

import torch
from torch import Tensor

# Shape suffixes: B rows, G texts per activation, T tokens, V vocabulary, D d_model.


def relative_error(predicted_BD: Tensor, activation_BD: Tensor, variance: float) -> Tensor:
    """‖Â − A‖² / E‖A − mean‖² of each row, (B,): one minus its mean is the fraction of variance explained (FVE).

    Args:
        predicted_BD: The reconstruction.
        activation_BD: The truth.
        variance: E‖A − mean‖² over the training set.
    """
    return (predicted_BD.float() - activation_BD.float()).square().sum(-1) / variance


def kl(original_V: Tensor, other_V: Tensor) -> Tensor:
    """KL(softmax(original) ‖ softmax(other)) in nats over the last dimension, summed over the vocabulary, float32."""
    log_p, log_q = original_V.float().log_softmax(-1), other_V.float().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def advantages(reward_BG: Tensor) -> Tensor:
    """Rewards of the texts of one activation, centred and scaled within their group (GRPO, Shao et al. 2024)."""
    centred = reward_BG - reward_BG.mean(-1, keepdim=True)
    return centred / (reward_BG.std(-1, keepdim=True) + 1e-6)


def entropy(logits_BTV: Tensor) -> Tensor:
    """Entropy of each token's distribution in nats, (B, T)."""
    log_p = logits_BTV.float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def kl_estimate(log_p: Tensor, log_reference: Tensor) -> Tensor:
    """An unbiased estimate ≥ 0 of KL(p ‖ reference) from two log-probabilities of a sample ("k3", Schulman 2020)."""
    delta = log_reference - log_p
    return torch.exp(delta) - delta - 1


def in_batch_delta(predicted_BD: Tensor, activation_BD: Tensor, permutation_B: Tensor) -> Tensor:
    """The reconstruction plus what another row's reconstruction missed; no gradient goes to the other row."""
    other = (activation_BD - predicted_BD)[permutation_B].detach()
    return predicted_BD + other
