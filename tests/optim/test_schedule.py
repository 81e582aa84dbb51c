import math

import pytest
import torch

from reid_tune.config.defaults import SWIN_DEFAULTS
from reid_tune.config.load import build_experiment
from reid_tune.config.train import Optim
from reid_tune.optim.schedule import count_plateaus, learning_rate, set_learning_rate

COSINE = Optim(warmup_method="cosine", base_lr=0.0008)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 3.815e-5), (1, 7.28e-5), (8, 3.1535e-4), (9, 3.5e-4), (38, 3.5e-4), (39, 3.5e-5), (68, 3.5e-5), (69, 3.5e-6)],
)
def test_linear_warm_up_and_steps_give_the_references_rates(epoch: int, rate: float) -> None:
    assert learning_rate(Optim(), epoch, 120, 0.00035) == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 8e-6), (1, 4.76e-5), (19, 7.604e-4), (20, 7.465e-4), (60, 4.008e-4), (119, 1.737e-6)]
)
def test_cosine_gives_the_references_rates(epoch: int, rate: float) -> None:
    assert learning_rate(COSINE, epoch, 120, 0.0008) == pytest.approx(rate, rel=1e-3)


def test_the_swin_recipe_uses_that_schedule() -> None:
    experiment = build_experiment({}, {"model.backbone": SWIN_DEFAULTS["model.backbone"]}, "test")
    optim = experiment.train.optim
    assert learning_rate(optim, 19, experiment.train.num_epochs, optim.base_lr) == pytest.approx(7.604e-4, rel=1e-3)


def test_a_groups_own_target() -> None:
    """Linear scales with the target; cosine starts every group at the same rate and ends all near zero."""
    assert learning_rate(Optim(), 3, 120, 0.0007) == pytest.approx(2 * learning_rate(Optim(), 3, 120, 0.00035))
    assert learning_rate(COSINE, 0, 120, 0.0016) == learning_rate(COSINE, 0, 120, 0.0008) == pytest.approx(8e-6)
    assert learning_rate(COSINE, 10, 120, 0.0016) == pytest.approx(8e-6 + 10 * (0.0016 - 8e-6) / 20)
    floor = 0.002 * 0.0008
    late = floor + 0.5 * (0.0016 - floor) * (1 + math.cos(math.pi * 100 / 120))
    assert learning_rate(COSINE, 100, 120, 0.0016) == pytest.approx(late)


def test_the_first_rate_follows_the_warm_up_factor() -> None:
    cosine = Optim(warmup_method="cosine", base_lr=0.1, warmup_factor=0.5, warmup_epochs=4)
    assert [learning_rate(cosine, epoch, 9, 0.1) for epoch in (0, 2)] == pytest.approx([0.05, 0.075])
    linear = Optim(base_lr=0.1, warmup_factor=0.5, warmup_iters=4)
    assert [learning_rate(linear, epoch, 9, 0.1) for epoch in (0, 1, 3)] == pytest.approx([0.0625, 0.075, 0.1])


def test_no_warm_up() -> None:
    assert learning_rate(Optim(warmup_iters=0, base_lr=0.1), 0, 9, 0.1) == 0.1
    assert learning_rate(Optim(warmup_method="cosine", warmup_epochs=0, base_lr=0.1), 0, 9, 0.1) == pytest.approx(0.1)


def test_rates_of_all_groups_are_set() -> None:
    optim = Optim(base_lr=0.1, warmup_iters=0, lr_steps=(3,))
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "initial_lr": target, "lr_factor": 1.0}
        for target in (0.1, 0.2)
    ]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    assert set_learning_rate(optimizer, optim, 1, 9, []) == pytest.approx(0.2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.2])
    assert set_learning_rate(optimizer, optim, 2, 9, []) == pytest.approx(0.02)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.02])


def test_a_constant_warm_up() -> None:
    optim = Optim(warmup_method="constant", base_lr=0.1, warmup_factor=0.5, warmup_iters=3, lr_steps=(5,))
    assert [learning_rate(optim, epoch, 9, 0.1) for epoch in range(5)] == pytest.approx([0.05, 0.05, 0.1, 0.1, 0.01])


def step_rates(optim: Optim, epochs: int, steps: int, target: float = 1.0) -> list[float]:
    return [learning_rate(optim, e, epochs, target, 0, step, steps) for e in range(epochs) for step in range(steps)]


