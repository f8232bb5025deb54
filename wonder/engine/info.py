"""What an engine says about itself."""

from pydantic import Field

from wonder.wire import WireModel


class EngineInfo(WireModel):
    """A loaded model."""

    model: str
    """The name or folder it was loaded by."""
    revision: str
    fingerprint: str
    dtype: str
    device: str
    n_layers: int
    d_model: int
    vocabulary: int
    context_length: int | None
    """Most tokens of prompt and answer together; None where the model does not say."""
    concepts: list[str]
    """Names for `run_concept_probes`."""
    lenses: list[str] = Field(default_factory=list)
    """Ids of the lenses for `explain`."""
    routers: list[str]
    """Names of the routers in `expert_distribution`."""
    shared_experts: dict[str, int] = Field(default_factory=dict)
    """Router → experts beside it that run for every token; routers without any are absent."""
    compiled: str = ""
    """What `torch.compile` has done so far, and where it gave up; empty where it was not asked."""
    unsupported: dict[str, str]
    """Signal → why this model does not give it."""
