"""Bytes that a step needs in one process: what is always there, and the most that comes on top of it.

What autograd keeps of a block was listed operation by operation, and is checked against PyTorch by tests.
"""

from dataclasses import dataclass, field
from typing import Final

from lens_training.plan.shape import DTYPES, Shape
from lens_training.plan.work import Lens, Terms
from lens_training.run_spec import Objective, ParallelSpec

WIDE: Final = 4
"""Bytes of a number in float32, in which all is that is trained."""
LOGITS: Final[dict[Objective, int]] = {"warm_start": 3, "ste_parallel": 6, "ste_recurrent": 6, "grpo": 5}
"""How many tensors of texts × tokens × vocabulary in float32 exist at once."""
LOGITS_ENTROPY, LOGITS_LM, LOGITS_ANCHOR = 1, 5, 1
DRAWN: Final = 4
"""Tensors of texts × vocabulary while a token is drawn."""


@dataclass(frozen=True)
class Sizes:
    """How many weights there are of what."""

    target: int
    decoder: int
    """Held by the decoder beside the target; under adapters those and its maps."""
    encoder: int
    decoder_trained: int
    encoder_trained: int

    @property
    def trained(self) -> int:
        """Weights that have a gradient."""
        return self.decoder_trained + self.encoder_trained


@dataclass(frozen=True)
class Memory:
    """Bytes of one process."""

    always: dict[str, float] = field(default_factory=dict)
    """By what they hold, for the whole run."""
    step: dict[str, float] = field(default_factory=dict)
    """At the fullest moment of a step."""
    moment: str = ""
    """Which one that is."""

    @property
    def total(self) -> float:
        """The most there is at once."""
        return sum(self.always.values()) + sum(self.step.values())


def sizes_of(lens: Lens) -> Sizes:
    """How many weights there are of what."""
    shape, width = lens.target, lens.target.width
    maps, head = lens.maps * (width**2 + width), width**2 + width
    if lens.rank is not None:
        decoder, encoder = shape.layers * lens.adapter + maps, (lens.layer + 1) * lens.adapter + head
        return Sizes(shape.parameters, decoder, encoder, decoder, encoder)
    cut = shape.embedding + (lens.layer + 1) * shape.block + shape.outside + head
    return Sizes(shape.parameters, shape.parameters + maps, cut, shape.parameters + maps, cut)


def kept(lens: Lens, parallel: ParallelSpec, tokens: float, keys: float) -> float:
    """Bytes that one block keeps for its backward pass.

    Args:
        lens: Its sizes.
        parallel: Whether it computes in bfloat16.
        tokens: That run through it.
        keys: Keys that are kept, each with its value; more than there are tokens where a cache grows.
    """
    shape = lens.target
    width, queries, inner = shape.width, shape.heads * shape.head_size, _inner(shape)
    own = _own(lens)
    adapted, half = lens.rank is not None, parallel.autocast == "bfloat16"
    number = 2 if half or own == 2 else 4
    attention = number * queries * 2 + 4 * shape.heads
    key_bytes = number * shape.key_bytes
    middle = 3 * inner if shape.gated else 5 * inner
    # Norms work in float32: their input is kept, and what their own weights are multiplied with if those are trained.
    norms = 2 * 4 * width * (1 if adapted else 2) if shape.gated else 2 * own * width
    if shape.head_norms:
        norms += 4 * (queries + shape.key_heads * shape.head_size) * (1 if adapted else 2)
    if not adapted:
        # Each linear map keeps its input: norms give three and two of them the same tensor, unless each casts its own.
        inputs = number * inner + (number * 5 * width if half else number * 2 * width)
    else:
        copies = half or own == 2
        ranks = (lens.rank or 0) * len(shape.maps)
        inputs = number * (inner + (5 * width + queries if copies else 2 * width) + ranks)
    return tokens * (norms + attention + number * middle + inputs) + keys * key_bytes


