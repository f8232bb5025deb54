"""Routing is a pure function: it pulls in neither Temporal nor numbers libraries, and works in a workflow sandbox."""

import subprocess
import sys
from pathlib import Path

HEAVY = ("temporalio", "torch", "numpy", "transformers", "sklearn", "boto3", "wonder.actions")


def run(script: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_routing_imports_nothing_heavy() -> None:
    loaded = run(
        "import importlib, pkgutil, sys, wonder.routing\n"
        "for module in pkgutil.iter_modules(wonder.routing.__path__):\n"
        "    importlib.import_module(f'wonder.routing.{module.name}')\n"
        "print('\\n'.join(sys.modules))"
    ).splitlines()
    assert "wonder.routing.table" in loaded
    assert [name for name in loaded if name.startswith(HEAVY)] == []


def test_a_table_is_built_in_an_unmodified_workflow_sandbox(tmp_path: Path) -> None:
    (tmp_path / "triage.py").write_text(
        "from temporalio import workflow\n"
        "from wonder.routing.table import TransitionTable\n"
        "from wonder.routing.transition import Transition\n"
        "TABLE = TransitionTable([\n"
        "    Transition(from_='a', to='human_review', condition='thought_trace.overall_confidence < 0.7'),\n"
        "    Transition(from_='a', to='done', condition='otherwise')])\n"
        "@workflow.defn\n"
        "class Triage:\n"
        "    @workflow.run\n"
        "    async def run(self) -> str:\n"
        "        return TABLE.digest\n"
    )
    script = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[1])\n"
        "from temporalio import workflow\n"
        "from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner\n"
        "import triage\n"
        "async def prepare() -> None:\n"
        "    SandboxedWorkflowRunner().prepare_workflow(workflow._Definition.must_from_class(triage.Triage))\n"
        "asyncio.run(prepare())\n"
        "print('ready')"
    )
    assert run(script, str(tmp_path)) == "ready"
