import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import reid_tune
from reid_tune.config.load import build_experiment
from reid_tune.deploy.onnx_export import export_onnx, spec_hash
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.errors import InputError, RunFailedError

from .conftest import GREY, SMALL, make_crops, make_network

SWIN = "swin_tiny_patch4_window7_224"
BACKBONES = (SMALL, *(pytest.param(name, marks=pytest.mark.integration) for name in ("resnet18", "resnet_50", SWIN)))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_batch_size_gives_the_embeddings_of_pytorch(exported: Any, backbone: str) -> None:
    (network, experiment), path, parity = exported(backbone)
    assert parity.equal and parity.synthetic and parity.crops == 16 and parity.batches == (1, 3, 16)
    model = OnnxModel(path)
    dataset = experiment.dataset
    network.eval()
    for count in (1, 2, 5):
        crops = make_crops(count, model.preprocessing.image_spec.height, model.preprocessing.image_spec.width)
        images = (crops / 255 - np.array(dataset.pixel_mean)) / np.array(dataset.pixel_std)
        with torch.no_grad():
            wanted = network(torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float32)).numpy()
        for batch_size in (2, 64):
            found = model.embed(crops, batch_size)
            assert found.shape == (count, network.dimension) and found.dtype == np.float32
            np.testing.assert_allclose(found, wanted, rtol=0, atol=5e-4 * np.abs(wanted).max())
    assert model.embed(crops[:0]).shape == (0, network.dimension)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_file_is_alone_and_describes_itself(exported: Any, backbone: str) -> None:
    (network, experiment), path, _ = exported(backbone)
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]
    assert path.stat().st_size > 4 * sum(p.numel() for p in network.backbone.parameters())
    graph = onnx.load(path, load_external_data=False)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert metadata == {
        "channels": "3",
        "mean": json.dumps(experiment.dataset.pixel_mean),
        "std": json.dumps(experiment.dataset.pixel_std),
        "height": "64",
        "width": "64" if backbone == SWIN else "32",
        "interpolation": "bicubic" if backbone == SWIN else "bilinear",
        "dimension": "1024" if backbone == SWIN else "256",
        "input_layout": "float_nchw",
        "precision": "fp32",
        "l2_normalized": "false",
        "backbone": backbone,
        "spec_sha256": spec_hash(experiment),
        "opset": str(graph.opset_import[0].version),
        "crc32": metadata["crc32"],
    }
    assert (graph.producer_name, graph.producer_version) == ("reid-tune", reid_tune.__version__)
    assert [node.name for node in graph.graph.input] == ["input"]
    assert [node.name for node in graph.graph.output] == ["fc_pred"]
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    # The exporter's notes on source lines would tell where the package is installed.
    assert str(Path(reid_tune.__file__).parent).encode() not in path.read_bytes()
    assert b"site-packages" not in path.read_bytes()


def test_the_reader_has_the_metadata(exported: Any) -> None:
    (network, experiment), path, _ = exported(SMALL)
    model = OnnxModel(path, threads=1)
    assert (model.preprocessing.image_spec.height, model.preprocessing.image_spec.width, model.dimension) == (
        64,
        32,
        network.dimension,
    )
    assert (model.preprocessing.image_spec.mean, model.preprocessing.image_spec.std) == (
        experiment.dataset.pixel_mean,
        experiment.dataset.pixel_std,
    )
    assert (model.preprocessing.image_spec.interpolation, model.preprocessing.image_spec.channels) == ("bilinear", 3)


@pytest.mark.parametrize(
    "values, flip",
    [
        pytest.param({"model.neck_feat": "before"}, False, marks=pytest.mark.integration),
        ({"model.neck": "", "model.reduce_feat_dim": False}, True),
    ],
)
def test_embeddings_of_every_kind(tmp_path: Path, values: dict[str, Any], flip: bool) -> None:
    network, experiment = make_network(SMALL, 64, 32, **values, **{"model.with_flip_feature": flip})
    crops = make_crops(3, 64, 32)
    parity = export_onnx(network, experiment, tmp_path / "m.onnx", crops=crops, extra_metadata={"threshold": "0.5"})
    assert parity.equal and not parity.synthetic and parity.crops == 3
    model = OnnxModel(tmp_path / "m.onnx")
    assert model.metadata["threshold"] == "0.5" and model.dimension == network.dimension
    mirrored = model.embed(np.ascontiguousarray(crops[:, :, ::-1]))
    assert np.allclose(model.embed(crops), mirrored, rtol=0, atol=1e-3 * np.abs(mirrored).max()) == flip


