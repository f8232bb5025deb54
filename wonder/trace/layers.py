"""Which layers of a model are meant by a name."""


def quarter(n_layers: int) -> list[int]:
    """Every fourth layer from layer 3, at least the last one."""
    return list(range(3, n_layers, 4)) or [n_layers - 1]


def middle_third(n_layers: int) -> range:
    """The layers in the middle, where attention says most about what the model is unsure of."""
    start = n_layers // 3
    return range(start, max(start + 1, -(-2 * n_layers // 3)))


def nearest_to_middle(layers: list[int], n_layers: int) -> int:
    """Of these layers the one nearest to the middle; the lower one of two."""
    return min(layers, key=lambda layer: (abs(layer - n_layers // 2), layer))
