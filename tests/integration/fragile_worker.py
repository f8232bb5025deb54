"""A GPU worker whose device breaks: `python -m tests.integration.fragile_worker FUSE …` and its usual arguments.

Its model is the Llama of transformers until a file FUSE exists. Then the next pass takes the file away and fails as a
pass on a GPU does after an assert in a kernel; so does every further one of this process, and of no other.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from workers.gpu.__main__ import main

FUSE = Path(sys.argv.pop(1))


class FragileLlama(LlamaForCausalLM):  # type: ignore[misc]
    """Breaks for good."""

    broken = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if FUSE.exists():
            FragileLlama.broken = True
            FUSE.unlink()
        if self.broken:
            raise torch.AcceleratorError(
                "CUDA error: device-side assert triggered\n"
                "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below "
                "might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"
            )
        return super().forward(*args, **kwargs)


if __name__ == "__main__":
    AutoModelForCausalLM.register(LlamaConfig, FragileLlama, exist_ok=True)
    main()