def memory(
    lens: Lens,
    parallel: ParallelSpec,
    objective: Objective,
    rows: int,
    group: int,
    terms: Terms,
    context: int,
    *,
    processes: int = 1,
    pieces: int = 1,
    average: bool = False,
    anchored: bool = False,
    frozen_encoder: bool = False,
) -> Memory:
    """Of one process at the fullest moment of a step.

    Args:
        lens: The models.
        parallel: How a step is spread.
        objective: Of the phase.
        rows: Activations of a piece of this process's batch.
        group: Texts per activation.
        terms: Of the loss.
        context: Tokens of a row's context.
        processes: Over which parameters are spread, for `fsdp2`.
        pieces: Of a batch; with several, gradients are there while activations are.
        average: Whether a moving average is kept.
        anchored: Whether a decoder is held on to.
        frozen_encoder: Whether the encoder's gradients are left out.
    """
    sizes, shape = sizes_of(lens), lens.target
    own = DTYPES[shape.dtype]
    share = processes if parallel.kind == "fsdp2" else 1
    trained = sizes.decoder_trained + (0 if frozen_encoder else sizes.encoder_trained)
    always = {
        "target": sizes.target * own,
        "decoder": sizes.decoder * WIDE / share,
        "encoder": sizes.encoder * WIDE / share,
        "optimizer": sizes.trained * (2 if parallel.eight_bit_adam else 2 * WIDE) / share,
    }
    if average:
        always["moving average"] = sizes.trained * WIDE / share
    if anchored:
        always["anchor"] = sizes.decoder * WIDE / share
    gradients = trained * WIDE / share
    texts = rows * (group if objective == "grpo" else 1)
    before, length = lens.left + 1 + lens.right, lens.length
    half = parallel.autocast == "bfloat16"
    number = 2 if half or _own(lens) == 2 else 4
    gathered = 0.0
    if share > 1:
        gathered = (shape.layers * shape.block * (2 if half else 4)) + (
            shape.parameters - shape.layers * shape.block
        ) * 4
    drawn = {
        "keys and values": texts * (before + length) * shape.key_bytes * shape.layers * number,
        "logits": DRAWN * texts * shape.vocabulary * WIDE,
        "gathered weights": gathered,
    }
    tokens, keys = _spoken(lens, rows, texts, objective)
    read = texts * (lens.encoder_left + length)
    many = LOGITS[objective] + LOGITS_ENTROPY * terms.entropy + LOGITS_LM * terms.lm + LOGITS_ANCHOR * terms.anchor
    runs = parallel.gradient_checkpointing
    # A block that uses a cache with a graph is not run again.
    again = runs and objective != "ste_recurrent"

    def inputs(tokens: float) -> float:
        return tokens * shape.width * (2 if _own(lens) == 2 else 4)

    passes = {
        "activations of the decoder": shape.layers * (inputs(tokens) if again else kept(lens, parallel, tokens, keys)),
        "activations of the encoder": (lens.layer + 1) * (inputs(read) if runs else kept(lens, parallel, read, read)),
        "logits": many * texts * length * shape.vocabulary * WIDE,
        "weights in bfloat16": _cast(lens, parallel),
    }
    if share > 1:
        passes["gathered weights"] = (
            2 * shape.block * (2 if half else 4) + (sizes.target - shape.layers * shape.block) * 4
        )
    if terms.kl:
        # All keys and values of the contexts, and what one block computes on the way.
        each = shape.key_bytes * shape.layers + 4 * shape.width + 3 * _inner(shape)
        passes["contexts"] = rows * context * each * (2 if half else own)
    if runs:
        passes["block that is run"] = kept(lens, parallel, read, read)
    # The encoder's backward pass comes first: its gradients are there while the decoder's activations still are. Those
    # of weights that are used at every token begin with the last token's.
    early = float(trained) - sizes.decoder_trained
    if objective == "ste_recurrent":
        early += sizes.decoder_trained * (0.5 if half else 1.0)
    backward = {name: passes[name] for name in ("activations of the decoder", "weights in bfloat16")}
    if again:
        backward["block that is run again"] = kept(lens, parallel, tokens, keys)
    backward["gradients"] = early * WIDE / share
    if pieces > 1:
        passes["gradients"] = drawn["gradients"] = backward["gradients"] = gradients
    # On a GPU all of a part's weights are moved at once, through tensors of their size.
    update = {"gradients": gradients, "update": sizes.trained * WIDE / share if lens.device == "cuda" else 0.0}
    moments = {"gradient pass": passes, "backward pass": backward, "rollout": drawn, "update": update}
    if objective in {"warm_start", "ste_recurrent"}:
        del moments["rollout"]
    fullest = max(moments, key=lambda name: sum(moments[name].values()))
    return Memory(_there(always), _there(moments[fullest]), fullest)


def _spoken(lens: Lens, rows: int, texts: int, objective: Objective) -> tuple[float, float]:
    """Tokens that run through the decoder's blocks with a graph, and the keys that are kept of them."""
    before, length = lens.left + 1 + lens.right, lens.length
    if objective == "ste_recurrent":
        left = lens.left if lens.left and lens.pays((rows - 1) * lens.left) else rows * lens.left
        return left + rows * (lens.right + length), texts * sum(before + step for step in range(length))
    group, keys = texts // rows, texts * (before + length - 1)
    # Where there are more keys than queries there is a mask, and keys are repeated for all heads that share them.
    masked = keys * lens.target.heads / lens.target.key_heads
    if group > 1 and length > 1 and lens.shares and lens.pays((group - 1) * rows * (1 + lens.right)):
        left = lens.left if lens.left and lens.pays((rows - 1) * lens.left) else rows * lens.left
        return left + rows * (1 + lens.right) + texts * (length - 1), masked
    if lens.left and lens.shares and lens.pays((texts - 1) * lens.left):
        return lens.left + texts * (lens.right + length), masked
    return texts * (before + length - 1), keys


def _cast(lens: Lens, parallel: ParallelSpec) -> float:
    """Weights in float32 that computing in bfloat16 keeps a copy of."""
    if parallel.autocast == "none" or parallel.kind == "fsdp2":
        return 0.0
    shape = lens.target
    if lens.rank is not None:
        return 2.0 * sizes_of(lens).trained
    return 2.0 * ((shape.layers + lens.layer + 1) * shape.block_active + shape.embedding)


def _own(lens: Lens) -> int:
    """Bytes of a weight of the blocks that are differentiated."""
    return WIDE if lens.rank is None else DTYPES[lens.target.dtype]


def _inner(shape: Shape) -> int:
    """Numbers between the two maps of the part without attention, for one token."""
    return shape.experts_used * shape.expert_size // (3 * shape.width) if shape.experts else shape.inner


def _there(parts: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in parts.items() if value}