@pytest.mark.parametrize("warmup", [{"warmup_epochs": 2}, {"warmup_steps": 10}, {"warmup_steps": 1}])
def test_one_cycle_is_that_of_torch(warmup: dict[str, int]) -> None:
    """The last rate of torch's schedule, the floor, would be that of the step after the last one."""
    optim = Optim(warmup_method="one_cycle", base_lr=1.0, warmup_factor=0.04, min_lr_factor=0.001, **warmup)
    rates = step_rates(optim, 6, 5)
    rise = warmup.get("warmup_steps", 5 * warmup.get("warmup_epochs", 0))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        1.0,
        total_steps=31,
        pct_start=(rise + 1) / 31,
        div_factor=25,
        final_div_factor=40,
        cycle_momentum=False,
    )
    expected = []
    for _ in range(30):
        expected.append(cycle.get_last_lr()[0])
        optimizer.step()
        cycle.step()
    assert rates == pytest.approx(expected, rel=1e-9) and max(rates) == pytest.approx(1.0)
    assert cycle.get_last_lr()[0] == pytest.approx(0.001)


def test_a_flat_schedule_then_a_cosine() -> None:
    optim = Optim(
        warmup_method="flat_cosine",
        base_lr=1.0,
        warmup_factor=0.5,
        warmup_epochs=1,
        flat_fraction=0.5,
        min_lr_factor=0.1,
    )
    rates = step_rates(optim, 8, 2)
    assert rates[:8] == pytest.approx([0.5, 0.75, *[1.0] * 6])
    assert rates[8:] == pytest.approx([0.1 + 0.45 * (1 + math.cos(math.pi * i / 8)) for i in range(8)])
    never = optim.model_copy(update={"flat_fraction": 1.0})
    assert step_rates(never, 8, 2)[2:] == [1.0] * 14
    late = optim.model_copy(update={"warmup_epochs": 6})
    assert step_rates(late, 8, 2)[11:] == pytest.approx([1 - 0.5 / 12, *rates[8:16:2]]), "the warm-up delays the decay"


@pytest.mark.parametrize("method", ["linear", "constant", "cosine"])
def test_a_warm_up_in_steps_has_the_formula_of_one_in_epochs(method: str) -> None:
    """Ten epochs of one step and one epoch of ten steps, before any decay."""
    values = {"warmup_method": method, "base_lr": 1.0, "warmup_factor": 0.1}
    in_epochs = Optim(warmup_iters=6, warmup_epochs=6, **values)
    in_steps = Optim(warmup_steps=6, **values)
    expected = [learning_rate(in_epochs, epoch, 99, 0.7) for epoch in range(5)]
    assert step_rates(in_steps, 2, 10, 0.7)[:5] == pytest.approx(expected)
    assert step_rates(in_steps, 2, 10, 0.7)[6:10] == pytest.approx([0.7] * 4)


def test_the_floor_of_a_cosine() -> None:
    raised = COSINE.model_copy(update={"min_lr_factor": 0.5})
    assert learning_rate(raised, 119, 120, 0.0008) == pytest.approx(0.0004, rel=1e-3)


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_plateaus_are_those_of_torchs_scheduler(patience: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    losses = (1 + torch.rand(30, generator=generator) - torch.linspace(0, 0.5, 30)).tolist()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience)
    optim = Optim(plateau_patience=patience, gamma=0.5, warmup_iters=0, base_lr=1.0, lr_monitor="train_loss")
    history: list[dict[str, float]] = []
    for epoch, loss in enumerate(losses):
        history.append({"loss": loss, "val_loss": 0.0})
        theirs.step(loss)
        assert learning_rate(optim, epoch + 1, 99, 1.0, count_plateaus(optim, history)) == pytest.approx(
            optimizer.param_groups[0]["lr"]
        )
    assert optimizer.param_groups[0]["lr"] < 1


def test_a_plateau_is_of_the_monitored_value_after_the_warm_up() -> None:
    flat = [{"loss": 1.0, "val_loss": 1 / (epoch + 1)} for epoch in range(6)]
    watching = Optim(plateau_patience=1, lr_monitor="train_loss", warmup_iters=0)
    assert count_plateaus(watching, flat) == 2
    assert count_plateaus(watching.model_copy(update={"lr_monitor": "val_loss"}), flat) == 0
    assert count_plateaus(watching.model_copy(update={"warmup_iters": 4}), flat) == 1
    assert count_plateaus(watching.model_copy(update={"plateau_patience": None}), flat) == 0
    sparse = [epoch if number % 2 else {"loss": 1.0} for number, epoch in enumerate(flat)]
    assert count_plateaus(watching.model_copy(update={"lr_monitor": "val_loss"}), sparse) == 0
