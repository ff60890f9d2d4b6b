"""The mixture of experts of the reference backend against a loop over tokens in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from test_reference_ops import float_weight, normal, run_rows

from quipu.backends.program import ExpertWeights, MixtureWeights
from quipu.backends.reference import choose_experts


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_the_choice_of_experts() -> None:
    logits = np.log(np.array([[1, 6, 2, 1], [3, 3, 1, 3]], np.float32))
    ids, weights = choose_experts(logits, 2, normalize=False)
    assert ids.tolist() == [[1, 2], [0, 1]]  # of equal ones the first
    np.testing.assert_allclose(weights, [[0.6, 0.2], [0.3, 0.3]], rtol=1e-6)
    _, weights = choose_experts(logits, 2, normalize=True)
    np.testing.assert_allclose(weights, [[0.75, 0.25], [0.5, 0.5]], rtol=1e-6)
    _, weights = choose_experts(np.array([[1e4, -1e4, 9999.0]], np.float32), 3, normalize=True)
    np.testing.assert_allclose(weights, [[0.7310586, 0.2689414, 0]], rtol=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("shared", ["none", "plain", "weighted"])
def test_a_mixture_of_experts_token_by_token(rng: np.random.Generator, shared: str, normalize: bool) -> None:
    x, router, router_row = normal(rng, 6, 16), normal(rng, 4, 16), normal(rng, 1, 16)
    gate, up, down = normal(rng, 4, 20, 16), normal(rng, 4, 20, 16), normal(rng, 4, 16, 20)
    shared_gate, shared_up, shared_down = normal(rng, 8, 16), normal(rng, 8, 16), normal(rng, 16, 8)

    def feed_forward(row: NDArray[np.float64], *matrices: NDArray[np.float32]) -> NDArray[np.float64]:
        g, u = matrices[0] @ row, matrices[1] @ row
        return np.asarray(matrices[2] @ (g / (1 + np.exp(-g)) * u))

    expected = x.astype(np.float64)
    for token, row in enumerate(x.astype(np.float64)):
        shares = np.exp(router @ row) / np.exp(router @ row).sum()
        chosen = sorted(range(4), key=lambda e: -shares[e])[:2]
        total = sum(shares[chosen]) if normalize else 1.0
        for e in chosen:
            expected[token] += 1.5 * shares[e] / total * feed_forward(row, gate[e], up[e], down[e])
        if shared != "none":
            factor = 1 / (1 + np.exp(-router_row[0] @ row)) if shared == "weighted" else 1.0
            expected[token] += factor * feed_forward(row, shared_gate, shared_up, shared_down)
    weights = MixtureWeights(
        float_weight("router", router),
        ExpertWeights(
            float_weight("gate", gate.reshape(-1, 16)),
            float_weight("up", up.reshape(-1, 16)),
            float_weight("down", down.reshape(-1, 20)),
        ),
        None
        if shared == "none"
        else ExpertWeights(
            float_weight("sg", shared_gate), float_weight("su", shared_up), float_weight("sd", shared_down)
        ),
        float_weight("sr", router_row) if shared == "weighted" else None,
    )
    got = run_rows(x, lambda r, v: r.moe(v, weights, num_used=2, normalize=normalize, scale=1.5, residual=v))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
