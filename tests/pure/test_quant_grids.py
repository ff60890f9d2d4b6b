"""The constant tables of the IQ types, against the gguf package, and their copy for the native side."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import gguf
import numpy as np
import pytest

from quipu.quant.grids import E2M1_DOUBLED_LEVELS, GRIDS, IQ4_NL_LEVELS, grid_values

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", GRIDS)
def test_grid_equals_the_gguf_package(name: str) -> None:
    oracle = getattr(gguf.quants, name)
    oracle.init_grid()
    np.testing.assert_array_equal(grid_values(name), oracle.grid[0, 0])


def test_levels_equal_the_gguf_package() -> None:
    assert gguf.quants.IQ4_NL.kvalues == IQ4_NL_LEVELS
    assert gguf.quants.MXFP4.kvalues == E2M1_DOUBLED_LEVELS


@pytest.mark.parametrize("name", GRIDS)
def test_grid_is_well_formed(name: str) -> None:
    """Entries are distinct, codes have no unused bits, and the cached values cannot be changed."""
    grid, values = GRIDS[name], grid_values(name)
    assert len(set(grid.code_list())) == len(values) == 2 ** (len(values).bit_length() - 1)
    assert max(grid.code_list()) < 2 ** (grid.num_values * grid.code_bits)
    with pytest.raises(ValueError, match="read-only"):
        values[0, 0] = 1


def test_native_tables_are_up_to_date() -> None:
    tool_path = ROOT / "tools" / "generate_grids.py"
    spec = importlib.util.spec_from_file_location("generate_grids", tool_path)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.OUTPUT.read_text(encoding="utf-8") == tool.render(), "run python tools/generate_grids.py"
