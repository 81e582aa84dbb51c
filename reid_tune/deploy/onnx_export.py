"""From a network to a self-contained ONNX file that is proven to compute the same."""

import copy
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import reid_tune
from reid_tune.config.experiment import Experiment
from reid_tune.data.image_spec import ImageSpec
from reid_tune.deploy.export_options import DEFAULT, ExportOptions
from reid_tune.deploy.fp16 import to_fp16
from reid_tune.deploy.graph_edits import add_l2_normalisation, add_pixel_normalisation
from reid_tune.deploy.onnx_model import INPUT, OUTPUT, OnnxModel, protobuf_messages
from reid_tune.deploy.parity import Parity, measure_parity
from reid_tune.errors import InputError, RunFailedError
from reid_tune.files import atomic_path
from reid_tune.modeling.network import ReIDNet

__all__ = ["export_onnx", "require_new_file", "spec_hash"]


def export_onnx(
    network: ReIDNet,
    experiment: Experiment,
    path: Path,
    *,
    form: ExportOptions = DEFAULT,
    crops: np.ndarray | None = None,
    overwrite: bool = False,
    extra_metadata: Mapping[str, str] = {},
    gpu: int = 0,
) -> Parity:
    """Write input `input`, see `ExportOptions`, to output `fc_pred` [batch, D] float32; the size of the batch is open.

    The network is left as it is. Its embeddings, without the classifier, are exported with what a client needs to
    know as metadata: `channels` (3 is RGB, 1 is grey), `mean`, `std` (JSON lists, a value in 0..1 for each channel),
    `height`, `width`, `interpolation`, `dimension`, the form's texts, ...

    Args:
        experiment: The spec of the network.
        path: The file; it appears whole, or not at all.
        form: What the file takes, computes in and gives.
        crops: RGB or grey [n, H, W, 3] uint8 for the comparison with PyTorch; synthetic ones where None.
        overwrite: Replace an existing file.
        extra_metadata: Further metadata; the exporter's own keys win.
        gpu: Index of the GPU that onnxruntime compares on, where it can use one.

    Raises:
        InputError: the file exists, cannot be written, or the crops have another size.
        RunFailedError: the network has no form in ONNX or is not fit for half precision, or the file does not compute
            what PyTorch computes.
    """
    import onnx

    require_new_file(path, overwrite)
    frozen = copy.deepcopy(network).cpu().eval()
    model = _shaped(_translate(frozen, experiment), form, experiment)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    metadata = {**extra_metadata, **_metadata(frozen, experiment), **form.metadata(), "opset": str(opset)}
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
        del model
        parity = measure_parity(frozen, OnnxModel(temporary, gpu=gpu), crops)
        if not parity.equal:
            raise RunFailedError(
                f"{path} is not written, as onnxruntime and PyTorch give different embeddings: {parity}."
            )
    return parity


def require_new_file(path: Path, overwrite: bool) -> None:
    """Refuse a target that is a folder, or a file that must not be replaced.

    Raises:
        InputError: it is one.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in export.onnx_file.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; set export.overwrite=true to replace it, or choose another file.")


def spec_hash(experiment: Experiment) -> str:
    """SHA-256 of all values of a spec but the encryption key, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(experiment.parameters(), sort_keys=True).encode()).hexdigest()


def _translate(network: ReIDNet, experiment: Experiment) -> Any:
    """The network as an onnx.ModelProto with all weights inside."""
    # A batch of 2: torch.export takes 0 and 1 for constants.
    model = experiment.model
    example = torch.zeros(2, model.input_channels, model.input_height, model.input_width)
    try:
        with _quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                external_data=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise RunFailedError(f"model.backbone = {model.backbone!r} has no form in ONNX: {reason}.") from error
    assert program is not None
    translated = program.model_proto
    # The exporter notes the source lines of every node, with the paths of this computer.
    for part in protobuf_messages(translated):
        if hasattr(part, "metadata_props"):
            part.ClearField("metadata_props")
    translated.producer_name, translated.producer_version = "reid-tune", reid_tune.__version__
    return translated


def _shaped(model: Any, form: ExportOptions, experiment: Experiment) -> Any:
    """A network's float32 graph in another form; normalisation and norm stay float32."""
    image_spec = ImageSpec.from_experiment(experiment)
    if form.precision == "fp16":
        model = to_fp16(model)
    if form.layout == "uint8_nhwc":
        add_pixel_normalisation(model, image_spec.mean, image_spec.std)
    if form.l2_normalized:
        add_l2_normalisation(model)
    return model


def _metadata(network: ReIDNet, experiment: Experiment) -> dict[str, str]:
    image_spec = ImageSpec.from_experiment(experiment)
    return {
        "channels": str(image_spec.channels),
        "mean": json.dumps(image_spec.mean),
        "std": json.dumps(image_spec.std),
        "height": str(image_spec.height),
        "width": str(image_spec.width),
        "interpolation": image_spec.interpolation,
        "dimension": str(network.dimension),
        "backbone": experiment.model.backbone,
        "spec_sha256": spec_hash(experiment),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings and log lines, which speak of its own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
