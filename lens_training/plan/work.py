"""Floating-point operations of a step, counted as PyTorch's own counter does: two per multiplication with addition."""

from dataclasses import dataclass, field
from typing import Final, Literal

from lens_training.plan.shape import Shape
from lens_training.run_spec import Injection, Objective

Pass = Literal["forward", "states", "weights"]
"""`forward` alone; with the gradients of states; with those of weights as well."""

SHARE_FROM: Final = {"cpu": 64, "cuda": 256}
"""As `wonder.lens.decoder`: from so many saved tokens on, a prompt is computed once for those that share it."""


@dataclass(frozen=True)
class Terms:
    """Which further terms of the loss have a weight."""

    kl: bool = False
    lm: bool = False
    anchor: bool = False
    entropy: bool = False


@dataclass(frozen=True)
class Lens:
    """What of a lens its costs depend on."""

    target: Shape
    layer: int
    length: int
    left: int
    """Tokens before the activation."""
    right: int
    """Tokens after it."""
    encoder_left: int
    injection: Injection = "projection"
    written_blocks: int = 4
    rank: int | None = None
    """Of the adapters; None: decoder and encoder are copies."""
    modules: tuple[str, ...] = ()
    shares: bool = True
    """Whether texts of one activation may share its prompt in passes that are differentiated."""
    device: Literal["cpu", "cuda"] = "cpu"

    @property
    def adapter(self) -> int:
        """Weights of an adapter in one block."""
        if self.rank is None:
            return 0
        chosen = [each for each in self.target.maps if not self.modules or each.name in self.modules]
        return self.rank * sum(each.inputs + each.outputs for each in chosen)

    @property
    def maps(self) -> int:
        """Linear maps by which the activation enters."""
        if self.injection == "scale":
            return 0
        return min(self.written_blocks, self.target.layers) if self.injection == "per_layer" else 1

    def pays(self, saved: int) -> bool:
        """Whether one more pass is worth the tokens it saves."""
        return saved >= SHARE_FROM[self.device]


@dataclass(frozen=True)
class Work:
    """FLOPs of one step in one process, by what they are spent on."""

    parts: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Run:
    """Tokens that run through blocks together: `queries` of each of `rows`, each seeing `keys`."""

    rows: int
    queries: int
    keys: int

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.rows * self.queries


def blocks_work(lens: Lens, run: Run, blocks: int, how: Pass, *, adapted: bool) -> float:
    """Of some blocks.

    Args:
        lens: Its target's blocks.
        run: What runs through.
        blocks: How many.
        how: Whether backward too.
        adapted: Whether adapters are on; their weights are what gradients are for then.
    """
    shape = lens.target
    linear = 2.0 * shape.block_active * run.tokens
    attention = 4.0 * shape.heads * shape.head_size * run.tokens * run.keys
    adapter = 2.0 * lens.adapter * run.tokens if adapted else 0.0
    own = {"forward": 1, "states": 2, "weights": 2 if adapted and lens.rank else 3}[how]
    return blocks * (
        linear * own + attention * (1 if how == "forward" else 3) + adapter * (1 if how == "forward" else 3)
    )


def head_work(lens: Lens, tokens: int, how: Pass) -> float:
    """Of the map to the vocabulary; with adapters it is frozen."""
    factor = {"forward": 1, "states": 2, "weights": 2 if lens.rank else 3}[how]
    return 2.0 * lens.target.embedding * tokens * factor


def injection_work(lens: Lens, rows: int, how: Pass) -> float:
    """Of the maps by which activations enter; their weights are trained, activations are data."""
    return 2.0 * lens.target.width**2 * rows * lens.maps * (1 if how == "forward" else 2)


def prompt_work(lens: Lens, rows: int, how: Pass) -> float:
    """Of what stands before a text, for so many activations, up to the logits of the first token."""
    left, rest, layers = lens.left, 1 + lens.right, lens.target.layers
    total = injection_work(lens, rows, how)
    keys = left + rest
    if left and lens.pays((rows - 1) * left):
        total += blocks_work(lens, Run(1, left, left), layers, how, adapted=True) + head_work(lens, 1, "forward")
        total += blocks_work(lens, Run(rows, rest, keys), layers, how, adapted=True)
    else:
        total += blocks_work(lens, Run(rows, keys, keys), layers, how, adapted=True)
    return total + head_work(lens, rows, how)


