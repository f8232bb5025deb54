"""Splits requests into batches that share forward passes."""

from collections.abc import Sequence


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
