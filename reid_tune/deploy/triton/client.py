"""Embeddings from a model on a Triton server, prepared as the model's configuration says."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Event, local
from typing import Any, Self, cast

import numpy as np

from reid_tune.deploy.preprocessing import Preprocessing
from reid_tune.deploy.triton.address import Address
from reid_tune.deploy.triton.connection import Connection
from reid_tune.deploy.triton.probe import require_triton
from reid_tune.errors import InputError

__all__ = ["TritonModel"]

_TYPES = {"float_nchw": "FP32", "uint8_nhwc": "UINT8"}
_HINT = "make its repository with 'reid-tune triton repository'"


class TritonModel:
    """A model as the server describes it; a context manager.

    Attributes:
        preprocessing: Preparation of its input.
        dimension: Number of values in an embedding.
        max_batch_size: Largest number of images in a request.

    Args:
        address: Address of the server.
        name: Name of the model.
        version: Number of its version; empty for the one that the server's policy chooses.
        max_concurrent: Number of requests that are sent before the first is answered.

    Raises:
        InputError: the server is not Triton, has no such model, or does not describe its preprocessing.
        InfrastructureError: no server answers.
    """

    def __init__(self, address: Address, name: str, version: str = "", max_concurrent: int = 1) -> None:
        self._address, self._name, self._version = address, name, version
        self._closing, self._thread_local, self._connections = Event(), local(), list[Connection]()
        self._served_versions: set[str] = set()
        self._max_concurrent, self._pool = max_concurrent, ThreadPoolExecutor(max_concurrent)
        try:
            connection = self._connection()
            require_triton(address)
            self._read_config(connection.config(name, version))
        except BaseException:  # Ctrl-C too: a server that ends waits for open connections.
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        # Closing ends a pending request of gRPC; a pending request of HTTP waits for its answer or its timeout.
        if self._address.protocol == "grpc":
            self._close_connections()
        self._pool.shutdown(cancel_futures=True)
        self._close_connections()

    def __str__(self) -> str:
        version = f", version {self._version}" if self._version else ""
        return f"{self._name}{version} on {self._address}"

    def embed(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield embeddings [n, dimension] float32 of each batch of crops [n, height, width, 3] uint8, in order.

        Raises:
            InputError: the server refuses a batch, answers with another shape, or changes the model's version.
            InfrastructureError: the server stays unreachable in several attempts.
        """
        remaining = iter(batches)
        pending: list[Future[np.ndarray]] = []
        try:
            while True:
                free = self._max_concurrent - len(pending)
                pending += [self._pool.submit(self._infer, batch) for batch in islice(remaining, free)]
                if not pending:
                    return
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()

    def _read_config(self, config: dict[str, Any]) -> None:
        metadata = {key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()}
        try:
            self.preprocessing, self.dimension = Preprocessing.from_metadata(metadata), int(metadata["dimension"])
            (model_input,), (model_output,) = config["input"], config["output"]
            self._input, self._output = model_input["name"], model_output["name"]
            self._type = _TYPES[self.preprocessing.layout]
            if model_input["data_type"] != f"TYPE_{self._type}":
                raise ValueError(model_input["data_type"])
            self.max_batch_size = max(1, int(config.get("max_batch_size", 0)))
        except (LookupError, ValueError, TypeError):
            raise InputError(
                f"the model {self._name} on {self._address} does not describe its preprocessing: {_HINT}."
            ) from None

    def _infer(self, crops: np.ndarray) -> np.ndarray:
        tensor = self._input, self._type, self.preprocessing.prepare(crops)
        embeddings, version = self._connection().infer(self._name, self._version, tensor, self._output)
        self._served_versions.add(version)
        if len(self._served_versions) > 1:
            raise InputError(
                f"{self._address} has changed {self._name} from one version to another during the run: run it again, "
                "or name a version with -x."
            )
        if embeddings.shape != (len(crops), self.dimension) or not np.isfinite(embeddings).all():
            raise InputError(
                f"the model {self._name} on {self._address} answers with {list(embeddings.shape)}, or values that are "
                f"not finite, in place of [{len(crops)}, {self.dimension}]: check the model file."
            )
        return embeddings.astype(np.float32, copy=False)

    def _connection(self) -> Connection:
        """Return the connection of this thread."""
        if not hasattr(self._thread_local, "connection"):
            self._thread_local.connection = Connection(self._address, self._closing)
            self._connections.append(self._thread_local.connection)
        return cast(Connection, self._thread_local.connection)

    def _close_connections(self) -> None:
        # A server that ends waits for open connections.
        while self._connections:
            self._connections.pop().close()
