"""Loading a transition table that somebody has written: Python, JSON or YAML."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from wonder.errors import DefinitionError, ExtraMissing, WonderError
from wonder.routing.table import TransitionTable


def load_table(where: str) -> TransitionTable:
    """The table that `where` names.

    Args:
        where: `table.py`, `package.module`, either with `:name` where there are several; or `table.json`,
            `table.yaml` in the form of `TransitionTable.to_dict`.

    Raises:
        DefinitionError: There is no such file or module, it does not load, or it holds no table, or several.
    """
    place, _, name = where.partition(":")
    path = Path(place)
    if path.suffix in (".json", ".yaml", ".yml"):
        return TransitionTable.from_dict(_data(path))
    module = _module(path) if path.suffix == ".py" else _imported(place)
    tables = {key: value for key, value in vars(module).items() if isinstance(value, TransitionTable)}
    if name:
        if name not in tables:
            raise DefinitionError(f"{place} has no table {name!r}; it has {', '.join(tables) or 'none'}")
        return tables[name]
    if len({table.digest for table in tables.values()}) != 1:
        raise DefinitionError(
            f"{place} holds {len(tables)} tables ({', '.join(tables) or 'none'}): name one as {place}:NAME"
        )
    return next(iter(tables.values()))


def _data(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DefinitionError(f"{path}: {error.strerror or error}") from None
    try:
        found = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except ValueError as error:
        raise DefinitionError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise DefinitionError(f"{path} holds no table: write rows with from, to and condition")
    return found


def _yaml(text: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError:
        raise ExtraMissing("reading YAML needs PyYAML: pip install pyyaml, or write the table as JSON") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _module(path: Path) -> ModuleType:
    if not path.exists():
        raise DefinitionError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"_wonder_table_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except WonderError:
        raise
    except Exception as error:
        raise DefinitionError(f"{path} does not load ({type(error).__name__}: {error})") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _imported(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DefinitionError(
            f"cannot import {name!r} ({error}): give a file, or a module that can be imported"
        ) from None
