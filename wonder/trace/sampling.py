"""How tokens are drawn."""

from pydantic import Field

from wonder.wire import Settings


class Sampling(Settings):
    """How tokens are drawn. The default is greedy: the same prompt gives the same answer."""

    max_new_tokens: int = Field(default=64, ge=1, le=32768)
    temperature: float = Field(default=0.0, ge=0.0, le=10.0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: int = Field(default=0, ge=0)
    """0 keeps the whole vocabulary."""
    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    """Tokens less likely than this share of the likeliest are left out, after `top_p`; 0 keeps all."""
    seed: int | None = None
    """Fixes the draw of this request whatever else is in its batch; None draws afresh at each attempt."""
    stop: list[str] = Field(default_factory=list)
    """Generation ends when the text ends in one of these; the stop string is cut off the answer."""
