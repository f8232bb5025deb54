"""Progress of a stage on standard error: done, rate, time to go; a line for people, or JSON for what supervises."""

import json
import sys
import time
from typing import IO


class Ticker:
    """Prints how far a stage is, at most every `interval_s`, and when it ends."""

    def __init__(
        self, stage: str, unit: str, *, as_json: bool = False, interval_s: float = 1.0, out: IO[str] | None = None
    ) -> None:
        self.stage, self.unit = stage, unit
        self._as_json, self._interval, self._out = as_json, interval_s, sys.stderr if out is None else out
        self._begun = time.monotonic()
        self._shown = 0.0
        self._first: tuple[float, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Say how far it is; what an earlier run had done counts in no rate."""
        now = time.monotonic()
        since, at = self._first or (self._begun, 0)
        if self._first is None:
            self._first = (now, done)
        if done < total and now - self._shown < self._interval:
            return
        self._shown = now
        rate = (done - at) / max(now - since, 1e-9)
        eta_s = (total - done) / rate if rate > 0 else None
        if self._as_json:
            value = {"stage": self.stage, "unit": self.unit, "done": done, "total": total}
            line = json.dumps(
                {**value, "rate_per_s": round(rate, 3), "eta_s": None if eta_s is None else round(eta_s, 1)}
            )
        else:
            share = 100 * done / max(total, 1)
            line = f"{self.stage} {done:,} of {total:,} {self.unit} ({share:.0f} %) · {rate:,.0f} {self.unit}/s"
            line += f" · {duration(eta_s)} to go" if done < total and eta_s is not None else ""
        self._out.write(line + "\n")
        self._out.flush()


def duration(seconds: float) -> str:
    """Time as people say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
