"""Claims that come with Wonder: the evidence is given, the validation on your model is yours to measure."""

from wonder.claims.claim import Claim


def alternatives(near: float = 0.5, far: float = 0.98) -> Claim:
    """Close alternatives existed for a value of the answer.

    Args:
        near: Supported where, at some value token, the runner-up lies closer to the likeliest token than this share of
            its probability.
        far: Refuted where it lies farther away than this at every value token.
    """
    return Claim(
        name="alternatives",
        text="close alternatives existed for a value of the answer",
        supported_when=f"thought_trace.signals.min_relative_margin < {near}",
        refuted_when=f"thought_trace.signals.min_relative_margin > {far}",
        score="-thought_trace.signals.min_relative_margin",
    )


def active_before(concept: str, above: float = 0.8, below: float = 0.2) -> Claim:
    """A concept was active before the answer: its probe reads the prompt, not what was generated.

    Args:
        concept: A concept that the action probes.
        above: Supported where the probe's calibrated probability is larger.
        below: Refuted where it is smaller.
    """
    before = f'thought_trace.concept_sites.{concept} in ["last_prompt", "mean_prompt"]'
    return Claim(
        name=f"{concept}_before",
        text=f"the concept {concept} was active before the answer",
        supported_when=f"{before} and thought_trace.active_concepts.{concept} > {above}",
        refuted_when=f"{before} and thought_trace.active_concepts.{concept} < {below}",
        score=f"thought_trace.active_concepts.{concept}",
    )


def from_context(concept: str = "from_context", above: float = 0.8, below: float = 0.2) -> Claim:
    """The answer came from what the prompt states, by a probe of yours on the states that produced the answer.

    Where it was measured, neither the attention on the prompt nor what single layers would have written told answers
    from the context and answers from memory apart (AUROC below .75, docs/claims.md); a linear probe did.

    Args:
        concept: A concept that the action probes, trained on answers whose origin is known.
        above: Supported where the probe's calibrated probability is larger.
        below: Refuted where it is smaller.
    """
    during = f'thought_trace.concept_sites.{concept} in ["mean_generated", "last_generated"]'
    return Claim(
        name="from_context",
        text="the answer came from the context",
        supported_when=f"{during} and thought_trace.active_concepts.{concept} > {above}",
        refuted_when=f"{during} and thought_trace.active_concepts.{concept} < {below}",
        score=f"thought_trace.active_concepts.{concept}",
    )