def rollout_work(lens: Lens, rows: int, group: int, how: Pass = "forward") -> float:
    """Of texts drawn token by token with cached keys and values."""
    texts, before = rows * group, lens.left + 1 + lens.right
    total = prompt_work(lens, rows, how)
    for step in range(1, lens.length):
        total += blocks_work(lens, Run(texts, 1, before + step), lens.target.layers, how, adapted=True)
        total += head_work(lens, texts, how)
    return total


def spoken_work(lens: Lens, rows: int, group: int, how: Pass) -> float:
    """Of the decoder's logits of given texts in one pass."""
    texts, layers, length = rows * group, lens.target.layers, lens.length
    rest = 1 + lens.right
    shares = lens.shares or how == "forward"
    if group > 1 and length > 1 and shares and lens.pays((group - 1) * rows * rest):
        total = prompt_work(lens, rows, how)
        run = Run(texts, length - 1, lens.left + rest + length - 1)
        return total + blocks_work(lens, run, layers, how, adapted=True) + head_work(lens, texts * (length - 1), how)
    total = injection_work(lens, texts, how) + head_work(lens, texts * length, how)
    if lens.left and shares and lens.pays((texts - 1) * lens.left):
        total += blocks_work(lens, Run(1, lens.left, lens.left), layers, how, adapted=True) + head_work(
            lens, 1, "forward"
        )
        run = Run(texts, rest + length - 1, lens.left + rest + length - 1)
    else:
        run = Run(texts, lens.left + rest + length - 1, lens.left + rest + length - 1)
    return total + blocks_work(lens, run, layers, how, adapted=True)


def read_work(lens: Lens, texts: int, how: Pass) -> float:
    """Of the encoder."""
    tokens = lens.encoder_left + lens.length
    total = blocks_work(lens, Run(texts, tokens, tokens), lens.layer + 1, how, adapted=True)
    return total + 2.0 * lens.target.width**2 * texts * (1 if how == "forward" else 3)


def kl_work(lens: Lens, rows: int, context: int) -> float:
    """Of the target's next token with its own activation and with the reconstruction."""
    shape = lens.target
    total = blocks_work(lens, Run(rows, context, context), shape.layers, "forward", adapted=False)
    above = shape.layers - lens.layer - 1
    total += blocks_work(lens, Run(rows, 1, context + 1), above, "states", adapted=False)
    return total + head_work(lens, rows, "forward") + head_work(lens, rows, "states")


def step_work(
    lens: Lens, objective: Objective, rows: int, group: int, terms: Terms, context: int, *, train: bool = True
) -> Work:
    """Of a step.

    Args:
        lens: The models.
        objective: Of the phase.
        rows: Activations of this process.
        group: Texts per activation, for `grpo`.
        terms: Of the loss.
        context: Tokens of a row's context.
        train: Whether the decoder is; a learning rate of 0 does not take gradients of it.
    """
    group = group if objective == "grpo" else 1
    texts, length, shape = rows * group, lens.length, lens.target
    back: Pass = "weights" if train else "forward"
    parts: dict[str, float] = {}
    if objective == "ste_recurrent":
        # Through the encoder's table each token has a gradient, through the decoder's each that is spoken on from.
        soft = 2.0 * shape.embedding * texts * (2 * length - 1)
        parts["decoder"] = rollout_work(lens, rows, 1, "weights") + soft
    else:
        if objective != "warm_start":
            parts["rollout"] = rollout_work(lens, rows, group)
        parts["decoder"] = spoken_work(lens, rows, group, back)
        if objective == "ste_parallel":
            parts["decoder"] += 2.0 * shape.embedding * texts * length
    parts["encoder"] = read_work(lens, texts, "weights")
    if objective == "warm_start":
        return Work(parts)
    if terms.kl:
        parts["kl"] = kl_work(lens, rows, context)
    if terms.lm:
        run = Run(texts, length, length)
        parts["lm"] = blocks_work(lens, run, shape.layers, "forward", adapted=False)
        parts["lm"] += head_work(lens, texts * length, "forward")
    if terms.anchor:
        parts["anchor"] = spoken_work(lens, rows, group, "forward")
    return Work(parts)
