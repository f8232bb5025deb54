"""Where raw states are read: layer × site, found on the loaded model by structure and one trial pass."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wonder.anatomy import Anatomy
from wonder.engine.raw_data import Site
from wonder.errors import SettingNotSupported

# Shape suffixes: B rows, S columns, D d_model, R rows that are kept.

TRIAL_TOKENS: Final = 5
FLOAT32_TOLERANCE: Final = 1e-3
COARSE_TOLERANCE: Final = 0.1


@dataclass(frozen=True)
class Point:
    """One tensor of each forward pass: what goes into a module, or what comes out."""

    layer: int
    site: Site
    module: nn.Module
    side: Literal["input", "output"]

    @property
    def name(self) -> str:
        """Its key in a shard."""
        return f"{self.site}.{self.layer}"


@dataclass
class _Seen:
    module: nn.Module
    calls: int = 0
    given: Tensor | None = None
    gave: Tensor | None = None
    before: Tensor | None = None
    """Copy of `given`, for models that change it later."""
    after: Tensor | None = None


class Reader:
    """Keeps the chosen rows of every point during a pass; changes nothing."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = points
        self._rows_R: Tensor | None = None
        self._kept: dict[str, Tensor] = {}

    @contextmanager
    def on(self) -> Iterator[None]:
        """Put the hooks on the model."""
        with ExitStack() as stack:
            for point in self._points:
                if point.side == "input":
                    handle = point.module.register_forward_pre_hook(self._before(point), with_kwargs=True)
                else:
                    handle = point.module.register_forward_hook(self._after(point))
                stack.callback(handle.remove)
            yield

    @contextmanager
    def rows(self, rows_R: Tensor) -> Iterator[dict[str, Tensor]]:
        """Read one pass: these rows of the flattened (B × S) batch; the dict is filled with copies (R, D)."""
        self._rows_R, self._kept = rows_R, {}
        try:
            yield self._kept
        finally:
            self._rows_R = None

    def _before(self, point: Point) -> Any:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            self._keep(point, _tensor_in(args, kwargs))

        return hook

    def _after(self, point: Point) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            self._keep(point, _tensor_out(output))

        return hook

    def _keep(self, point: Point, states: Tensor | None) -> None:
        if self._rows_R is None or states is None:
            return
        flat = states.detach().reshape(-1, states.shape[-1])
        self._kept[point.name] = flat.index_select(0, self._rows_R.to(flat.device))


def find_points(
    model: PreTrainedModel, anatomy: Anatomy, layers: Sequence[int], sites: Sequence[Site], device: torch.device
) -> list[Point]:
    """The points of a model.

    Raises:
        SettingNotSupported: The model has no such layer, or no such site there; the message says why.
    """
    if unknown := [layer for layer in layers if not 0 <= layer < anatomy.n_layers]:
        raise SettingNotSupported(f"layers {unknown} do not exist: this model has layers 0 to {anatomy.n_layers - 1}")
    trial = _Trial(model, anatomy, layers, device)
    found = [trial.point(layer, site) for layer in layers for site in sites]
    if missing := list(dict.fromkeys(reason for reason in found if isinstance(reason, str))):
        raise SettingNotSupported(f"{type(model).__name__} cannot be read everywhere: {'; '.join(missing)}")
    return [point for point in found if isinstance(point, Point)]


def forward(model: PreTrainedModel, ids_BS: Tensor, mask_BS: Tensor | None = None) -> None:
    """One pass without cache; logits are computed for one column only, where the model can leave the others out."""
    positions_BS = torch.arange(ids_BS.shape[1], device=ids_BS.device).expand(ids_BS.shape[0], -1)
    options = {"position_ids": positions_BS, "logits_to_keep": 1, "attention_mask": mask_BS, "use_cache": False}
    accepted = signature(model.forward).parameters
    model(input_ids=ids_BS, **{name: value for name, value in options.items() if name in accepted})


