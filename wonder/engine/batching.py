"""Splits requests into batches that share forward passes."""

from collections.abc import Sequence
from typing import Final

PASS_TOKENS: Final = {"cpu": 32}
"""What one more forward pass costs, in prompt tokens. On two cores with 56 M parameters: 20 ms, and 0.6 ms a token."""
PASS_TOKENS_ELSEWHERE: Final = 256
"""On an accelerator: the time it takes to read the weights and to launch the kernels is that of hundreds of tokens."""


def split(
    lengths: Sequence[int], new_tokens: Sequence[int], max_rows: int, max_tokens: int, *, equal_lengths: bool
) -> list[list[int]]:
    """Group requests, given by their indices, by similar prompt length.

    Args:
        lengths: Prompt tokens of each request.
        new_tokens: Most tokens each may generate.
        max_rows: Most requests in a batch.
        max_tokens: Most rows × columns of a batch, padding included; a single request may exceed it.
        equal_lengths: Never pad, because padding would enter a recurrent state.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if groups:
            group = [*groups[-1], index]
            width = lengths[index] + max(new_tokens[i] for i in group)
            padded = lengths[group[0]] != lengths[index]
            if len(group) <= max_rows and len(group) * width <= max_tokens and not (padded and equal_lengths):
                groups[-1] = group
                continue
        groups.append([index])
    return groups


def passes(lengths: Sequence[int], cost: int) -> list[int]:
    """How many prompts, of ascending length, go through each pass; a shorter one is padded to the longest of its pass.

    Args:
        lengths: Tokens of the prompts, ascending.
        cost: What a pass costs beside its tokens, in tokens: so much padding may be spent to save one.

    Returns:
        Numbers of prompts, in the order of the prompts: the division whose passes and padded tokens cost least.
    """
    least, sizes = [0.0], [0]
    for stop in range(1, len(lengths) + 1):
        width = lengths[stop - 1]
        costs = [least[stop - size] + cost + size * width for size in range(1, stop + 1)]
        least.append(min(costs))
        sizes.append(costs.index(least[-1]) + 1)
    found: list[int] = []
    left = len(lengths)
    while left:
        found.append(sizes[left])
        left -= sizes[left]
    return found[::-1]
