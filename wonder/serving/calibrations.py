"""The calibration in force, beside every answer of a GPU worker."""

import asyncio
import logging
import time
from collections.abc import Callable

from wonder.calibration.bundle import CalibrationBundle
from wonder.calibration.registry import CalibrationRegistry
from wonder.errors import CorruptBundle
from wonder.trace.schema import ThoughtTrace

log = logging.getLogger(__name__)

REFRESH_S = 5.0
"""How long what was read from the registry is believed."""

Found = tuple[CalibrationBundle | None, str]


class Calibrations:
    """Looks calibrations up in a registry, off the event loop, and believes what it found for a few seconds.

    A registry that cannot be read never fails an answer: the answer travels uncalibrated, with the reason.
    """

    def __init__(
        self,
        registry: CalibrationRegistry,
        *,
        refresh_s: float = REFRESH_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look up in this registry; `clock` gives seconds."""
        self.registry = registry
        self._refresh_s = refresh_s
        self._clock = clock
        self._found: dict[tuple[str, str, str, str], tuple[float, Found]] = {}

    async def for_trace(self, trace: ThoughtTrace) -> Found:
        """The calibration in force for a trace, or None and why."""
        key = (trace.action, trace.model, trace.model_revision, trace.model_fingerprint)
        held = self._found.get(key)
        if held is not None and self._clock() - held[0] < self._refresh_s:
            return held[1]
        before = None if held is None else held[1]
        found = await asyncio.to_thread(self._read, trace)
        if before != found:
            _tell(trace, found)
        self._found[key] = self._clock(), found
        return found

    def _read(self, trace: ThoughtTrace) -> Found:
        try:
            return self.registry.for_trace(trace)
        except CorruptBundle as error:
            return None, f"its calibration cannot be read: {error}"


def _tell(trace: ThoughtTrace, found: Found) -> None:
    bundle, reason = found
    fields = {"action": trace.action, "model": trace.model}
    if bundle is not None:
        log.info("calibration in force: %s for %s", bundle.id[:12], trace.action, extra=fields | {"bundle": bundle.id})
    elif reason:
        log.warning("answers of %s are not calibrated: %s", trace.action, reason, extra=fields)
