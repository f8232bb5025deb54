"""`LensSystem`: decoder and encoder around the frozen target, as one module whose forward is one training step.

Everything that is differentiated happens inside `forward`, so that the hooks of data-parallel wrappers always fire.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lens_training.batch import Batch, Statistics
from lens_training.models.adapters import ANCHOR, AdaptedDecoder, AdaptedEncoder, Adapters
from lens_training.models.reached import freeze_unreached
from lens_training.models.target import TargetModel
from lens_training.objectives.losses import advantages, entropy, in_batch_delta, kl, kl_estimate, relative_error
from lens_training.objectives.straight_through import straight_through_embed
from lens_training.run_spec import Objective
from wonder.lens.decoder import Decoder, gumbel
from wonder.lens.encoder import Encoder

# Shape suffixes: B activations, G texts per activation, T tokens, V vocabulary, D d_model.


@dataclass(frozen=True)
class Weights:
    """The weight of each term at one step; 0 leaves a term out."""

    tau: float = 1.0
    """Temperature of the soft twin, for `ste_…`."""
    group: int = 4
    """Texts per activation, for `grpo`."""
    detach_feedback: bool = False
    """For `ste_recurrent`: what the decoder reads next is a constant, which makes it the same as `ste_parallel`."""
    kl: float = 0.0
    """Of KL(original ‖ replaced) at the position, to the encoder."""
    lm: float = 0.0
    """Of KL(decoder ‖ target on a neutral prompt) per token after the first `skip` ones."""
    anchor: float = 0.0
    """Of the KL to the decoder as it was after the warm start."""
    entropy: float = 0.0
    """Of what the mean token entropy of a text lacks to `entropy_floor`."""
    entropy_floor: float = 0.5
    delta: bool = False
    """Add another row's error to the reconstruction before the KL; another row of the same piece, so this term alone
    depends on how a batch is cut."""


@dataclass(frozen=True)
class StepOutput:
    """One step."""

    loss: Tensor
    """To be differentiated."""
    metrics: dict[str, float]


class LensSystem(nn.Module):
    """A lens under training."""

    def __init__(
        self,
        target: TargetModel,
        decoder: Decoder,
        encoder: Encoder,
        statistics: Statistics,
        *,
        length: int = 8,
        skip: int = 2,
        neutral: int = 1,
        adapters: Adapters | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            target: Frozen.
            decoder: Activation to text.
            encoder: Text to activation.
            statistics: Of the training set.
            length: Tokens of a text.
            skip: Tokens that the term `lm` leaves free.
            neutral: The token that begins the target's neutral prompt.
            adapters: Where decoder and encoder are adapters on the target; None: they are copies of it.
        """
        super().__init__()
        self.decoder = decoder
        self.encoder = encoder
        # In lists, so that the frozen models are no part of what is trained, saved or wrapped.
        self._target = [target]
        self._anchor: list[Decoder] = []
        self.adapters = adapters
        self.gathered: Callable[[], AbstractContextManager[None]] = nullcontext
        """Entered around a rollout: where parameters are spread over processes, they are brought together once."""
        self.variance = statistics.variance
        self.length, self.skip, self.neutral = length, skip, neutral
        freeze_unreached(encoder)

    @property
    def target(self) -> TargetModel:
        """The frozen model."""
        return self._target[0]

    @property
    def anchor(self) -> Decoder | None:
        """What the term `anchor` holds on to: a decoder that stays as it is."""
        return self._anchor[0] if self._anchor else None

    def anchor_to(self, decoder: Decoder) -> None:
        """Hold on to a frozen copy of the warm-started decoder."""
        self._anchor = [decoder if isinstance(decoder, AdaptedDecoder) else decoder.requires_grad_(False)]

    def make_anchor(self) -> None:
        """Hold on to the decoder as it is now; before it is wrapped or spread."""
        decoder = self.decoder
        self.anchor_to(decoder.anchored() if isinstance(decoder, AdaptedDecoder) else copy.deepcopy(decoder))

    def plain(self) -> tuple[Decoder, Encoder]:
        """Decoder and encoder as models of their own, as a bundle holds them: adapters are merged into copies."""
        decoder, encoder = self.decoder, self.encoder
        return (
            decoder.plain() if isinstance(decoder, AdaptedDecoder) else decoder,
            encoder.plain() if isinstance(encoder, AdaptedEncoder) else encoder,
        )

    def trained(self) -> dict[str, dict[str, nn.Parameter]]:
        """What is trained of `decoder` and `encoder`, by name; weights that are used twice stand there once."""
        found: dict[str, dict[str, nn.Parameter]] = {"decoder": {}, "encoder": {}}
        for name, parameter in self.named_parameters():
            owner = None if self.adapters is None else self.adapters.owner(name)
            if parameter.requires_grad:
                found[owner or name.partition(".")[0]][name] = parameter
        return found

    def anchored(self) -> dict[str, Tensor]:
        """The anchor's weights, by the names of the decoder's that they were copied from."""
        if self.anchor is None:
            return {}
        found: dict[str, Tensor] = {}
        for name, value in self.anchor.named_parameters():
            owner = None if self.adapters is None else self.adapters.owner(name)
            if self.adapters is None or owner == ANCHOR or not name.startswith("model."):
                found["decoder." + name.replace(f".{ANCHOR}.", ".decoder.")] = value
        return found

    def forward(self, batch: Batch, objective: Objective, seed: int, weights: Weights) -> StepOutput:
        """The loss of one step.

        Args:
            batch: Of activations.
            objective: What is optimised.
            seed: Of the texts that are drawn.
            weights: Of the terms at this step.
        """
        if objective == "warm_start":
            return self._warm_start(batch)
        if objective == "grpo":
            return self._grpo(batch, seed, weights)
        return self._straight_through(batch, seed, weights, recurrent=objective == "ste_recurrent")

    def reconstruct(self, ids_BT: Tensor) -> Tensor:
        """What the encoder reads in texts, (B, D)."""
        found: Tensor = self.encoder(self.encoder.embed(ids_BT))
        return found

    def _warm_start(self, batch: Batch) -> StepOutput:
        tail_BT = batch.tail(self.length)
        logits = self.decoder.token_logits(batch.activation_BD, tail_BT)
        said = nn.functional.cross_entropy(logits.flatten(0, 1), tail_BT.flatten())
        read = relative_error(self.reconstruct(tail_BT), batch.activation_BD, self.variance).mean()
        return StepOutput(said + read, {"ce": said.item(), "error_tail": read.item()})

    def _straight_through(self, batch: Batch, seed: int, weights: Weights, *, recurrent: bool) -> StepOutput:
        activation_BD = batch.activation_BD
        table_VD = self.encoder.embedding.weight
        if recurrent:
            ids_BT, embeds_BTD, logits_BTV = self._recurrent_rollout(batch, seed, weights)
        else:
            ids_BT = self._drawn(activation_BD, seed, batch.first)
            logits_BTV = self.decoder.token_logits(activation_BD, ids_BT)
            noise_BTV = self._noise(seed, logits_BTV, batch.first)
            embeds_BTD = straight_through_embed(logits_BTV, noise_BTV, ids_BT, table_VD, weights.tau)
        predicted_BD = self.encoder(embeds_BTD)
        error = relative_error(predicted_BD, activation_BD, self.variance).mean()
        extra, metrics = self._extra(batch, predicted_BD, ids_BT, logits_BTV, weights, seed)
        return StepOutput(error + extra, {"error": error.item(), **metrics})

    def _drawn(self, activation_BD: Tensor, seed: int, first: int, group: int = 1) -> Tensor:
        """Texts whose first has this number, `group` of each activation side by side, (B·G, T)."""
        with self.gathered():
            return self.decoder.rollout(activation_BD, self.length, seed=seed, first=first, group=group).ids_BT

    def _recurrent_rollout(self, batch: Batch, seed: int, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
        """The rollout with its graph: each token's straight-through embedding is also what the decoder reads next."""
        own_VD, table_VD = self.decoder.embedding.weight, self.encoder.embedding.weight
        logits_BV, cache = self.decoder.begin(batch.activation_BD)
        ids, read, all_logits = [], [], []
        for step in range(self.length):
            noise_BV = self._noise(seed, logits_BV[:, None], batch.first, step)[:, 0]
            ids_B1 = (logits_BV.detach() + noise_BV).argmax(-1, keepdim=True)
            pair = (logits_BV[:, None], noise_BV[:, None], ids_B1)
            ids.append(ids_B1)
            read.append(straight_through_embed(*pair, table_VD, weights.tau))
            all_logits.append(logits_BV[:, None])
            if step + 1 < self.length:
                # Given up where detached: the path from later logits back through earlier choices.
                fed = own_VD[ids_B1] if weights.detach_feedback else straight_through_embed(*pair, own_VD, weights.tau)
                logits_BV = self.decoder.go_on(fed[:, 0], cache)
        return torch.cat(ids, 1), torch.cat(read, 1), torch.cat(all_logits, 1)

    def _grpo(self, batch: Batch, seed: int, weights: Weights) -> StepOutput:
        group = weights.group
        ids_GT = self._drawn(batch.activation_BD, seed, batch.first * group, group)
        logits_GTV = self.decoder.token_logits(batch.activation_BD, ids_GT)
        log_p_GT = logits_GTV.log_softmax(-1).gather(-1, ids_GT[..., None])[..., 0]
        predicted_GD = self.reconstruct(ids_GT)
        error_G = relative_error(predicted_GD, batch.activation_BD.repeat_interleave(group, 0), self.variance)
        reward_BG = -error_G.detach().view(-1, group)
        policy = -(advantages(reward_BG).view(-1, 1) * log_p_GT).mean()
        extra, metrics = self._extra(batch, predicted_GD[::group], ids_GT, logits_GTV, weights, seed)
        loss = error_G.mean() + policy + extra
        spread = reward_BG.std(-1).mean().item()
        return StepOutput(loss, {"error": error_G.mean().item(), "reward_spread": spread, **metrics})

    def _extra(
        self,
        batch: Batch,
        predicted_BD: Tensor,
        ids_BT: Tensor,
        logits_BTV: Tensor,
        weights: Weights,
        seed: int,
    ) -> tuple[Tensor, dict[str, float]]:
        """The further terms, each only where it has a weight; texts and logits may be several per activation."""
        total = predicted_BD.new_zeros(())
        entropy_BT = entropy(logits_BTV)
        metrics = {"entropy": entropy_BT.mean().item()}
        if weights.kl:
            other_BD = predicted_BD
            if weights.delta:
                generator = torch.Generator().manual_seed(seed)
                order_B = torch.randperm(len(batch), generator=generator).to(predicted_BD.device)
                other_BD = in_batch_delta(predicted_BD, batch.activation_BD, order_B)
            term = kl(*self._next_tokens(batch, other_BD)).mean()
            total, metrics["kl"] = total + weights.kl * term, term.item()
        if weights.lm:
            term = kl(logits_BTV, self._neutral(ids_BT))[:, self.skip :].mean()
            total, metrics["lm"] = total + weights.lm * term, term.item()
        if weights.anchor and self.anchor is not None:
            with torch.no_grad():
                reference = self.anchor.token_logits(batch.activation_BD, ids_BT).log_softmax(-1)
            chosen = ids_BT[..., None]
            log_p = logits_BTV.log_softmax(-1).gather(-1, chosen)
            term = kl_estimate(log_p, reference.gather(-1, chosen)).mean()
            total, metrics["anchor"] = total + weights.anchor * term, term.item()
        if weights.entropy:
            # Per text, not of the batch: pieces of a batch must add up to the batch.
            term = torch.relu(weights.entropy_floor - entropy_BT.mean(-1)).mean()
            total, metrics["entropy_lack"] = total + weights.entropy * term, term.item()
        return total, metrics

    def _next_tokens(self, batch: Batch, replacement_BD: Tensor) -> tuple[Tensor, Tensor]:
        """The target's next-token logits with its own activation, and with the replacement."""
        target = self.target
        if not target.can_use_suffix:
            own = target.capture(batch.ids_BS, batch.pos_B)
            other = target.logits_with_replacement(batch.ids_BS, batch.pos_B, replacement_BD, "full")
            return target.logits(own.final_BD), other
        prefix = target.prefix(batch.ids_BS)
        rows = torch.arange(len(batch), device=batch.pos_B.device)
        own_BV = target.logits(prefix.final_BSD[rows, batch.pos_B])
        return own_BV, target.logits_with_replacement(batch.ids_BS, batch.pos_B, replacement_BD, prefix=prefix)

    @torch.no_grad()
    def _neutral(self, ids_BT: Tensor) -> Tensor:
        """The target's logits before each token of the texts, after its first token alone."""
        first = torch.full_like(ids_BT[:, :1], self.neutral)
        logits: Tensor = self.target.model(input_ids=torch.cat([first, ids_BT[:, :-1]], 1)).logits
        return logits.float() + self.decoder.bias_V  # type: ignore[operator]

    def _noise(self, seed: int, logits_BTV: Tensor, first: int, begin: int = 0) -> Tensor:
        rows, length, vocabulary = logits_BTV.shape
        shape, device = (rows, vocabulary), logits_BTV.device
        steps = [gumbel(seed, begin + step, shape, device, first) for step in range(length)]
        return torch.stack(steps, 1)
