"""The network: the published size, what it computes, and that it learns."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

from sciml_hpc.benchmarks import find
from sciml_hpc.benchmarks.saxs import Recipe, Saxs
from sciml_hpc.benchmarks.saxs.native import FIELDS


def test_published_layers() -> None:
    """300 inputs, 100 hidden units, one output: 300·100 + 100 + 100 + 1 parameters."""
    model = Saxs(Recipe(), FIELDS).model()
    assert sum(p.numel() for p in model.parameters()) == 30_201
    assert [tuple(p.shape) for p in model.parameters()] == [(100, 300), (100,), (1, 100), (1,)]


def test_output_by_hand() -> None:
    torch.manual_seed(0)
    benchmark = Saxs(Recipe(hidden=7), FIELDS)
    model, batch = benchmark.model(), {"profile": torch.randn(5, 300)}
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in model.parameters())
    x = batch["profile"].double().numpy()
    expected = np.maximum(x @ w1.T + b1, 0) @ w2[0] + b2
    found = model(*benchmark.inputs(batch))
    assert found.shape == (5,)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_found_by_its_folder_without_importing_torch() -> None:
    assert find("saxs") is Saxs
    code = (
        "import sys; from sciml_hpc.benchmarks import find; b = find('saxs'); "
        "b.Recipe(); b.Generator(); print('torch' in sys.modules, 'numpy' in sys.modules, 'h5py' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]