@dataclass
class _Trial:
    """One pass over a few tokens, with everything that the blocks and their parts take and give."""

    model: PreTrainedModel
    anatomy: Anatomy
    layers: Sequence[int]
    device: torch.device
    seen: dict[nn.Module, _Seen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        modules = [
            part
            for layer in self.layers
            for part in (self._block(layer), *dict(self._block(layer).named_children()).values())
        ]
        with ExitStack() as stack, torch.inference_mode():
            for module in modules:
                self.seen[module] = seen = _Seen(module)
                stack.callback(module.register_forward_pre_hook(_note_input(seen), with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(_note_output(seen)).remove)
            forward(self.model, torch.arange(TRIAL_TOKENS, device=self.device)[None] % self.anatomy.vocabulary)

    def point(self, layer: int, site: Site) -> Point | str:
        """The point, or why there is none."""
        block = self._block(layer)
        if site in ("resid_pre", "resid_post"):
            side: Literal["input", "output"] = "input" if site == "resid_pre" else "output"
            return self._checked(Point(layer, site, block, side))
        if site == "attn_out":
            found = self._attention(block)
            return found if isinstance(found, str) else self._checked(Point(layer, site, found, "output"))
        mlp = self._mlp(block)
        if isinstance(mlp, str):
            return mlp
        if site == "mlp_out":
            return self._checked(Point(layer, site, mlp, "output"))
        middle = self._middle(block, mlp)
        return middle if isinstance(middle, str) else self._checked(Point(layer, site, middle, "input"))

    def _block(self, layer: int) -> nn.Module:
        return self.anatomy.blocks[layer]

    def _checked(self, point: Point) -> Point | str:
        seen = self.seen[point.module]
        states = seen.given if point.side == "input" else seen.gave
        if seen.calls != 1:
            return f"{point.name} (the module ran {seen.calls} times in a pass)"
        if (
            states is None
            or states.shape[-1] != self.anatomy.d_model
            or states.numel() != TRIAL_TOKENS * states.shape[-1]
        ):
            shape = None if states is None else list(states.shape)
            return f"{point.name} (its shape is {shape}, wanted {self.anatomy.d_model} numbers a token)"
        return point

    def _attention(self, block: nn.Module) -> nn.Module | str:
        found = [part for part in block.children() if _takes_a_mask(part)]
        return found[0] if len(found) == 1 else f"attn_out (a block has {len(found)} attention parts)"

    def _mlp(self, block: nn.Module) -> nn.Module | str:
        """The one part with a matrix in it that is not attention; norms have vectors only."""
        found = [
            part
            for part in block.children()
            if not _takes_a_mask(part) and any(weight.ndim > 1 for weight in part.parameters())
        ]
        return found[0] if len(found) == 1 else f"mlp_out and resid_mid (a block has {len(found)} parts like an MLP)"

    def _middle(self, block: nn.Module, mlp: nn.Module) -> nn.Module | str:
        """The module whose input is the residual stream between attention and MLP: the MLP's norm, or the MLP."""
        whole, fed = self.seen[block], self.seen[mlp]
        before = [
            self.seen[part]
            for part in block.children()
            if part is not mlp and not _takes_a_mask(part) and _same(self.seen[part].gave, fed.given)
        ]
        middle = before[0] if len(before) == 1 else fed
        if _same(middle.given, whole.given):
            return "resid_mid (attention and MLP run side by side)"
        # What comes after: the MLP's output or, where a norm follows it, that norm's.
        later = [fed, *(self.seen[part] for part in block.children() if _same(self.seen[part].given, fed.gave))]
        if not any(_adds_up(middle.before, one.after, whole.after) for one in later):
            return "resid_mid (the block's output is not this state plus what the MLP gives)"
        return middle.module


def _takes_a_mask(part: nn.Module) -> bool:
    return "attention_mask" in signature(part.forward).parameters


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.data_ptr() == other.data_ptr() and one.numel() == other.numel()


def _adds_up(state: Tensor | None, added: Tensor | None, result: Tensor | None) -> bool:
    """Whether result = state + c × added for some number c: some models scale what a part adds."""
    if state is None or added is None or result is None or not state.numel() == added.numel() == result.numel():
        return False
    change, part = (result - state).reshape(-1).float(), added.reshape(-1).float()
    scale = change.dot(part) / part.dot(part).clamp_min(1e-30)
    tolerance = FLOAT32_TOLERANCE if result.dtype == torch.float32 else COARSE_TOLERANCE
    return bool((change - scale * part).norm() <= tolerance * change.norm())


def _note_input(seen: _Seen) -> Any:
    def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
        seen.calls += 1
        seen.given = _tensor_in(args, kwargs)
        seen.before = None if seen.given is None else seen.given.clone()

    return hook


def _note_output(seen: _Seen) -> Any:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.gave = _tensor_out(output)
        seen.after = None if seen.gave is None else seen.gave.clone()

    return hook


def _tensor_in(args: Any, kwargs: Any) -> Tensor | None:
    first = args[0] if args else kwargs.get("hidden_states")
    return first if isinstance(first, Tensor) else None


def _tensor_out(output: Any) -> Tensor | None:
    first = output[0] if isinstance(output, tuple | list) and output else output
    return first if isinstance(first, Tensor) else None
