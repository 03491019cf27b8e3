"""The network: the published size, what it computes, and its pictures."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

from sciml_hpc.benchmarks import find
from sciml_hpc.benchmarks.cloudmask.native import UNKNOWN
from sciml_hpc.benchmarks.slstr import Recipe, Slstr
from sciml_hpc.benchmarks.slstr.native import sample_fields


def benchmark() -> Slstr:
    return Slstr(Recipe(), sample_fields(8))


def test_published_layers() -> None:
    """Nine channels, 50 hidden units, one output: 9·50 + 50 + 50 + 1 parameters."""
    assert sum(p.numel() for p in benchmark().model().parameters()) == 551


def test_every_pixel_is_judged_alone_by_two_dense_layers() -> None:
    torch.manual_seed(0)
    model, image = benchmark().model(), torch.randn(3, 9, 8, 8)
    w1, b1, w2, b2 = (p.detach().double().numpy().squeeze() for p in model.parameters())
    pixels = image.double().numpy().transpose(0, 2, 3, 1).reshape(-1, 9)
    expected = (np.maximum(pixels @ w1.T + b1, 0) @ w2 + b2).reshape(3, 8, 8)
    for format in (torch.contiguous_format, torch.channels_last):
        found = model(image.contiguous(memory_format=format))
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_pictures_show_a_validation_image_in_physical_units() -> None:
    torch.manual_seed(0)
    image, mask = torch.zeros(2, 9, 8, 8), torch.randint(0, 2, (2, 8, 8), dtype=torch.uint8)
    image[0, 1], image[0, 7], mask[0, 3, 4] = -0.4, 1.0, UNKNOWN
    (picture,) = benchmark().pictures(benchmark().model().eval(), {"image": image, "mask": mask})
    assert picture.panels.shape == (len(picture.labels), 8, 8)
    assert picture.panels.dtype == np.float32
    reflectance, kelvin, truth, probability = picture.panels
    np.testing.assert_allclose(reflectance, 0.1, rtol=1e-5)
    np.testing.assert_allclose(kelvin, 292)
    assert np.isnan(truth[3, 4])
    assert np.isfinite(np.delete(truth.ravel(), 3 * 8 + 4)).all()
    assert ((probability > 0) & (probability < 1)).all()


def test_found_by_its_folder_without_importing_torch() -> None:
    assert find("slstr") is Slstr
    code = (
        "import sys; from sciml_hpc.benchmarks import find; b = find('slstr'); "
        "b.Recipe(); b.Generator(); print('torch' in sys.modules, 'numpy' in sys.modules, 'h5py' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]
