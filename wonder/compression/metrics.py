"""What codes of several sizes keep of held-out states: variance, neighbours, probes, and the next token."""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from wonder.compression.codes import Coder, decode, encode
from wonder.compression.manifest import CodeMetrics
from wonder.probes.bundle import ProbeBundle

# Shape suffixes: N states, D d_model, K coordinates or neighbours, V vocabulary.

NEIGHBOURS: Final = 10
MOST_FOR_NEIGHBOURS: Final = 2000
"""States among which neighbours are looked for; the work grows with the square."""

Head = Callable[[Tensor], Tensor]
"""Final norm and unembedding: states (N, D) of the last layer, float32, to logits (N, V)."""


@torch.inference_mode()
def code_metrics(
    states_ND: Tensor, basis: Coder, sizes: Sequence[int], probes: Sequence[ProbeBundle] = (), head: Head | None = None
) -> list[CodeMetrics]:
    """Measure codes of several sizes.

    Args:
        states_ND: Held-out states of the hook point; at least 2, and 11 for neighbours to mean anything.
        basis: What they are coded by.
        sizes: Numbers of coordinates.
        probes: Whose logits are compared.
        head: None where the hook point is not the last layer.

    Returns:
        One entry per size, smallest first.
    """
    states_ND = states_ND.detach().to("cpu", torch.float64)
    logits_NV = None if head is None else head(states_ND.float()).double().log_softmax(-1)
    found = []
    for dims in sorted(set(sizes)):
        codes_NK = encode(states_ND, basis, dims)
        again_ND = decode(codes_NK, basis)
        kl, top1 = (None, None) if head is None or logits_NV is None else _compared(logits_NV, head(again_ND.float()))
        found.append(
            CodeMetrics(
                dims=dims,
                explained_variance=1 - float(_squares(states_ND - again_ND) / _squares(states_ND - basis.mean_D)),
                neighbours_at_10=_overlap(states_ND[:MOST_FOR_NEIGHBOURS], codes_NK[:MOST_FOR_NEIGHBOURS]),
                probe_logit_error=max((_logit_error(states_ND - again_ND, probe) for probe in probes), default=None),
                kl_nats=kl,
                top1_agreement=top1,
            )
        )
    return found


def _squares(values: Tensor) -> Tensor:
    return values.square().sum()


def _logit_error(errors_ND: Tensor, probe: ProbeBundle) -> float:
    """The bias cancels: the logits of two states differ by the logit of their difference."""
    return float((errors_ND @ probe.weight_D.double()).abs().max())


def _compared(logs_NV: Tensor, logits_NV: Tensor) -> tuple[float, float]:
    other_NV = logits_NV.double().log_softmax(-1)
    kl_N = (logs_NV.exp() * (logs_NV - other_NV)).sum(-1)
    same_N = logs_NV.argmax(-1) == other_NV.argmax(-1)
    return max(0.0, float(kl_N.mean())), float(same_N.double().mean())


def _overlap(states_ND: Tensor, codes_NK: Tensor) -> float:
    count = min(NEIGHBOURS, len(states_ND) - 1)
    first_NK, second_NK = _nearest(states_ND, count), _nearest(codes_NK, count)
    shared_NKK = first_NK[:, :, None] == second_NK[:, None, :]
    return float(shared_NKK.any(-1).double().mean())


def _nearest(points_ND: Tensor, count: int) -> Tensor:
    distance_NN = torch.cdist(points_ND, points_ND)
    distance_NN.fill_diagonal_(float("inf"))
    return distance_NN.topk(count, largest=False).indices
