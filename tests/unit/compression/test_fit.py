"""The basis of a compressor: probes first, principal directions after, whatever the order of the pieces."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wonder.compression.codes import decode, encode
from wonder.compression.fit import Basis, Covariance, fit

D = 12


def states(count: int = 300, seed: int = 0) -> Tensor:
    """States with a few strong directions, far from the origin."""
    made = torch.Generator().manual_seed(seed)
    mixing = torch.randn(D, D, generator=made) * torch.logspace(1, -1, D)
    return torch.randn(count, D, generator=made) @ mixing.T + 50


def gathered(*pieces: Tensor) -> Covariance:
    found = Covariance(D)
    for piece in pieces:
        found.update(piece)
    return found


def some_basis(dims: int = D, probes: int = 2) -> Basis:
    directions = torch.randn(probes, D, generator=torch.Generator().manual_seed(9))
    return fit(gathered(states()), directions, dims)


@given(st.lists(st.integers(0, 300), max_size=4), st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_pieces_gathered_apart_and_merged_give_the_covariance_of_all(cuts: list[int], merged_at: int) -> None:
    whole = states()
    pieces = [whole[start:stop] for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 300], strict=True)]
    first, second = gathered(*pieces[:merged_at]), gathered(*pieces[merged_at:])
    first.merge(second)
    assert first.count == 300
    torch.testing.assert_close(first.mean_D, whole.double().mean(0))
    torch.testing.assert_close(first.scatter_DD / 299, whole.double().T.cov(), rtol=1e-9, atol=1e-9)


def test_without_probes_the_basis_is_that_of_principal_components() -> None:
    whole = states()
    basis = fit(gathered(whole), torch.zeros(0, D), 5)
    _, _, vectors = torch.linalg.svd(whole.double() - whole.double().mean(0), full_matrices=False)
    torch.testing.assert_close((basis.basis_KD @ vectors[:5].T).abs(), torch.eye(5).double(), atol=1e-6, rtol=0)


def test_a_basis_is_orthonormal_and_its_first_coordinates_span_the_probes() -> None:
    basis = some_basis(probes=3)
    torch.testing.assert_close(basis.basis_KD @ basis.basis_KD.T, torch.eye(D).double(), atol=1e-12, rtol=0)
    directions = torch.randn(3, D, generator=torch.Generator().manual_seed(9)).double()
    block = basis.basis_KD[:3]
    torch.testing.assert_close(directions @ block.T @ block, directions)


def test_a_probe_that_repeats_another_or_is_zero_takes_no_coordinate() -> None:
    direction = torch.randn(1, D, generator=torch.Generator().manual_seed(1))
    basis = fit(gathered(states()), torch.cat([direction, 3 * direction, torch.zeros(1, D)]), D)
    assert basis.probe_dims == 1


def test_codes_are_nested() -> None:
    small, large = some_basis(5), some_basis(D)
    torch.testing.assert_close(small.basis_KD, large.basis_KD[:5], atol=1e-9, rtol=0)
    assert torch.equal(encode(states(), large, D)[:, :5], encode(states(), large, 5))


def test_the_fit_is_the_same_every_time_down_to_the_signs() -> None:
    assert torch.equal(some_basis().basis_KD, some_basis().basis_KD)
    shuffled = fit(gathered(*states().flip(0).split(7)), torch.zeros(0, D), D)
    torch.testing.assert_close(shuffled.basis_KD, fit(gathered(states()), torch.zeros(0, D), D).basis_KD)


def test_all_coordinates_together_give_the_state_back() -> None:
    basis = some_basis()
    again = decode(encode(states(seed=4), basis, D), basis)
    width = float(basis.range_K.max())
    torch.testing.assert_close(again, states(seed=4).double(), atol=width / 500, rtol=0)


def test_numbers_of_a_code_are_short() -> None:
    basis = some_basis()
    for row in encode(states(), basis, D).tolist():
        assert all(len(repr(value).strip("-0").replace(".", "").lstrip("0")) <= 7 for value in row)


def test_rounding_is_finer_than_eight_bits() -> None:
    basis = some_basis()
    exact = (states().double() - basis.mean_D) @ basis.basis_KD.T
    error = (encode(states(), basis, D) - exact).abs().amax(0)
    assert (error < basis.range_K / 254 / 2).all()


def test_directions_in_which_nothing_moves_are_coded_too() -> None:
    flat = states()
    flat[:, 3] = 7.0
    basis = fit(gathered(flat), torch.zeros(0, D), D)
    assert encode(flat, basis, D).isfinite().all()
    torch.testing.assert_close(decode(encode(flat, basis, D), basis), flat.double(), atol=0.5, rtol=0)


@pytest.mark.parametrize(
    ("count", "dims", "reason"), [(1, 3, "at least 2"), (50, D + 1, "wanted 2..12"), (50, 1, "room for 2 probe")]
)
def test_what_cannot_be_fitted_is_refused(count: int, dims: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        fit(gathered(states(count)), torch.eye(D)[:2], dims)


def test_a_state_that_is_not_finite_does_not_spoil_the_rest() -> None:
    covariance = gathered(states())
    before = covariance.scatter_DD.clone()
    with pytest.raises(ValueError, match="not finite"):
        covariance.update(torch.full((1, D), float("nan")))
    assert torch.equal(covariance.scatter_DD, before)
