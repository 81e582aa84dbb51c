from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from reid_tune.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from reid_tune.data.image_spec import ImageSpec
from reid_tune.errors import InputError
from reid_tune.tasks.common.open_model import ModelFile, checkpoint_experiment, open_network

from ..conftest import write_checkpoint


def test_the_spec_of_a_checkpoint_is_the_one_it_was_trained_with(checkpoint: Path, spec: Any) -> None:
    assert checkpoint_experiment(load_checkpoint(checkpoint), checkpoint) == spec()


def test_what_the_network_does_not_depend_on_may_differ(checkpoint: Path, spec: Any) -> None:
    other = spec(train__num_epochs=9, dataset__query_dataset_dir="elsewhere", re_ranking__re_ranking=False)
    assert open_network(checkpoint, other)[1] is other


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (
            {"model__backbone": "resnet34"},
            ["model.backbone is 'test_resnet' in the checkpoint and 'resnet34' in the spec"],
        ),
        ({"model__input_width": 32}, ["model.input_width is 16 in the checkpoint and 32"]),
        (
            {"model__input_height": 64, "model__neck": ""},
            ["model.input_height is 32 in the checkpoint and 64", "model.neck is"],
        ),
        (
            {"dataset__pixel_mean": [0.5, 0.5, 0.5]},
            ["dataset.pixel_mean is (0.485, 0.456, 0.406) in the checkpoint and (0.5,"],
        ),
        ({"dataset__pixel_std": [0.5, 0.5, 0.5]}, ["dataset.pixel_std"]),
        ({"model__last_stride": 2}, ["model.last_stride is 1 in the checkpoint and 2"]),
        ({"model__input_channels": 1}, ["model.input_channels is 3 in the checkpoint and 1"]),
        ({"model__pooling": "gem"}, ["model.pooling is 'avg' in the checkpoint and 'gem'"]),
    ],
)
def test_another_network_is_named(checkpoint: Path, spec: Any, values: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        open_network(checkpoint, spec(**values))
    for part in (f"{checkpoint} was trained with another spec: ", *parts):
        assert part in str(caught.value)


def test_weights_of_another_size_are_refused(checkpoint: Path, spec: Any) -> None:
    content = load_checkpoint(checkpoint)
    content.spec["model"]["feat_dim"] = 32
    save_checkpoint(checkpoint, content)
    with pytest.raises(InputError, match="does not fit the network of the spec: .*projection"):
        open_network(checkpoint, None)


def test_a_network_comes_back_without_its_classifier(checkpoint: Path, spec: Any) -> None:
    network, experiment = open_network(checkpoint, None)
    assert experiment == spec()
    assert not network.training and network.classifier is None and network.dimension == 24
    weights = load_checkpoint(checkpoint).model
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, weights[name])


def test_a_file_opens_with_what_its_images_look_like(spec: Any, tmp_path: Path) -> None:
    experiment = spec(model__input_channels=1, dataset__num_classes=857)
    path = write_checkpoint(tmp_path / "grey.pth", experiment)
    embedder = ModelFile(path, experiment)(torch.device("cpu"))
    assert (
        embedder.image_spec == ImageSpec.from_experiment(experiment)
        and embedder.image_spec.is_greyscale
        and embedder.dimension == 24
    )
    embeddings = embedder.embed(np.zeros((3, 32, 16, 3), np.uint8))
    assert embeddings.shape == (3, 24) and embeddings.dtype == np.float32


def test_embeddings_are_computed_in_true_float32(checkpoint: Path, spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    before = torch.nn.Conv2d.forward

    def forward(self: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        seen.add((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        return before(self, images)

    allowed = torch.backends.cudnn.allow_tf32
    embedder = ModelFile(checkpoint, spec())(torch.device("cpu"))
    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    embedder.embed(np.zeros((1, 32, 16, 3), np.uint8))
    assert seen == {(False, "highest")} and torch.backends.cudnn.allow_tf32 is allowed is True


def test_too_little_memory_is_a_sentence(checkpoint: Path, spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    embedder = ModelFile(checkpoint, spec(dataset__val_batch_size=77))(torch.device("cpu"))
    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    with pytest.raises(InputError, match="too small for dataset.val_batch_size = 77: lower it"):
        embedder.embed(np.zeros((1, 32, 16, 3), np.uint8))


def test_an_encrypted_file_opens_with_the_key_of_the_spec(checkpoint: Path, spec: Any) -> None:
    save_checkpoint(checkpoint, load_checkpoint(checkpoint), "a key")
    assert ModelFile(checkpoint, spec(encryption_key="a key"))(torch.device("cpu")).dimension == 24
    with pytest.raises(InputError, match="encryption_key"):
        ModelFile(checkpoint, spec())(torch.device("cpu"))


def test_a_spec_that_this_version_cannot_read(tmp_path: Path) -> None:
    strange = Checkpoint({"model": {"heads": 3}}, 1, [], [], {}, {})
    with pytest.raises(InputError, match="holds a spec that this version cannot read"):
        checkpoint_experiment(strange, tmp_path / "x.pth")


def by_the_reference(path: Path, checkpoint: Path) -> Path:
    """A checkpoint's network as a Lightning file of the reference."""
    names = {"neck.": "model.bottleneck.", "classifier.": "model.classifier.", "projection.": "model.base.feature."}
    state = {}
    for name, tensor in load_checkpoint(checkpoint).model.items():
        own = next((prefix for prefix in names if name.startswith(prefix)), None)
        if name == "projection.weight":
            tensor = tensor[:, :, None, None]
        state[name.replace(own, names[own]) if own else name.replace("backbone.", "model.base.")] = tensor
    torch.save({"state_dict": state, "epoch": 3, "hyper_parameters": OmegaConf.create({"lr": [1, 2]})}, path)
    return path


def test_a_checkpoint_of_the_reference_opens_with_the_spec_of_its_network(
    checkpoint: Path, spec: Any, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 16, 3), dtype=np.uint8)
    theirs = by_the_reference(tmp_path / "model_epoch_004_step_00099.pth", checkpoint)
    ours, other = (ModelFile(path, spec())(torch.device("cpu")).embed(images) for path in (checkpoint, theirs))
    np.testing.assert_allclose(other, ours, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match=f"{theirs} lacks projection.weight, .* and the section model that it was"):
        ModelFile(theirs, spec(model__feat_dim=12))(torch.device("cpu"))
    with pytest.raises(InputError, match=f"{theirs} is rejected"):
        open_network(theirs, None)


def test_a_file_that_is_no_reid_model_is_refused_as_before(spec: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": {"layer.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="other.pth is not a checkpoint of reid-tune"):
        open_network(tmp_path / "other.pth", spec())
