"""`Decoder`: an activation into a short text; a language model whose prompt holds the activation as one token."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from wonder.anatomy import examine
from wonder.lens.manifest import Injection

# Shape suffixes: B activations, T tokens of the text, P tokens of the prompt, D d_model, V vocabulary.

FORBIDDEN: Final = -1e4
"""Added to the logits of tokens that must not be spoken, in every path."""
NOISE_ROWS: Final = 16
"""Rows whose noise is drawn at once."""


@dataclass(frozen=True)
class Rollout:
    """Texts that were drawn, and what it takes to draw them again."""

    ids_BT: Tensor
    seed: int | None
    """Of the noise; None where the likeliest token was taken."""
    temperature: float
    first: int = 0
    """Number of the first row: the noise of a row depends on its number, not on the rows beside it."""


def gumbel(seed: int, step: int, shape: tuple[int, int], device: torch.device, first: int = 0) -> Tensor:
    """Standard Gumbel noise of one step; the same for the same seed, step and row, so that none has to be kept.

    The largest of logits + noise is an exact sample of softmax(logits) (Gumbel 1954; Jang et al. 2017).

    Args:
        seed: Of the texts.
        step: Token of the text.
        shape: (B, V).
        device: Where it is drawn; another kind of device draws other numbers.
        first: Number of the first row. Rows drawn apart, in other processes even, are those drawn together.
    """
    rows, vocabulary = shape
    blocks = range(first // NOISE_ROWS, -(-(first + rows) // NOISE_ROWS))
    generator = torch.Generator(device=device)
    drawn = []
    for block in blocks:
        generator.manual_seed(((seed * 1_000_003 + step) * 1_000_033 + block) % 2**63)
        drawn.append(torch.rand(NOISE_ROWS, vocabulary, generator=generator, device=device))
    skipped = first - blocks.start * NOISE_ROWS
    uniform = torch.cat(drawn)[skipped : skipped + rows].clamp_(1e-20, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))


class Decoder(nn.Module):
    """Speaks about activations."""

    def __init__(
        self,
        model: PreTrainedModel,
        mean_D: Tensor,
        scale: float,
        *,
        left: Sequence[int],
        right: Sequence[int],
        forbidden: Sequence[int] = (),
        injection: Injection = "projection",
        written_blocks: int = 4,
    ) -> None:
        """Take a model over.

        Args:
            model: A causal language model with the target's width; trained.
            mean_D: Mean activation of the training set.
            scale: By which a centred activation becomes as long as a token's embedding.
            left: Token ids before the activation's token.
            right: Token ids after it.
            forbidden: Tokens never spoken: padding, markers.
            injection: How the activation enters.
            written_blocks: Blocks before which `per_layer` writes.
        """
        super().__init__()
        self.model = model
        self.anatomy = examine(model)
        width = self.anatomy.d_model
        self.injection: Final = injection
        self.register_buffer("mean_D", mean_D.detach().clone())
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.register_buffer("left_P", torch.tensor(list(left), dtype=torch.long))
        self.register_buffer("right_P", torch.tensor(list(right), dtype=torch.long))
        bias_V = torch.zeros(self.anatomy.vocabulary)
        bias_V[list(forbidden)] = FORBIDDEN
        self.register_buffer("bias_V", bias_V)
        count = min(written_blocks, self.anatomy.n_layers) if injection == "per_layer" else 1
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in range(count if injection != "scale" else 0))
        for linear in cast("list[nn.Linear]", list(self.maps)):
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)

    @property
    def embedding(self) -> nn.Embedding:
        """The table of token embeddings."""
        return cast(nn.Embedding, self.model.get_input_embeddings())

    @torch.no_grad()
    def rollout(
        self,
        activation_BD: Tensor,
        length: int,
        *,
        seed: int | None = None,
        temperature: float = 1.0,
        first: int = 0,
    ) -> Rollout:
        """Texts of `length` tokens, one per activation, with cached keys and values and without a graph.

        Args:
            activation_BD: To be spoken about.
            length: Tokens of each text.
            seed: Of the noise; None takes the likeliest token.
            temperature: Of the distribution that is drawn from.
            first: Number of the first row, for the noise.
        """
        logits_BV, cache = self.begin(activation_BD)
        found = []
        for step in range(length):
            if seed is not None:
                logits_BV = logits_BV / temperature + gumbel(
                    seed, step, (logits_BV.shape[0], logits_BV.shape[1]), logits_BV.device, first
                )
            found.append(logits_BV.argmax(-1))
            if step + 1 < length:
                logits_BV = self.go_on(self.embedding(found[-1]), cache)
        return Rollout(torch.stack(found, 1), seed, temperature, first)

    def token_logits(self, activation_BD: Tensor, ids_BT: Tensor) -> Tensor:
        """The logits that precede each token of a given text, in one pass: (B, T, V), float32."""
        prompt_BPD = self.prompt(activation_BD)
        whole = torch.cat([prompt_BPD, self.embedding(ids_BT[:, :-1])], 1)
        with self._injected(activation_BD):
            logits = self._forward(whole)
        return logits[:, prompt_BPD.shape[1] - 1 :]

    def begin(self, activation_BD: Tensor) -> tuple[Tensor, DynamicCache]:
        """The logits of the first token, (B, V) float32, and the cache to go on with; everything has its graph."""
        cache = DynamicCache(config=self.model.config)
        with self._injected(activation_BD):
            return self._forward(self.prompt(activation_BD), cache)[:, -1], cache

    def go_on(self, embedding_BD: Tensor, cache: DynamicCache) -> Tensor:
        """The logits after one more token, (B, V) float32."""
        return self._forward(embedding_BD[:, None], cache)[:, -1]

    def prompt(self, activation_BD: Tensor) -> Tensor:
        """The embeddings of the prompt, the activation among them: (B, P, D)."""
        rows = activation_BD.shape[0]
        left = self.embedding(self._buffer("left_P")).expand(rows, -1, -1)
        right = self.embedding(self._buffer("right_P")).expand(rows, -1, -1)
        token_BD = self.spoken(activation_BD)
        return torch.cat([left, token_BD[:, None].to(left.dtype), right], 1)

    def spoken(self, activation_BD: Tensor, at: int = 0) -> Tensor:
        """The activation as the token that the model reads (before block `at`, for `per_layer`)."""
        centred = (activation_BD.float() - self._buffer("mean_D")) * self._buffer("scale")
        if self.injection == "scale":
            length = self._buffer("mean_D").numel() ** 0.5 * self.embedding.weight.float().std()
            return cast(Tensor, nn.functional.normalize(centred, dim=-1) * length)
        return cast(Tensor, self.maps[at](centred))

    def _forward(self, embeds: Tensor, cache: DynamicCache | None = None) -> Tensor:
        found = self.model(inputs_embeds=embeds, past_key_values=cache, use_cache=cache is not None)
        return cast(Tensor, found.logits.float() + self._buffer("bias_V"))

    @contextmanager
    def _injected(self, activation_BD: Tensor) -> Iterator[None]:
        """For the passes over the prompt: what is written into the blocks besides the token."""
        at = len(self._buffer("left_P"))
        handles = []

        def write(block: int) -> Any:
            def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:  # noqa: ARG001 - the signature of a hook
                states, changed_kwargs = (args[0], None) if args else (kwargs["hidden_states"], kwargs)
                changed = states.clone()
                changed[:, at] = self.spoken(activation_BD, block).to(states.dtype)
                if changed_kwargs is None:
                    return (changed, *args[1:]), kwargs
                return args, {**kwargs, "hidden_states": changed}

            return hook

        def add(module: nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG001 - the signature of a hook
            states = output[0] if isinstance(output, tuple) else output
            direction_BD = nn.functional.normalize(self.spoken(activation_BD), dim=-1).to(states.dtype)
            changed = states.clone()
            changed[:, at] = states[:, at] + direction_BD * states[:, at].norm(dim=-1, keepdim=True)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        if self.injection == "per_layer":
            for block in range(1, len(self.maps)):
                handles.append(self.anatomy.blocks[block].register_forward_pre_hook(write(block), with_kwargs=True))
        elif self.injection == "additive":
            handles.append(self.anatomy.blocks[min(1, self.anatomy.n_layers - 1)].register_forward_hook(add))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _buffer(self, name: str) -> Tensor:
        return cast(Tensor, getattr(self, name))
