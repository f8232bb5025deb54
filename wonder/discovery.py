"""Finding a user's workflow classes by module name or file, and the project's settings for the command line."""

import importlib
import inspect
import os
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from temporalio import workflow

from wonder.errors import DefinitionError

WORKFLOWS_VARIABLE = "WONDER_WORKFLOWS"


def configured_workflows(folder: Path | None = None) -> list[str]:
    """Module names from `WONDER_WORKFLOWS` (comma separated), else `[tool.wonder] workflows` of `pyproject.toml`."""
    if named := os.environ.get(WORKFLOWS_VARIABLE):
        return [name.strip() for name in named.split(",") if name.strip()]
    settings = (folder or Path.cwd()) / "pyproject.toml"
    if not settings.exists():
        return []
    found = tomllib.loads(settings.read_text()).get("tool", {}).get("wonder", {}).get("workflows", [])
    return [str(name) for name in found]


def load_workflows(names: Iterable[str], folder: Path | None = None) -> list[type]:
    """The workflow classes defined in these modules (dotted names, or `.py` files below the folder).

    Raises:
        DefinitionError: A module cannot be imported, or defines no workflow.
    """
    root = (folder or Path.cwd()).resolve()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    found: dict[str, type] = {}
    for name in names:
        dotted = name
        if name.endswith(".py"):
            path = Path(name).resolve()
            if not path.is_relative_to(root):
                raise DefinitionError(f"workflow file {name!r} lies outside {root}: start the worker in its folder")
            dotted = ".".join(path.relative_to(root).with_suffix("").parts)
        try:
            module = importlib.import_module(dotted)
        except ModuleNotFoundError as error:
            raise DefinitionError(
                f"workflows: cannot import {name!r} ({error}): give a dotted module name or a .py file, from {root}"
            ) from error
        classes = [
            member
            for _, member in inspect.getmembers(module, inspect.isclass)
            if member.__module__ == module.__name__ and hasattr(member, "__temporal_workflow_definition")
        ]
        if not classes:
            raise DefinitionError(f"workflows: {name!r} defines no class with @workflow.defn")
        found |= {type_name(member): member for member in classes}
    return list(found.values())


def type_name(workflow_class: type) -> str:
    """The name under which a workflow class is started."""
    definition = workflow._Definition.must_from_class(workflow_class)
    return definition.name or workflow_class.__name__
