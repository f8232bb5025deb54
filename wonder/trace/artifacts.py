"""The claim check: what a workflow holds instead of tensors."""

from typing import Literal

from pydantic import Field

from wonder.wire import WireRecord


class TensorSpec(WireRecord):
    """What one tensor of an artifact looks like, so that a reader can plan before it loads."""

    dtype: str
    """safetensors spelling, for example `F32` or `BF16`."""
    shape: list[int]


class ArtifactRef(WireRecord):
    """Where an artifact lies and what it must be; the bytes never enter a workflow history."""

    uri: str
    """`file://…` or `s3://…`; the last part is the digest."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    format: Literal["safetensors", "json"] = "safetensors"
    tensors: dict[str, TensorSpec] = Field(default_factory=dict)
    """Key → dtype and shape."""
    content: str = ""
    """What it holds, in a few words, for example `hidden states and per-token arrays`."""
