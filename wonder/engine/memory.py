"""Tells a device that has no room from every other failure."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device has no room."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
