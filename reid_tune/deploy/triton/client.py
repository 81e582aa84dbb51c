"""Embeddings by a model on a Triton server, which tells by itself how images must come."""

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import local
from typing import Self, cast

import numpy as np
import torch

from reid_tune.data.augment import Channels, Values, normalise
from reid_tune.data.images import Interpolation
from reid_tune.deploy.triton.connection import Address, Connection
from reid_tune.errors import InputError

__all__ = ["TritonModel"]

_TYPES = {"TYPE_FP32": "FP32", "TYPE_UINT8": "UINT8"}
_EXPORT = "make its repository with 'reid-tune triton repository'"


class TritonModel:
    """A model as the server describes it; a context manager.

    Attributes:
        height, width: Size of the crops in pixels.
        interpolation: How a crop is resized to it.
        channels: 3 for RGB, 1 for grey.
        dimension: Values in an embedding.
        most: Images at most in a request.

    Args:
        version: A number, or empty for what the server's policy chooses.

    Raises:
        InputError: the server is no Triton, has no such model, or tells too little of it.
        InfrastructureError: nobody answers.
    """

    def __init__(self, address: Address, name: str, version: str = "") -> None:
        self._address, self._name, self._version = address, name, version
        self._own, self._all = local(), list[Connection]()
        config = self._connection().config(name, version)
        metadata = {key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()}
        try:
            (self._input,), (self._output,) = config["input"], config["output"]
            self._type = _TYPES[self._input["data_type"]]
            self.height, self.width, self.dimension = (int(metadata[key]) for key in ("height", "width", "dimension"))
            self.channels = cast(Channels, int(metadata["channels"]))
            self._mean, self._std = (tuple(json.loads(metadata[key])) for key in ("mean", "std"))
            self.interpolation = cast(Interpolation, metadata["interpolation"])
            self.most = max(1, int(config.get("max_batch_size", 0)))
        except (LookupError, ValueError, TypeError):
            raise InputError(
                f"the model {name} on {address} does not say how its images must come: {_EXPORT}."
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A server waits with its end for those who are connected.
        for connection in self._all:
            connection.close()

    def __str__(self) -> str:
        version = f", version {self._version}" if self._version else ""
        return f"{self._name}{version} on {self._address}"

    def embed(self, batches: Iterable[np.ndarray], at_once: int = 1) -> Iterator[np.ndarray]:
        """Embeddings [n, dimension] float32 of each batch of crops [n, height, width, 3] uint8, in order.

        Args:
            at_once: Requests under way at the same time.

        Raises:
            InputError: the server refuses a batch, or answers with another shape.
            InfrastructureError: it is away, also behind several attempts.
        """
        rest = iter(batches)
        with ThreadPoolExecutor(at_once) as pool:
            waiting = [pool.submit(self._infer, batch) for batch in islice(rest, at_once)]
            try:
                while waiting:
                    yield waiting.pop(0).result()
                    waiting += [pool.submit(self._infer, batch) for batch in islice(rest, 1)]
            finally:
                pool.shutdown(cancel_futures=True)

    def _infer(self, crops: np.ndarray) -> np.ndarray:
        given = self._input["name"], self._type, self._prepared(crops)
        found = self._connection().infer(self._name, self._version, given, self._output["name"])
        if found.shape != (len(crops), self.dimension) or not np.isfinite(found).all():
            raise InputError(
                f"the model {self._name} on {self._address} answers with {list(found.shape)}, or values that are not "
                f"finite, in place of [{len(crops)}, {self.dimension}]."
            )
        return found.astype(np.float32, copy=False)

    def _prepared(self, crops: np.ndarray) -> np.ndarray:
        if self._type == "UINT8":
            return np.ascontiguousarray(crops[..., : self.channels])
        images = torch.from_numpy(np.ascontiguousarray(crops))
        return normalise(images, cast(Values, self._mean), cast(Values, self._std), self.channels).contiguous().numpy()

    def _connection(self) -> Connection:
        """That of this thread."""
        if not hasattr(self._own, "connection"):
            self._own.connection = Connection(self._address)
            self._all.append(self._own.connection)
        return cast(Connection, self._own.connection)
