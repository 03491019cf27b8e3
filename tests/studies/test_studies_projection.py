"""The projection on simulated machines: coefficients found, 4,096 nodes met, the stated band honest."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls
from studies.machines import Machine

from sciml_hpc.studies.projection import _coefficients, fit, project

STUDY = [1, 2, 4, 8, 16, 32, 64]


def test_exact_data_give_the_coefficients():
    machine = Machine(stall_s=0.0005)
    model = fit(machine.study(STUDY, "strong", batch=65536, samples=65536 * 4))
    assert model.compute == pytest.approx((0.004, 0.002))
    assert model.sigma == pytest.approx(0.01)
    assert model.communication == pytest.approx((8e-6, 0.003))
    assert model.stall[0] == pytest.approx(0.0005)
    assert model.staging == pytest.approx((5, 60))
    assert model.evaluation == pytest.approx((0.5, 40))
    assert model.rest_s == pytest.approx(3)


@pytest.mark.parametrize("seed", range(4))
def test_weak_scaling_to_4096_nodes(seed: int):
    machine = Machine(noise=0.01)
    runs = machine.study(STUDY, "weak", repeats=5, seed=seed)
    found = project(runs, [512, 4096], "weak")
    assert found.error < 0.1
    for point in found.points:
        truth = Machine().run(point.size.nodes, point.size.global_batch, point.size.train_samples)
        assert point.samples_per_s == pytest.approx(truth.samples_per_s, rel=0.1)
        assert point.time_s == pytest.approx(truth.time_s, rel=0.1)
        assert point.samples_per_s_range[0] < truth.samples_per_s < point.samples_per_s_range[1]
        assert point.time_s_range[0] < truth.time_s < point.time_s_range[1]


@pytest.mark.parametrize("seed", range(4))
def test_strong_scaling_far_beyond_what_was_run_has_a_wide_band(seed: int):
    machine = Machine(noise=0.01)
    runs = machine.study(STUDY, "strong", repeats=5, batch=65536, samples=65536 * 4, seed=seed)
    near, far = project(runs, [128, 4096], "strong").points
    for point, within in ((near, 0.1), (far, 0.5)):
        truth = Machine().run(point.size.nodes, 65536, 65536 * 4)
        assert point.samples_per_s == pytest.approx(truth.samples_per_s, rel=within)
        assert point.samples_per_s_range[0] < truth.samples_per_s < point.samples_per_s_range[1]
    widths = [p.samples_per_s_range[1] / p.samples_per_s_range[0] for p in (near, far)]
    assert widths[1] > 1.3 > widths[0]


def test_the_error_states_what_leaving_a_size_out_does():
    runs = Machine().study(STUDY, "strong", batch=65536, samples=65536 * 4)
    assert project(runs, [128], "strong").error < 1e-6
    odd = [r if r.nodes != 64 else Machine(compute=(0.3, 0.002)).run(64, 65536, 65536 * 4) for r in runs]
    found = project(odd, [128], "strong")
    by_ranks = {ranks: rate for ranks, rate, _ in found.left_out}
    assert by_ranks[64 * 4] > 0.3  # the others know nothing of it and are too hopeful
    assert found.error >= by_ranks[64 * 4]


def test_more_epochs_with_a_larger_batch():
    runs = [
        Machine(epochs=epochs).run(nodes, 256 * nodes, 65536) for nodes, epochs in ((1, 10), (2, 11), (4, 13), (8, 17))
    ]
    model = fit(runs)
    assert model.epochs == pytest.approx((9, 1 / 256))
    (point,) = project(runs, [16], "batch").points
    assert point.size.global_batch == 4096
    assert model.time_s(point.size) == pytest.approx(Machine(epochs=25).run(16, 4096, 65536).time_s)


def test_sizes_with_less_than_a_sample_per_rank_are_left_out():
    runs = Machine().study([1, 2, 4], "strong", batch=64, samples=6400)
    assert [p.size.nodes for p in project(runs, [16, 17], "strong").points] == [16]


def test_two_sizes_are_too_few():
    with pytest.raises(ValueError, match="needs 3 sizes, there are 2"):
        project(Machine().study([1, 2], "strong"), [4], "strong")


def test_coefficients_against_scipy():
    random = np.random.default_rng(5)
    for _ in range(200):
        columns = random.random((2, 5))
        y = random.random(5) + 0.1
        truth, _ = nnls((columns / y).T, np.ones(5))
        assert _coefficients(columns.tolist(), y.tolist()) == pytest.approx(truth, abs=1e-8)
    assert _coefficients([[1, 2], [3, 4]], [0.0, 0.0]) == (0.0, 0.0)
