"""Preparation of images for an ONNX file: from the command line, its graph, its metadata or the spec."""

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from reid_tune.config.experiment import Experiment
from reid_tune.config.task_sections import ChannelOrder, ModelInput
from reid_tune.data.image_spec import Channels, ImageSpec, Interpolation
from reid_tune.data.normalisation import normalise
from reid_tune.deploy.onnx_file import OnnxFile, printable
from reid_tune.deploy.onnx_signature import Signature, read_signature
from reid_tune.deploy.preprocessing import Preprocessing
from reid_tune.errors import InputError

__all__ = ["InputForm", "InputRequest", "input_form"]

_MOST_PIXELS = 2**26  # in one batch: 800 MB of float32
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputRequest:
    """Values of a spec about the images of an ONNX file.

    Attributes:
        section: Name of the spec's section, such as evaluate, for messages.
        options: Values that the user set for the file; they take precedence over those of the file.
        output: Name of the output; None for the only one.
        spec: Preparation of the spec's own network, for what neither the user nor the file says.
    """

    section: str
    options: ModelInput
    output: str | None
    spec: ImageSpec

    @classmethod
    def from_experiment(cls, experiment: Experiment, section: str) -> "InputRequest":
        """Return the request of a section, evaluate or inference."""
        task = experiment.evaluate if section == "evaluate" else experiment.inference
        return cls(section, task.input, task.onnx_output, ImageSpec.from_experiment(experiment))

    @property
    def keys(self) -> list[str]:
        """Keys that the user set."""
        keys = [f"input.{name}" for name, value in self.options if value is not None]
        return [f"{self.section}.{key}" for key in keys + ["onnx_output"] * (self.output is not None)]


@dataclass(frozen=True)
class InputForm:
    """Preparation of crops for a graph.

    Attributes:
        signature: Input and output of the graph.
        image_spec: Size, resizing, channels and normalisation; mean and std are in the order of `channel_order`.
        channel_order: Order of three channels.
        description: One line that says all of this, and where it comes from.
    """

    signature: Signature
    image_spec: ImageSpec
    channel_order: ChannelOrder
    description: str

    def prepare(self, crops: np.ndarray) -> np.ndarray:
        """Return the graph's input.

        Args:
            crops: [n, height, width, 3] uint8, RGB or greyscale in three equal channels.
        """
        pixels = crops[..., ::-1] if self.channel_order == "bgr" else crops
        pixels = np.ascontiguousarray(pixels[..., : self.image_spec.channels])
        if self.signature.dtype != np.uint8:
            images = normalise(torch.from_numpy(pixels), self.image_spec)
            pixels = images.permute(0, 2, 3, 1).numpy().astype(self.signature.dtype)
        return np.ascontiguousarray(pixels if self.signature.channels_last else pixels.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class _FileForm:
    """Preparation that the metadata of a file describe; None for missing values."""

    source: str
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None
    channels: Channels | None = None
    note: str = ""


def input_form(file: OnnxFile, request: InputRequest) -> InputForm:
    """Return how images are prepared for a file: by the user's values, then its graph, its metadata, and the spec.

    A file that reid-tune exported describes its images itself; the user's values are for other files.

    Raises:
        InputError: the graph cannot embed images, or contradicts the user's values.
    """
    prefix, ending = f"{request.section}.input", f"{request.section}.input changes this"
    if file.is_exported:
        ending = f"no effect: {', '.join(request.keys)}" if request.keys else "as exported"
        request = replace(request, options=ModelInput(), output=None)
    signature = read_signature(file, request.output, f"{request.section}.onnx_output")
    file_form, options = _form_in_metadata(file), request.options
    channels = signature.channels or file_form.channels or request.spec.channels
    if channels == 1 and options.channel_order:
        raise InputError(f"{prefix}.channel_order is set, but {file.path} takes greyscale images: leave it out.")
    height, width, size_source = _size(file.path, signature, file_form, request)
    mean, std, values, values_source = _normalisation(signature, file_form, request, channels)
    interpolation, filter_source = _first(
        (options.interpolation, prefix),
        (file_form.interpolation, file_form.source),
        (request.spec.interpolation, "spec"),
    )
    order = options.channel_order or "rgb"
    colours, layout = "greyscale" if channels == 1 else order.upper(), "NHWC" if signature.channels_last else "NCHW"
    description = (
        f"{file.path}: images are prepared as {colours} {signature.dtype} {layout}, {height}x{width} ({size_source}), "
        f"{values} ({values_source}), {interpolation} ({filter_source}{file_form.note}); {ending}"
    )
    image_spec = ImageSpec(height, width, interpolation, cast(Channels, channels), mean, std)
    return InputForm(signature, image_spec, order, description)


def _first(*candidates: tuple[Any, str]) -> tuple[Any, str]:
    """Return the first value that is given, and its source."""
    return next((value, source) for value, source in candidates if value)


def _size(path: Path, signature: Signature, file_form: _FileForm, request: InputRequest) -> tuple[int, int, str]:
    """Return height and width, and where they come from."""
    sizes: list[int] = []
    sources: list[str] = []
    for index, axis in enumerate(("height", "width")):
        fixed, option = getattr(signature, axis), getattr(request.options, axis)
        if fixed and option and fixed != option:
            raise InputError(
                f"{request.section}.input.{axis} = {option}, but {path} takes images of {axis} {fixed} only: leave it "
                "out, or export the model with another size."
            )
        size, source = _first(
            (option, f"{request.section}.input"),
            (fixed, "graph"),
            (file_form.size and file_form.size[index], file_form.source),
            (getattr(request.spec, axis), "spec"),
        )
        sizes.append(size)
        sources.append(source)
    if (signature.batch or 1) * sizes[0] * sizes[1] > _MOST_PIXELS:
        raise InputError(
            f"{path} takes batches of {signature.batch or 1} with images of {sizes[0]}x{sizes[1]} pixels "
            f"({' and '.join(sources)}), which is more than {_MOST_PIXELS:,} pixels: export it with a smaller batch."
        )
    return sizes[0], sizes[1], " and ".join(dict.fromkeys(sources))


def _normalisation(
    signature: Signature, file_form: _FileForm, request: InputRequest, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...], str, str]:
    """Return mean and std for values in 0..1, their description, and where they come from."""
    options, prefix = request.options, f"{request.section}.input"
    set_keys = [name for name in ("mean", "std", "max_value") if getattr(options, name) is not None]
    if signature.dtype == np.uint8:
        idle = f", no effect: {', '.join(f'{prefix}.{name}' for name in set_keys)}" if set_keys else ""
        return (0.0,) * channels, (1.0,) * channels, "pixels 0..255", f"graph{idle}"
    limit: int = options.max_value or 1
    if set_keys:
        mean, std, source = options.mean or (0.0,), options.std or (1.0,), prefix
        if wrong := [values for values in (mean, std) if len(values) not in (1, channels)]:
            raise InputError(
                f"{prefix}.mean and {prefix}.std need one value for all channels or {channels}, not {len(wrong[0])}."
            )
    else:
        # Values of files and of the spec are in the order RGB.
        order = -1 if options.channel_order == "bgr" else 1
        if file_form.mean and file_form.std:
            mean, std, source = file_form.mean, file_form.std, file_form.source
        else:
            mean, std, source = request.spec.mean, request.spec.std, "spec"
        mean, std = mean[::order], std[::order]
    mean, std = (values[:channels] if len(values) > 1 else values * channels for values in (mean, std))
    shown = [", ".join(f"{value:.6g}" for value in values) for values in (mean, std)]
    text = f"mean [{shown[0]}] and std [{shown[1]}] of values 0..{limit}"
    return tuple(value / limit for value in mean), tuple(value / limit for value in std), text, source


