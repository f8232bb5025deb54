"""Turns the strongest attention columns of a row into links between tokens of its text."""

from collections.abc import Sequence

from wonder.engine.loop import BatchResult
from wonder.engine.recorder import AttentionReadings
from wonder.engine.text import TokenNames
from wonder.trace.schema import KeyAttentionPair


def key_pairs(
    attention: AttentionReadings,
    batch: BatchResult,
    index: int,
    prompt: Sequence[int],
    layers: Sequence[int],
    kept: int,
    names: TokenNames,
) -> list[KeyAttentionPair]:
    """The `kept` strongest links of each of the layers, over all generating positions, strongest first."""
    tokens = batch.rows[index].tokens
    text = [*prompt, *tokens]
    pairs = []
    for at, layer in enumerate(attention.layers):
        if layer not in layers:
            continue
        weights_NK = attention.weight_NABK[: len(tokens), at, index]
        columns_NK = attention.column_NABK[: len(tokens), at, index]
        width = weights_NK.shape[1]
        found: list[KeyAttentionPair] = []
        for flat in weights_NK.nan_to_num(-1.0).flatten().argsort(descending=True, stable=True).tolist():
            step, rank = divmod(flat, width)
            weight = float(weights_NK[step, rank])
            if len(found) == kept or not weight > 0:
                break
            key = batch.layout.position(index, int(columns_NK[step, rank]))
            query = len(prompt) - 1 + step
            if key is not None and key > 0:
                found.append(
                    KeyAttentionPair(
                        layer=layer,
                        query=query,
                        key=key,
                        weight=min(1.0, weight),
                        query_token=names(text[query]),
                        key_token=names(text[key]),
                    )
                )
        pairs += found
    return pairs
