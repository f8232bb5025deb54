"""What a trace tells of the logit lens: each asked layer, over the tokens of the answer's values."""

import math
from collections.abc import Mapping, Sequence

from wonder.engine.lens import LensReadings
from wonder.engine.text import TokenNames
from wonder.trace.schema import FieldConfidence, LensLayer


def lens_trace(
    readings: LensReadings,
    index: int,
    layers: Sequence[int],
    count: int,
    fields: Mapping[str, FieldConfidence],
    names: TokenNames,
) -> list[LensLayer]:
    """The layers of one row.

    Args:
        readings: Of its batch.
        index: Of the row.
        layers: What the request asks for, lowest first.
        count: Tokens of its answer.
        fields: The values of the answer; without any, all tokens count.
        names: Of tokens.
    """
    values = sorted({t for field in fields.values() for t in range(field.start, field.stop) if t < count})
    values = values or list(range(count))
    found = []
    for layer in layers:
        at = readings.layers.index(layer)
        mean = float(readings.log_prob_NWB[values, at, index].double().mean())
        first = float(readings.is_first_NWB[values, at, index].double().mean())
        known = math.isfinite(mean)
        found.append(
            LensLayer(
                layer=layer,
                log_probability=min(0.0, mean) if known else None,
                first_share=first if known else None,
                top_token=names(int(readings.top_NWB[values[0], at, index])) if known else "",
            )
        )
    return found
