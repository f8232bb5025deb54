"""`make bench`: every benchmark in turn, then one table of all rows, unmet ones first."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import _readme
from benchmarks._results import RESULTS, table

HERE = Path(__file__).parent


def main(argv: Sequence[str] | None = None) -> int:
    """Run them all as processes of their own, so that none disturbs another."""
    scripts = sorted(HERE.glob("[a-z]*.py"))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run every benchmark in turn, then print one table of all rows, unmet ones first.",
        epilog="One of them: python -m benchmarks.NAME [--quick] [--json], with NAME of "
        + ", ".join(script.stem for script in scripts),
    )
    parser.add_argument("--quick", action="store_true", help="at most a minute each on two cores; writes nothing")
    quick = parser.parse_args(argv).quick
    rows, failed = [], []
    for script in scripts:
        command = [sys.executable, "-m", f"benchmarks.{script.stem}", "--json", *(["--quick"] if quick else [])]
        print(f"running {script.stem} …", file=sys.stderr, flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent, check=False)
        if done.returncode != 0:
            failed.append(script.stem)
            continue
        result = json.loads(done.stdout[done.stdout.index("{") :])
        rows += result["rows"]
    print(table(rows))
    if not quick:
        _readme.main()
        print(f"\nwritten to {RESULTS.relative_to(HERE.parent)}/, and quoted in README.md")
    if failed:
        print(f"did not run to the end: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