def _form_in_metadata(file: OnnxFile) -> _FileForm:
    """Return the preparation that metadata of reid-tune, Ultralytics or BoxMOT describe.

    Sources: https://docs.ultralytics.com/modes/export (metadata `imgsz`, RGB in 0..1), and BoxMOT's side file
    `FILE.metadata.json` (`img_size`, RGB in 0..1 with the mean and deviation of ImageNet).
    """
    metadata = file.metadata
    if file.is_exported:
        try:
            spec = Preprocessing.from_metadata(metadata).image_spec
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{file.path} has invalid metadata ({printable(str(error))}); export it again.") from None
        size = spec.height, spec.width
        return _FileForm("metadata", size, spec.mean, spec.std, spec.interpolation, spec.channels)
    if "ultralytics" in metadata.get("author", "").lower() or "imgsz" in metadata:
        return _FileForm("metadata of Ultralytics", _parse_size(metadata.get("imgsz", "")), (0.0,), (1.0,))
    side_file = file.path.with_name(f"{file.path.name}.metadata.json")
    content = _read_side_file(side_file)
    if content is not None:
        kwargs = content.get("model_kwargs")
        size_of_kwargs = kwargs.get("img_size") if isinstance(kwargs, Mapping) else None
        size_text = content.get("img_size") or size_of_kwargs
        padded = content.get("preprocess") == "resize_pad"
        note = f", stretched and not padded as {side_file.name} says" if padded else ""
        return _FileForm(side_file.name, _parse_size(str(size_text)), _IMAGENET_MEAN, _IMAGENET_STD, note=note)
    return _FileForm("metadata")


def _read_side_file(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path} ({printable(str(error))}); correct it, or remove it.") from None
    return content if isinstance(content, Mapping) else None


def _parse_size(text: str) -> tuple[int, int] | None:
    """Return the height and width in a text such as `[256, 128]`."""
    try:
        height, width = map(int, ast.literal_eval(text[:100]))
    except (ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RecursionError):
        return None
    return (height, width) if min(height, width) > 0 else None
