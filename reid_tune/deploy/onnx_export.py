"""Export of a network to one self-contained ONNX file, which is compared with PyTorch before it appears."""

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
from reid_tune.deploy.fp16 import to_fp16
from reid_tune.deploy.graph_edits import add_l2_normalisation, add_pixel_normalisation
from reid_tune.deploy.onnx_file import append_checksum, first_line, protobuf_messages
from reid_tune.deploy.onnx_model import INPUT, OUTPUT, OnnxModel
from reid_tune.deploy.parity import Parity, measure_parity
from reid_tune.deploy.preprocessing import DEFAULT, ExportOptions, image_metadata
from reid_tune.errors import InputError, RunFailedError
from reid_tune.files import atomic_path
from reid_tune.modeling.network import ReIDNet

__all__ = ["export_onnx", "require_new_file", "spec_hash"]


def export_onnx(
    network: ReIDNet,
    experiment: Experiment,
    path: Path,
    *,
    options: ExportOptions = DEFAULT,
    crops: np.ndarray | None = None,
    overwrite: bool = False,
    extra_metadata: Mapping[str, str] = {},
    gpu: int = 0,
) -> Parity:
    """Export the embeddings of a network, without its classifier, and compare the file with PyTorch.

    The input is `input`, see `ExportOptions`; the output is `fc_pred` [batch, D] float32. The size of the batch is
    dynamic. The file's metadata describe the preprocessing, see `image_metadata`, and the `dimension`, the options and
    the origin of the model.

    Args:
        network: The network, left as it is.
        experiment: The spec of the network.
        path: The file; it appears whole, or not at all.
        options: Input layout, precision and normalisation of the file.
        crops: RGB or greyscale [n, H, W, 3] uint8 for the comparison with PyTorch; None for synthetic ones.
        overwrite: Whether an existing file is replaced.
        extra_metadata: Further metadata; the exporter's own keys take precedence.
        gpu: Index of the GPU that onnxruntime compares on, where it can use one.

    Raises:
        InputError: the file exists or cannot be written, or the crops have another size.
        RunFailedError: the network cannot be exported to ONNX or is not fit for half precision, or the file does not
            compute what PyTorch computes.
    """
    require_new_file(path, overwrite)
    frozen = copy.deepcopy(network).cpu().eval()
    model = _apply_options(_translate(frozen, experiment), options, experiment)
    _add_metadata(model, {**extra_metadata, **_metadata(frozen, experiment), **options.metadata()})
    with atomic_path(path) as temporary:
        temporary.write_bytes(append_checksum(model.SerializeToString()))
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
        InputError: the target is a folder, or it exists and `overwrite` is false.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in export.onnx_file.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; set export.overwrite=true to replace it, or choose another file.")


def spec_hash(experiment: Experiment) -> str:
    """Return the SHA-256 of all values of a spec except the encryption key, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(experiment.parameters(), sort_keys=True).encode()).hexdigest()


def _translate(network: ReIDNet, experiment: Experiment) -> Any:
    """Return the network as an onnx.ModelProto with all weights inside."""
    # A batch of 2: torch.export takes 0 and 1 for constants.
    model = experiment.model
    example = torch.zeros(2, model.input_channels, model.input_height, model.input_width)
    try:
        with _silence_exporter():
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
        reason = first_line(error)
        raise RunFailedError(f"model.backbone = {model.backbone!r} cannot be exported to ONNX: {reason}.") from error
    assert program is not None
    translated = program.model_proto
    # The exporter notes the source lines of every node, with the paths of this computer.
    for message in protobuf_messages(translated):
        if hasattr(message, "metadata_props"):
            message.ClearField("metadata_props")
    translated.producer_name, translated.producer_version = "reid-tune", reid_tune.__version__
    return translated


def _apply_options(model: Any, options: ExportOptions, experiment: Experiment) -> Any:
    """Return a network's float32 graph with the options applied; normalisation and norm stay float32."""
    image_spec = ImageSpec.from_experiment(experiment)
    if options.precision == "fp16":
        model = to_fp16(model)
    if options.layout == "uint8_nhwc":
        add_pixel_normalisation(model, image_spec.mean, image_spec.std)
    if options.l2_normalized:
        add_l2_normalisation(model)
    return model


def _metadata(network: ReIDNet, experiment: Experiment) -> dict[str, str]:
    return {
        **image_metadata(ImageSpec.from_experiment(experiment)),
        "dimension": str(network.dimension),
        "backbone": experiment.model.backbone,
        "spec_sha256": spec_hash(experiment),
    }


def _add_metadata(model: Any, metadata: Mapping[str, str]) -> None:
    """Add metadata and `opset` to an onnx.ModelProto, and check the whole model."""
    import onnx

    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    onnx.helper.set_model_props(model, {**metadata, "opset": str(opset)})
    onnx.checker.check_model(model, full_check=True)


@contextmanager
def _silence_exporter() -> Iterator[None]:
    """Suppress the exporter's warnings and log lines, which concern its own internals."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
