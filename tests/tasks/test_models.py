from pathlib import Path
from typing import Any

import pytest
import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, load_checkpoint
from reid_tune.errors import InputError
from reid_tune.tasks.models import checkpoint_experiment, matching_experiment, restore_network


def test_the_spec_of_a_checkpoint_is_the_one_it_was_trained_with(checkpoint: Path, spec: Any) -> None:
    assert checkpoint_experiment(load_checkpoint(checkpoint), checkpoint) == spec()


def test_what_the_network_does_not_depend_on_may_differ(checkpoint: Path, spec: Any) -> None:
    other = spec(train__num_epochs=9, dataset__query_dataset_dir="elsewhere", re_ranking__re_ranking=False)
    assert matching_experiment(other, load_checkpoint(checkpoint), checkpoint) is other


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"model__backbone": "resnet34"}, ["model.backbone is 'resnet18' there and 'resnet34' in the spec"]),
        ({"model__input_width": 32}, ["model.input_width is 16 there and 32"]),
        ({"model__input_height": 64, "model__neck": ""}, ["model.input_height is 32 there and 64", "model.neck is"]),
        ({"dataset__pixel_mean": [0.5, 0.5, 0.5]}, ["dataset.pixel_mean is (0.485, 0.456, 0.406) there and (0.5,"]),
        ({"dataset__pixel_std": [0.5, 0.5, 0.5]}, ["dataset.pixel_std"]),
        ({"model__last_stride": 2}, ["model.last_stride is 1 there and 2"]),
    ],
)
def test_another_network_is_named(checkpoint: Path, spec: Any, values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        matching_experiment(spec(**values), load_checkpoint(checkpoint), checkpoint)
    for part in (f"{checkpoint} was trained with another spec: ", *parts):
        assert part in str(caught.value)


def test_weights_of_another_size_are_refused(checkpoint: Path, spec: Any) -> None:
    with pytest.raises(InputError, match="does not fit the network of the spec: .*projection"):
        restore_network(load_checkpoint(checkpoint), spec(model__feat_dim=32), checkpoint, torch.device("cpu"))


def test_a_network_comes_back_without_its_classifier(checkpoint: Path, spec: Any) -> None:
    content = load_checkpoint(checkpoint)
    network = restore_network(content, spec(), checkpoint, torch.device("cpu"))
    assert not network.training and network.classifier is None and network.dimension == 24
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, content.model[name])


def test_a_spec_that_this_version_cannot_read(tmp_path: Path) -> None:
    strange = Checkpoint({"model": {"heads": 3}}, 1, [], [], {}, {})
    with pytest.raises(InputError, match="holds a spec that this version cannot read"):
        checkpoint_experiment(strange, tmp_path / "x.pth")
