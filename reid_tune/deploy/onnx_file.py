"""ONNX files: reading, the checksum that reid-tune appends to its own, weights in other files, and sessions."""

import io
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reid_tune.errors import InputError

__all__ = [
    "SCORE_HINT",
    "OnnxFile",
    "append_checksum",
    "first_line",
    "open_session",
    "printable",
    "protobuf_messages",
    "read_onnx",
]

SCORE_HINT = (
    "or embed the images with the tool that runs it, and score the features, an .npz file, with `reid-tune score`"
)
_CHECKSUM = "crc32"
_PRODUCER = "reid-tune"
_LONGEST_TEXT = 500
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


@dataclass(frozen=True)
class OnnxFile:
    """A parsed ONNX file that is as it was written.

    Attributes:
        path: The file.
        content: Its bytes.
        model: Its onnx.ModelProto.
    """

    path: Path
    content: bytes
    model: Any

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The file's metadata, without the checksum."""
        return {entry.key: entry.value for entry in self.model.metadata_props if entry.key != _CHECKSUM}

    @property
    def is_exported(self) -> bool:
        """Whether reid-tune exported the file, which then describes its preprocessing."""
        return self.model.producer_name == _PRODUCER or "input_layout" in self.metadata

    @cached_property
    def weight_files(self) -> tuple[str, ...]:
        """Names of the other files that hold weights."""
        import onnx

        tensors = (message for message in protobuf_messages(self.model) if isinstance(message, onnx.TensorProto))
        external = (tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL)
        entries = (entry for tensor in external for entry in tensor.external_data if entry.key == "location")
        return tuple(dict.fromkeys(entry.value for entry in entries))


def read_onnx(path: Path | str) -> OnnxFile:
    """Read an ONNX file, without weights that are stored in other files.

    Raises:
        InputError: the file is not a readable ONNX file, or differs from what reid-tune wrote.
    """
    import onnx

    path = Path(path)
    try:
        if not (path.is_dir() or stat.S_ISREG(path.stat().st_mode)):
            raise InputError(f"cannot read {path}: it is not a regular file; give an ONNX file.")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}.") from None
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception:  # protobuf's DecodeError
        model = onnx.ModelProto()
    if not model.graph.node or not _has_readable_names(model):
        raise InputError(f"{path} is not an ONNX file, or is damaged; give an .onnx file.")
    _require_undamaged(path, content, model)
    return OnnxFile(path, content, model)


def append_checksum(content: bytes) -> bytes:
    """Return the bytes of an onnx.ModelProto with a last metadata entry, the CRC-32 of all bytes before it."""
    return content + _checksum_entry(f"{zlib.crc32(content):08x}")


def open_session(file: OnnxFile, threads: int, gpu: int, hint: str) -> Any:
    """Return an onnxruntime session of a file.

    Args:
        file: The file.
        threads: Threads of one operator on the CPU; 0 leaves the number to onnxruntime.
        gpu: Index of the GPU, where onnxruntime can use one.
        hint: End of the error message, which says what to do.

    Raises:
        InputError: onnxruntime cannot open the file, or its weights are in a file that is missing or elsewhere.
    """
    import onnxruntime

    _require_weight_files(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    available = onnxruntime.get_available_providers()
    # Without TF32, which onnxruntime switches on, an embedding would be the same to 3 digits only.
    preferred = {"CUDAExecutionProvider": {"use_tf32": "0", "device_id": str(gpu)}, "CPUExecutionProvider": {}}
    providers = [(name, settings) for name, settings in preferred.items() if name in available]
    # By name where onnxruntime has to find other files; otherwise exactly the bytes that were checked.
    source = str(file.path) if file.weight_files else file.content
    try:
        with redirect_stdout(io.StringIO()):  # onnxruntime prints there that it does without a GPU
            session = onnxruntime.InferenceSession(source, options, providers=providers)
        session.disable_fallback()
        return session
    except Exception as error:  # onnxruntime's errors have no other common base.
        reason = first_line(error)
        if version := re.search(r"Opset (\d+) is under development|Unsupported model IR version: (\d+)", reason):
            opset, ir_version = version.groups()
            newer = f"opset {opset}" if opset else f"IR version {ir_version}"
            reason = f"{newer} is newer than onnxruntime {onnxruntime.__version__}: export it with opset 20 or older"
        raise InputError(f"onnxruntime cannot open {file.path} ({reason}); {hint}.") from None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without the codes that colour a terminal."""
    lines = _ANSI.sub("", str(error)).strip().splitlines()
    return printable(lines[0].strip()) if lines else type(error).__name__


def printable(text: str) -> str:
    """Return a text of a file without characters that act on a terminal, and not too long for a message."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def protobuf_messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all messages in it, at any depth."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in value if isinstance(value, Sequence) else [value]:
                yield from protobuf_messages(child)


def _checksum_entry(checksum: str) -> bytes:
    import onnx

    # The bytes of one message after those of another are the bytes of both, merged.
    entry = onnx.StringStringEntryProto(key=_CHECKSUM, value=checksum)
    return onnx.ModelProto(metadata_props=[entry]).SerializeToString()


def _has_readable_names(model: Any) -> bool:
    """Whether the texts of a model that are used here are UTF-8, which protobuf does not check."""
    texts = [model.producer_name, *(text for entry in model.metadata_props for text in (entry.key, entry.value))]
    for value in (*model.graph.input, *model.graph.output):
        texts += [value.name, *(size.dim_param for size in value.type.tensor_type.shape.dim)]
    return all(isinstance(text, str) for text in texts)


def _require_undamaged(path: Path, content: bytes, model: Any) -> None:
    """Refuse a file of reid-tune that does not end in its checksum; another file has none."""
    if model.producer_name != _PRODUCER and all(entry.key != _CHECKSUM for entry in model.metadata_props):
        return
    body = memoryview(content)[: -len(_checksum_entry("0" * 8))]
    if not content.endswith(_checksum_entry(f"{zlib.crc32(body):08x}")):
        raise InputError(
            f"{path} is damaged, or was changed after its export: its checksum does not fit. Copy or export it again; "
            f"a file that was changed on purpose needs another producer_name, and no metadata {_CHECKSUM!r}."
        )


def _require_weight_files(file: OnnxFile) -> None:
    """Refuse a file whose weights are missing, or are stored outside its folder."""
    # The folder of the name, and that of the file itself: a cache may hold a file under a link to another folder.
    folder, own_folder = file.path.parent.resolve(), file.path.resolve().parent
    for name in file.weight_files:
        problem = f"{file.path} keeps weights in {printable(repr(name))}"
        inside = "save the model with all weights inside"
        try:
            target = (folder / name).resolve()
            is_file = target.is_file()
        except (TypeError, ValueError, OSError, RuntimeError):  # no text, a NUL byte, too long, or a circle of links
            raise InputError(f"{problem}, which is not the name of a file: {inside}.") from None
        if not (target.is_relative_to(folder) or target.is_relative_to(own_folder)):
            raise InputError(f"{problem}, outside its folder, which is not read: copy it into the folder, or {inside}.")
        if not is_file:
            raise InputError(f"{problem}, which is missing: copy it into the same folder, or {inside}.")
