"""The sampling that a file recommends."""

from __future__ import annotations

import numpy as np
import pytest

from quipu.models import recommended_sampling
from quipu.types import SamplingParams


def test_known_keys_become_defaults() -> None:
    sampling, warnings = recommended_sampling(
        {
            "general.name": "x",
            "general.sampling.temp": 0.25,
            "general.sampling.top_k": 20,
            "general.sampling.top_p": 0.5,
            "general.sampling.min_p": 0.125,
            "general.sampling.penalty_last_n": 32,
            "general.sampling.penalty_repeat": 1.5,
            "general.sampling.xtc_probability": 0.0,
            "general.sampling.xtc_threshold": 0.1,
            "general.sampling.mirostat": 0,
        }
    )
    assert warnings == ()
    assert sampling == SamplingParams(
        temperature=0.25, top_k=20, top_p=0.5, min_p=0.125, repeat_last_n=32, repeat_penalty=1.5
    )


def test_nothing_recommended() -> None:
    assert recommended_sampling({"general.name": "x"}) == (SamplingParams(), ())


@pytest.mark.parametrize("value", ["hot", float("nan"), True, np.zeros(3), 1e30])
def test_impossible_values_are_left_out_with_a_warning(value: object) -> None:
    sampling, (warning,) = recommended_sampling({"general.sampling.temp": value, "general.sampling.top_k": 5})
    assert sampling == SamplingParams(top_k=5)
    assert "general.sampling.temp" in warning


def test_all_keys_of_the_specification() -> None:
    sampling, warnings = recommended_sampling(
        {
            "general.sampling.sequence": "kpt",
            "general.sampling.xtc_probability": 0.5,
            "general.sampling.xtc_threshold": 0.25,
            "general.sampling.mirostat": 2,
            "general.sampling.mirostat_tau": 4.0,
            "general.sampling.mirostat_eta": 0.25,
        }
    )
    assert warnings == ()
    assert sampling == SamplingParams(
        samplers=("top_k", "top_p", "temperature"),
        xtc_probability=0.5,
        xtc_threshold=0.25,
        mirostat=2,
        mirostat_tau=4.0,
        mirostat_eta=0.25,
    )


def test_what_is_not_known_or_contradicts_is_said() -> None:
    sampling, (warning,) = recommended_sampling({"general.sampling.new": 1})
    assert sampling == SamplingParams()
    assert warning == "the file recommends general.sampling.new, which is not available yet, so it has no effect"
    sampling, (warning,) = recommended_sampling({"general.sampling.mirostat": 1, "general.sampling.sequence": "ki"})
    assert sampling == SamplingParams()
    assert "contradict" in warning
