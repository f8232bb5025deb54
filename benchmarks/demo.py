"""How long a newcomer waits: a fresh clone to the end of `make demo`, and the second run."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._results import Row, arguments, report

ROOT = Path(__file__).parent.parent


def run(command: list[str], folder: Path) -> tuple[float, str]:
    """Seconds of wall clock and output of a command that must succeed."""
    clean = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL")}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=clean, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def measure(quick: bool) -> list[Row]:
    """Clone, run, run again; a quick measurement runs once, in this checkout."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = ROOT
        if not quick:
            folder = Path(temporary) / "wonder"
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
            first, _ = run(["make", "demo"], folder)
            how = "wall clock of `make demo` in a fresh clone, downloads and installation included; one run"
            rows.append(Row("bare machine to the end of make demo", first, "s", "<= 300", how))
        second, told = run(["make", "demo"], folder)
        how = "wall clock of `make demo` once set up: server and workers start, 60 tickets, two decisions; one run"
        rows.append(Row("second run of make demo", second, "s", "<= 40", how))
        caught = re.search(r"model's (\d+) errors, (\d+) were caught.*?(\d+) of (\d+) tickets", told, re.DOTALL)
        if caught is None:
            raise SystemExit(f"the demo did not tell how it went:\n{told}")
        errors, found, reviewed, total = map(int, caught.groups())
        how = f"the demo's own report: {found} of {errors} errors caught, {reviewed} of {total} tickets reviewed"
        rows.append(Row("demo: share of the model's errors caught", found / errors, "", "", how))
        rows.append(Row("demo: share of tickets that people look at", reviewed / total, "", "", how))
        shutil.rmtree(temporary, ignore_errors=True)
    return rows


if __name__ == "__main__":
    report("demo", measure(arguments().quick), sys.argv[1:])