@pytest.mark.parametrize("backbone", [SMALL, pytest.param(SWIN, marks=pytest.mark.integration)])
def test_a_grey_network_takes_one_channel(exported: Any, backbone: str) -> None:
    (network, experiment), path, parity = exported(backbone, **GREY)
    height, width = experiment.model.input_height, experiment.model.input_width
    assert parity.equal
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape
    assert [size.dim_value or size.dim_param for size in shape.dim] == ["batch", 1, height, width]
    model = OnnxModel(path)
    assert (
        model.preprocessing.image_spec.channels,
        model.preprocessing.image_spec.mean,
        model.preprocessing.image_spec.std,
    ) == (1, (0.3,), (0.2,))
    grey = make_crops(5, height, width)[..., :1].repeat(3, axis=3)
    with torch.no_grad():
        images = torch.tensor((grey[:, None, :, :, 0] / 255 - 0.3) / 0.2, dtype=torch.float32)
        wanted = network.eval()(images).numpy()
    np.testing.assert_allclose(model.embed(grey), wanted, rtol=0, atol=5e-4 * np.abs(wanted).max())


def test_export_is_quiet_and_leaves_the_network(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network, experiment = make_network(SMALL, 64, 32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        export_onnx(network, experiment, tmp_path / "new" / "m.onnx")
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET
    assert all(module.training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_weight_that_is_one_percent_off_is_refused(translated: Any, tmp_path: Path) -> None:
    made, model = translated
    weight = next(entry for entry in model.graph.initializer if entry.name == "backbone.layer3.0.conv1.weight")
    weight.raw_data = (onnx.numpy_helper.to_array(weight) * np.float32(1.01)).tobytes()
    target = tmp_path / "m.onnx"
    with pytest.raises(RunFailedError, match=r"m\.onnx is not written, .* different embeddings.*16 synthetic crops"):
        export_onnx(*made, target)
    assert not list(tmp_path.iterdir())
    target.write_bytes(b"old")
    with pytest.raises(RunFailedError):
        export_onnx(*made, target, overwrite=True)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]


def test_an_existing_file_is_kept_unless_told(translated: Any, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    target.write_bytes(b"old")
    with pytest.raises(InputError, match="export.overwrite=true"):
        export_onnx(*translated[0], target)
    assert target.read_bytes() == b"old"
    assert export_onnx(*translated[0], target, overwrite=True).equal
    assert OnnxModel(target).preprocessing.image_spec.height == 64


def test_a_folder_in_the_place_of_the_file(translated: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; name a file in export.onnx_file"):
        export_onnx(*translated[0], tmp_path, overwrite=True)


def test_crops_of_another_size_are_refused(translated: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[n, 64, 32, 3\], not uint8 \[2, 32, 32, 3\]"):
        export_onnx(*translated[0], tmp_path / "m.onnx", crops=make_crops(2, 32, 32))
    assert not list(tmp_path.iterdir())


class Unexportable(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3)) if images.sum().item() > 0 else images.amax((2, 3))


def test_a_network_that_onnx_cannot_express_fails_in_one_sentence(tmp_path: Path) -> None:
    network, experiment = make_network(SMALL, 64, 32)
    network.backbone = Unexportable()
    with pytest.raises(RunFailedError, match=f"^model.backbone = '{SMALL}' cannot be exported to ONNX: [^\n]*$"):
        export_onnx(network, experiment, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_the_hash_follows_the_spec_but_not_the_key() -> None:
    first = build_experiment({}, {"train.num_epochs": 3}, "test")
    assert spec_hash(first) == spec_hash(build_experiment({}, {"train.num_epochs": 3, "encryption_key": "k"}, "test"))
    assert spec_hash(first) != spec_hash(build_experiment({}, {"train.num_epochs": 4}, "test"))
