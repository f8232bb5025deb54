"""`Decoder`: an activation into a short text; a language model whose prompt holds the activation as one token."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from wonder.anatomy import examine
from wonder.errors import SettingNotSupported
from wonder.lens.cache import with_room
from wonder.lens.manifest import Injection

# Shape suffixes: B activations, N texts (B, or several per activation), T tokens of a text, P tokens of the prompt,
# D d_model, V vocabulary.

FORBIDDEN: Final = -1e4
"""Added to the logits of tokens that must not be spoken, in every path."""
NOISE_ROWS: Final = 16
"""Rows whose noise is drawn at once."""

PASS_TOKENS: Final = 64
PASS_TOKENS_GPU: Final = 256
"""From how many saved tokens on one more pass pays: measured on a CPU; on a GPU the weights of a pass take about as
long to read as so many tokens to compute."""


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
        # By name: the rest of the forward's signature differs from family to family.
        self._keeps = "logits_to_keep" in signature(type(model).forward).parameters
        width = self.anatomy.d_model
        self.injection: Final = injection
        self.one_pass = False
        """Whether what is differentiated is computed in one pass, though parts of it could be shared: blocks that are
        compiled, run again for their gradient, or spread over processes are used equally often then."""
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
        group: int = 1,
    ) -> Rollout:
        """Texts of `length` tokens with cached keys and values and without a graph.

        Args:
            activation_BD: To be spoken about.
            length: Tokens of each text.
            seed: Of the noise; None takes the likeliest token.
            temperature: Of the distribution that is drawn from.
            first: Number of the first text, for the noise.
            group: Texts per activation, which share the prompt's keys and values; they stand side by side.
        """
        found = []
        with self._evaluating():
            logits_NV, cache = self.begin(activation_BD, group=group, room=length - 1)
            for step in range(length):
                if seed is not None:
                    shape = (logits_NV.shape[0], logits_NV.shape[1])
                    logits_NV = logits_NV / temperature + gumbel(seed, step, shape, logits_NV.device, first)
                found.append(logits_NV.argmax(-1))
                if step + 1 < length:
                    logits_NV = self.go_on(self.embedding(found[-1]), cache)
        return Rollout(torch.stack(found, 1), seed, temperature, first)

    def token_logits(self, activation_BD: Tensor, ids_NT: Tensor) -> Tensor:
        """The logits that precede each token of given texts: (N, T, V), float32.

        Args:
            activation_BD: What the texts are about.
            ids_NT: The texts; several per activation stand side by side, and share what is computed of the prompt.
        """
        rows, (texts, length) = activation_BD.shape[0], ids_NT.shape
        group = texts // rows
        saved = (group - 1) * rows * (1 + len(self._buffer("right_P")))
        if length > 1 and group > 1 and self._pays(saved):
            first_NV, cache = self.begin(activation_BD, group=group)
            rest = self._forward(self.embedding(ids_NT[:, :-1]), cache, keep=length - 1)
            return torch.cat([first_NV[:, None], rest], 1)
        if group > 1:
            activation_BD = activation_BD.repeat_interleave(group, 0)
        left, cache = self._left(texts)
        prompt_NPD = self.prompt(activation_BD)[:, left:]
        with self._injected(activation_BD, left):
            whole = torch.cat([prompt_NPD, self.embedding(ids_NT[:, :-1])], 1)
            return self._forward(whole, cache if left else None, keep=length)

    def begin(self, activation_BD: Tensor, *, group: int = 1, room: int = 0) -> tuple[Tensor, DynamicCache]:
        """The logits of the first token, (N, V) float32, and the cache to go on with; everything has its graph.

        Args:
            activation_BD: To be spoken about.
            group: Texts per activation.
            room: Tokens that will follow, for which memory is set aside where there is no graph.

        Raises:
            SettingNotSupported: Blocks are run again for their gradient, and keep no cache.
        """
        if self._runs_again():
            raise SettingNotSupported(
                "gradient checkpointing leaves keys and values out of the cache, which a rollout with a graph needs: "
                "turn it off, or use ste_parallel instead of ste_recurrent"
            )
        if group > 1 and self.anatomy.is_recurrent:  # a running state is not repeated by its cache
            activation_BD, group = activation_BD.repeat_interleave(group, 0), 1
        left, cache = self._left(activation_BD.shape[0], room)
        with self._injected(activation_BD, left):
            logits_NV = self._forward(self.prompt(activation_BD)[:, left:], cache, keep=1)[:, -1]
        if group > 1:
            cache.batch_repeat_interleave(group)
            logits_NV = logits_NV.repeat_interleave(group, 0)
        return logits_NV, cache

    def go_on(self, embedding_BD: Tensor, cache: DynamicCache) -> Tensor:
        """The logits after one more token, (B, V) float32."""
        return self._forward(embedding_BD[:, None], cache, keep=1)[:, -1]

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

    def _left(self, rows: int, room: int = 0) -> tuple[int, DynamicCache]:
        """How many tokens of the prompt are the same for all rows and were run once, and the cache they are in."""
        cache = DynamicCache(config=self.model.config)
        left_P = self._buffer("left_P")
        if room > 0 and not torch.is_grad_enabled():
            with_room(cache, len(left_P) + 1 + len(self._buffer("right_P")) + room)
        if not self._pays((rows - 1) * len(left_P)):
            return 0, cache
        self._forward(self.embedding(left_P)[None], cache, keep=1)
        cache.batch_repeat_interleave(rows)
        return len(left_P), cache

    def _pays(self, saved: int) -> bool:
        """Whether one more pass is worth the tokens it saves, and a cache may be used at all."""
        if self.anatomy.is_recurrent or self._runs_again() or (self.one_pass and torch.is_grad_enabled()):
            return False
        return saved >= (PASS_TOKENS_GPU if self._buffer("left_P").is_cuda else PASS_TOKENS)

    def _runs_again(self) -> bool:
        """Whether blocks are run again for their gradient: what they would enter into a cache twice, they leave out."""
        return any(block.training and getattr(block, "gradient_checkpointing", False) for block in self.anatomy.blocks)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Without dropout, and with blocks that use a cache whatever they do for a gradient."""
        was = self.training
        self.train(False)
        try:
            yield
        finally:
            self.train(was)

    def _forward(self, embeds: Tensor, cache: DynamicCache | None = None, *, keep: int) -> Tensor:
        """The logits of the last `keep` tokens."""
        some = {"logits_to_keep": keep} if self._keeps else {}
        found = self.model(inputs_embeds=embeds, past_key_values=cache, use_cache=cache is not None, **some)
        return cast(Tensor, found.logits[:, -keep:].float() + self._buffer("bias_V"))

    @contextmanager
    def _injected(self, activation_BD: Tensor, left: int) -> Iterator[None]:
        """For the passes over the prompt without its first `left` tokens: what is written into the blocks."""
        at = len(self._buffer("left_P")) - left
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
