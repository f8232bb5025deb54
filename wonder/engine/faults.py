"""Names what a failed pass means: the device is lost for this process, or nothing is known against the requests."""

import re
from typing import Any, Final

import torch

from wonder.engine.job import Job
from wonder.engine.loop import Runtime
from wonder.engine.memory import is_out_of_memory, no_room
from wonder.errors import DeviceLost, EngineFailed, WonderError

STICKY_CODES: Final = frozenset({214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999})
"""Codes of `cudaError_t` (HIP's are the same) after which, says NVIDIA's reference, "the process must be terminated
and relaunched": uncorrectable memory or link, illegal address, time-out, destroyed context, assert, hardware stack,
illegal instruction, misaligned address, address space, program counter, launch failure, unknown."""
_DEVICE_ERROR: Final = re.compile(r"\b(cuda|hip|cudnn|cublas|nccl|mps|xpu)\w*[ _](error|status)|CU[A-Z]+_STATUS_", re.I)
_STICKY: Final = re.compile(
    r"device-side assert|illegal memory access|illegal address|illegal instruction|misaligned address|"
    r"launch failure|launch timed out|hardware stack error|invalid program counter|uncorrectable|"
    r"address space|context is destroyed|driver shutting down",
    re.I,
)


def failure(error: BaseException, model: Any) -> WonderError:
    """The error that requests end with when a pass of the model has raised this one.

    After a sticky error every further call to the device of this process fails the same way. Kernels run
    asynchronously, so it may surface anywhere; what neither code nor words tell is found by asking the device.

    Returns:
        The error itself where it is Wonder's; `DeviceLost` or `EngineFailed` otherwise, both retryable.
    """
    if isinstance(error, WonderError):
        return error
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if is_lost(error, model):
        return DeviceLost(
            f"the device is lost to this process ({said}): the request can be tried again elsewhere, and this process "
            "must be started anew"
        )
    return EngineFailed(f"the engine broke while it served this request ({said})")


def told(error: Exception, job: Job, runtime: Runtime) -> WonderError:
    """The error that one request ends with, which failed alone.

    Raises:
        DeviceLost: Nobody can go on.
    """
    if is_out_of_memory(error):
        return no_room(runtime.device, job)
    found = failure(error, runtime.model)
    if isinstance(found, DeviceLost):
        raise found from error
    if found is not error:
        found.__cause__ = error
    return found


def is_lost(error: BaseException, model: Any) -> bool:
    """Whether this error, raised by a pass of the model, has broken its device for this process."""
    text = str(error)
    if not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    if not isinstance(error, torch.AcceleratorError) and not _DEVICE_ERROR.search(text):
        return False
    if getattr(error, "error_code", None) in STICKY_CODES or _STICKY.search(text):
        return True
    return not all(_answers(device) for device in {weight.device for weight in model.parameters()})


def _answers(device: torch.device) -> bool:
    """Whether a device still computes."""
    if device.type in ("cpu", "meta"):
        return True
    try:
        return bool((torch.ones(1, device=device) + 1).item() == 2)
    except RuntimeError as error:
        return is_out_of_memory(error)
