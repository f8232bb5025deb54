"""Loads a model and its tokenizer, and says in a sentence what is wrong when that fails."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    TorchAoConfig,
)

from wonder.embedded import EMBEDDED, embedded_path
from wonder.engine.memory import is_out_of_memory
from wonder.errors import (
    ExtraMissing,
    ModelError,
    ModelNotFound,
    ModelNotUsable,
    OutOfMemory,
    SettingNotSupported,
)

BACKENDS: Final = {"8bit": "bitsandbytes", "4bit": "bitsandbytes", "int8": "torchao"}
"""Quantization → the package that does it."""


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded; passed through to transformers."""

    revision: str | None = None
    dtype: str | torch.dtype | None = None
    device: str | torch.device | None = None
    device_map: str | Mapping[str, Any] | None = None
    quantization: Any = None
    """`"8bit"`, `"4bit"`, `"int8"`, or a quantization config of transformers."""
    attn_implementation: str | None = None
    tp_plan: str | None = None


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode, its tokenizer and where they came from."""

    model: PreTrainedModel
    tokenizer: Any
    name: str
    revision: str


def load_model(name: str | Path, options: LoadOptions) -> Loaded:
    """Load a causal language model from an embedded name, a folder, or a hub name.

    Raises:
        ModelNotFound: No such name or folder.
        ModelNotUsable: It cannot be loaded, or is not a causal language model.
        SettingNotSupported: An unknown dtype or quantization, or options that exclude each other.
        ExtraMissing: An option needs a package that is not installed.
    """
    _check(options)
    source = _source(name)
    revision = {"revision": options.revision} if options.revision else {}
    try:
        config = AutoConfig.from_pretrained(source, **revision)
        tokenizer = AutoTokenizer.from_pretrained(source, **revision)
    except (OSError, ValueError, KeyError) as error:
        raise _explained(name, source, error) from error
    arguments: dict[str, Any] = {"dtype": _dtype(options.dtype), **revision}
    if options.device_map is not None:
        arguments["device_map"] = options.device_map
    if options.attn_implementation is not None:
        arguments["attn_implementation"] = options.attn_implementation
    if options.tp_plan is not None:
        arguments["tp_plan"] = options.tp_plan
    if (quantized := _quantization(options.quantization)) is not None:
        arguments["quantization_config"] = quantized
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True, **arguments)
        model, report = loaded
        if options.device is not None and options.device_map is None and options.tp_plan is None:
            model.to(options.device)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise _explained(name, source, error) from error
    if absent := sorted(report["missing_keys"]):
        # transformers fills them with random numbers and goes on.
        raise ModelNotUsable(
            f"{name} lacks {len(absent)} weights that its config.json asks for (first: {absent[0]}): "
            "the weights and the config do not belong together, save or download them again"
        )
    commit = getattr(config, "_commit_hash", None) or options.revision or ""
    model.eval()
    return Loaded(model, tokenizer, str(name), str(commit))


def default_device() -> torch.device:
    """The first accelerator, or the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def _source(name: str | Path) -> str:
    embedded = embedded_path(name) if isinstance(name, str) else None
    if embedded is not None:
        return str(embedded)
    path = Path(name).expanduser()
    if path.exists() and not path.is_dir():
        raise ModelNotFound(f"{name} is a file: name the folder that holds config.json and the weights")
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelNotFound(f"the folder {name} has no config.json: name the folder of a saved model")
        return str(path)
    text = str(name)
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise ModelNotFound(f"there is no folder {name}: check the path, or give a name such as {_examples()}")
    return text


def _check(options: LoadOptions) -> None:
    """Refuse what cannot work before anything is read."""
    if options.tp_plan is not None:
        if options.device_map is not None or options.device is not None:
            raise SettingNotSupported("tp_plan shards the model itself: leave device and device_map out")
        if options.tp_plan != "auto":
            raise SettingNotSupported(f"tp_plan {options.tp_plan!r} is unknown: use auto, the plan that the model has")
        if "RANK" not in os.environ:
            raise SettingNotSupported(
                "tp_plan needs one process per shard: start the program with `torchrun --nproc-per-node N`"
            )
    needs = {"accelerate": "device_map and tp_plan"} if options.device_map or options.tp_plan else {}
    if options.quantization in BACKENDS:
        needs[BACKENDS[options.quantization]] = f"quantization {options.quantization!r}"
    if str(options.attn_implementation).startswith("flash_attention_2"):
        needs["flash_attn"] = "attention flash_attention_2"
    for package, what in needs.items():
        if find_spec(package) is None:
            extra = "" if package == "flash_attn" else " (`pip install 'wonder-temporal[quant]'`)"
            raise ExtraMissing(f"{what} needs the package {package}, which is not installed{extra}")


def _explained(name: str | Path, source: str, error: Exception) -> ModelError:
    text = " ".join(str(error).split())
    if is_out_of_memory(error):
        return OutOfMemory(f"the device has no room for {name}: quantise it, or use a larger device or several")
    if "Unrecognized configuration class" in text:
        return ModelNotUsable(f"{name} is not a causal language model: Wonder reads decoder-only models")
    is_folder = Path(source).is_dir()
    if not is_folder and isinstance(error, OSError):
        return ModelNotFound(
            f"no model {str(name)!r}: it is neither embedded ({', '.join(EMBEDDED)}) nor a folder here, and the model "
            f"hub did not give it (offline, misspelt, or not yours to read): {text[:300]}"
        )
    return ModelNotUsable(f"{name} was found but cannot be loaded ({type(error).__name__}): {text[:500]}")


def _examples() -> str:
    return " or ".join(repr(name) for name in EMBEDDED)


def _dtype(dtype: str | torch.dtype | None) -> str | torch.dtype:
    if dtype is None or dtype == "auto":
        return "auto"
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise SettingNotSupported(f"dtype {dtype!r} is unknown: use auto, float32, bfloat16 or float16")
    return found


def _quantization(quantization: Any) -> Any:
    if quantization is None or not isinstance(quantization, str):
        return quantization
    if quantization not in BACKENDS:
        raise SettingNotSupported(
            f"quantization {quantization!r} is unknown: use {', '.join(BACKENDS)}, or pass a quantization config of "
            "transformers"
        )
    if quantization == "int8":
        from torchao.quantization import Int8WeightOnlyConfig  # noqa: PLC0415 - an extra

        return TorchAoConfig(Int8WeightOnlyConfig())
    return BitsAndBytesConfig(**{f"load_in_{quantization}": True})  # type: ignore[no-untyped-call]
