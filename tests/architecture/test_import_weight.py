"""What importing a module pulls in; the linter sees imports as written, this sees them as they happen."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import wonder

HEAVY = ("torch", "numpy", "transformers", "safetensors", "sklearn", "boto3")
MAY_BE_HEAVY = (
    "wonder.engine",
    "wonder.probes",
    "wonder.compression",
    "wonder.anatomy",
    "wonder.lens.adapters",
    "wonder.lens.bundle",
    "wonder.lens.cache",
    "wonder.lens.decoder",
    "wonder.lens.encoder",
)
PURE = (
    "wonder.trace",
    "wonder.calibration",
    "wonder.learning",
    "wonder.routing",
    "wonder.embedded",
    "wonder.errors",
    "wonder.wire",
    "wonder.names",
)


def modules() -> list[str]:
    """Every module of the package, by name."""
    return ["wonder", *(found.name for found in pkgutil.walk_packages(wonder.__path__, "wonder."))]


def loaded_by(statement: str) -> set[str]:
    """The top-level packages in `sys.modules` after a statement, in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def importing(names: list[str]) -> str:
    """One statement that imports all these modules."""
    return "import " + ", ".join(names)


def test_no_light_module_pulls_in_an_array_library() -> None:
    light = [name for name in modules() if not name.startswith(MAY_BE_HEAVY) and not name.endswith("__main__")]
    assert not loaded_by(importing([*light, "workers.cpu.__main__", "wonder.cli.__main__"])) & set(HEAVY)


def test_trace_and_routing_know_nothing_of_temporal() -> None:
    pure = [name for name in modules() if name.startswith(PURE)]
    assert len(pure) > 10
    assert "temporalio" not in loaded_by(importing(pure))


def test_the_engine_and_the_probes_know_nothing_of_temporal() -> None:
    heavy = [name for name in modules() if name.startswith(MAY_BE_HEAVY)]
    found = loaded_by(importing(heavy))
    assert "torch" in found
    assert "temporalio" not in found


def test_importing_wonder_alone_imports_nothing_else_of_ours() -> None:
    code = "import wonder, sys; print([n for n in sys.modules if n.startswith('wonder.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["workers.gpu", "workers.cpu", "wonder.cli"])
def test_a_program_says_what_it_takes_without_loading_torch(module: str, tmp_path: Path) -> None:
    blocked = tmp_path / "torch.py"
    blocked.write_text("raise SystemExit('torch was imported')")
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
