"""The network, its parameter counts, its switches and the published schedule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sciml_hpc.benchmarks.uno import Generator, Recipe, Uno, sample_fields
from sciml_hpc.training.optimizer import LearningRate


def benchmark(drugs: int = 1, **recipe: object) -> Uno:
    return Uno(Recipe(**recipe), sample_fields(Generator(drugs=drugs)))


def small(drugs: int = 1, **recipe: object) -> Uno:
    return Uno(Recipe(width=16, **recipe), sample_fields(Generator(drugs=drugs, genes=8, descriptors=64)))


@pytest.fixture(scope="module")
def published() -> torch.nn.Module:
    torch.manual_seed(0)
    return benchmark().model()


def batch_of(bench: Uno, n: int) -> dict[str, torch.Tensor]:
    return {f.name: torch.randn(n, *f.shape) for f in bench.fields.values()}


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_parameter_counts(published: torch.nn.Module) -> None:
    assert count(published) == 16_224_001  # README.AUC.md
    assert count(published.cell_tower) == 2_945_000  # README.md, layer table
    assert count(published.drug_tower) == 7_273_000


def test_paired_drugs_share_a_tower_and_doses_enter_the_trunk() -> None:
    model = small(drugs=2).model()
    towers = (8 + 1) * 16 + 2 * 17 * 16 + (64 + 1) * 16 + 2 * 17 * 16
    trunk = (2 + 3 * 16 + 1) * 16 + 4 * 17 * 16
    assert count(model) == towers + trunk + 17


@pytest.mark.parametrize("drugs", [1, 2])
def test_forward_takes_the_fields_in_order_and_gives_one_response_each(drugs: int) -> None:
    bench = small(drugs)
    batch = batch_of(bench, 5)
    model = bench.model().eval()
    whole = model(*bench.inputs(batch))
    assert whole.shape == (5,)
    one = {k: v[2:3] for k, v in batch.items()}
    torch.testing.assert_close(model(*bench.inputs(one)), whole[2:3])
    for name in (n for n in batch if n != "response"):
        changed = model(*bench.inputs(batch | {name: batch[name] + 1}))
        assert not torch.equal(changed, whole), f"{name} has no influence"


def test_every_hidden_layer_has_dropout(published: torch.nn.Module) -> None:
    rates = [m.p for m in published.modules() if isinstance(m, torch.nn.Dropout)]
    assert rates == [0.1] * (3 + 3 + 5)


def test_dropout_at_evaluation_is_a_switch() -> None:
    for switch in (False, True):
        bench = small(dropout=0.5, eval_dropout=switch)
        model, inputs = bench.model(), bench.inputs(batch_of(bench, 4))
        assert not torch.equal(model(*inputs), model(*inputs))
        model.eval()
        assert torch.equal(model(*inputs), model(*inputs)) is not switch
    assert Recipe().eval_dropout is False
    assert Uno.presets["full"].recipe["eval_dropout"] is True


def test_weights_are_glorot_normal_truncated_at_two_deviations(published: torch.nn.Module) -> None:
    weight = published.drug_tower[0].weight.detach()
    wanted = math.sqrt(2 / (5270 + 1000))
    assert weight.std().item() == pytest.approx(wanted, rel=2e-3)
    assert weight.abs().max().item() <= 2 * wanted / 0.8796 + 1e-6


def test_default_recipe_is_the_published_schedule() -> None:
    """uno_mllog.py's warmup_scheduler: (base_lr (5 - epoch) + lr epoch) / 5 up to epoch 5, then halved per plateau."""
    steps, recipe = 13_248, Recipe()
    assert (recipe.global_batch, recipe.epochs, recipe.optimizer) == (32, 50, "adamax")
    rate = LearningRate(recipe, steps, recipe.global_batch)
    for epoch in range(6):
        assert rate.at(epoch * steps) == pytest.approx((1e-3 * (5 - epoch) + 1e-4 * epoch) / 5)
    rate.epoch_done(1.0)
    for _ in range(100):
        rate.epoch_done(1.0)
    assert rate.at(49 * steps) == pytest.approx(1e-5)


def test_swapping_keeps_each_drug_with_its_dose() -> None:
    bench = small(drugs=2)
    n = 400
    batch = batch_of(bench, n)
    for i in (1, 2):
        batch[f"drug{i}"][:, 0] = batch[f"dose{i}"]
    torch.manual_seed(1)
    swapped = bench.augment(batch)
    for i in (1, 2):
        assert torch.equal(swapped[f"drug{i}"][:, 0], swapped[f"dose{i}"])
    where = swapped["dose1"] == batch["dose2"]
    assert torch.equal(swapped["dose2"], torch.where(where, batch["dose1"], batch["dose2"]))
    assert 0.4 * n < where.sum().item() < 0.6 * n
    assert torch.equal(swapped["cell"], batch["cell"])
    single = batch_of(small(), 3)
    assert small().augment(single) is single


def test_loss_is_the_mean_squared_error() -> None:
    bench = small()
    truth, guess = np.float32([0.5, 1.0, 0.0]), np.float32([0.25, 1.0, 0.5])
    loss = bench.loss(torch.tensor(guess).bfloat16(), {"response": torch.tensor(truth)})
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx((0.0625 + 0 + 0.25) / 3)
