"""The recipes of the repository, and the search that begins with them."""

from pathlib import Path
from typing import Any

import pytest

from reid_tune.config.keys import spec_values
from reid_tune.config.load import load_experiment, load_spec, with_parameters
from reid_tune.search.warm_start import initial_points
from reid_tune.search_space.load import load_sweep

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "configs" / "recipes"
# What a sweep sets itself, or its trials have in common.
COMMON = ("results_dir", "dataset.", "train.num_epochs", "train.checkpoint_interval", "train.optim.lr_steps")


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


@pytest.mark.parametrize("name", ["agw", "sbs", "parts", "tinyvit"])
def test_the_search_begins_with_the_recipe(name: str) -> None:
    sweep = load_sweep(REPOSITORY / "search_spaces" / "recipes.yaml")
    point = next(point.parameters for point in initial_points(sweep)[0] if point.parameters["bundle"] == name)
    trial = _leaves(with_parameters(sweep.experiment, spec_values(point), "trial").model_dump())
    recipe = _leaves(load_experiment(RECIPES / f"{name}.yaml").model_dump())
    shared = [key for key in recipe if not key.startswith(COMMON)] + [
        "dataset.batch_size",
        "dataset.num_instances",
        "dataset.rand_augment.prob",
    ]
    assert {key: trial[key] for key in shared} == {key: recipe[key] for key in shared}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_all_values_of_a_recipe_have_an_effect(path: Path) -> None:
    assert load_spec(path).notes == ()
    assert path.read_text().startswith(f"# reid-tune train -e configs/recipes/{path.name} ")
    assert "not measured" in path.read_text()
