"""Graphs in files: JSON as it is, YAML where its reader is installed."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wonder.errors import ExtraMissing, GraphError
from wonder.graph.spec import GraphSpec, problems


def read(path: Path) -> GraphSpec:
    """The graph of a `.json`, `.yaml` or `.yml` file, checked as far as a part can be without the others.

    Raises:
        GraphError: There is no such file, or it holds no graph.
        ExtraMissing: It is YAML, and PyYAML is not installed.
    """
    if not path.exists():
        raise GraphError(f"there is no file {path}: give a graph as YAML or JSON")
    found = _load(path)
    if not isinstance(found, dict):
        raise GraphError(f"{path} holds no graph: it begins with fields such as actions: and rows:")
    try:
        return GraphSpec.model_validate(found)
    except ValidationError as error:
        raise GraphError(f"{path}: {problems(error)}") from None


def _load(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except ValueError as error:
            raise GraphError(f"{path} is not JSON ({error})") from None
    try:
        import yaml  # noqa: PLC0415 - an extra; JSON does without
    except ModuleNotFoundError:
        raise ExtraMissing("graphs in YAML need PyYAML: pip install 'wonder-temporal[graph]', or give JSON") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise GraphError(f"{path} is not YAML ({error})") from None
