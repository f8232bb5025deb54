"""Tells a device that has no room from every other failure, and says so in a sentence."""

from typing import Any, Protocol

import torch

from wonder.engine.request import EngineRequest
from wonder.errors import OutOfMemory


class _Asking(Protocol):
    request: EngineRequest
    prompt: list[int]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device has no room."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def no_room(device: Any, job: _Asking) -> OutOfMemory:
    """What a request is told that does not fit even alone."""
    return OutOfMemory(
        f"{device} has no room for a prompt of {len(job.prompt)} tokens and "
        f"{job.request.sampling.max_new_tokens} new ones, alone in its batch: shorten them, "
        "quantise the model, or use a larger device"
    )
