"""Embeddings by a model on a Triton server, which tells by itself how images must come."""

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
_EXPORT = "make its repository with 'reid-tune triton repository'"


class TritonModel:
    """A model as the server describes it; a context manager.

    Attributes:
        preprocessing: What its input must look like.
        dimension: Values in an embedding.
        max_batch_size: Images at most in a request.

    Args:
        version: A number, or empty for what the server's policy chooses.
        max_concurrent: Requests under way at the same time.

    Raises:
        InputError: the server is no Triton, has no such model, or tells too little of it.
        InfrastructureError: nobody answers.
    """

    def __init__(self, address: Address, name: str, version: str = "", max_concurrent: int = 1) -> None:
        self._address, self._name, self._version = address, name, version
        self._over, self._own, self._all = Event(), local(), list[Connection]()
        self._served: set[str] = set()
        self._max_concurrent, self._pool = max_concurrent, ThreadPoolExecutor(max_concurrent)
        try:
            first = self._connection()
            require_triton(address)
            self._take(first.config(name, version))
        except BaseException:  # Whatever ends it, Ctrl-C too: a server waits with its end for those who are connected.
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        # gRPC lets go of a request under way, HTTP waits for its answer or its timeout.
        if self._address.protocol == "grpc":
            self._close()
        self._pool.shutdown(cancel_futures=True)
        self._close()

    def __str__(self) -> str:
        version = f", version {self._version}" if self._version else ""
        return f"{self._name}{version} on {self._address}"

    def embed(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Embeddings [n, dimension] float32 of each batch of crops [n, height, width, 3] uint8, in order.

        Raises:
            InputError: the server refuses a batch, answers with another shape, or changes the model's version.
            InfrastructureError: it is away, also behind several attempts.
        """
        rest = iter(batches)
        waiting: list[Future[np.ndarray]] = []
        try:
            while True:
                waiting += [
                    self._pool.submit(self._infer, batch) for batch in islice(rest, self._max_concurrent - len(waiting))
                ]
                if not waiting:
                    return
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()

    def _take(self, config: dict[str, Any]) -> None:
        metadata = {key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()}
        try:
            self.preprocessing, self.dimension = Preprocessing.from_metadata(metadata), int(metadata["dimension"])
            (given,), (wanted,) = config["input"], config["output"]
            self._input, self._output, self._type = given["name"], wanted["name"], _TYPES[self.preprocessing.layout]
            if given["data_type"] != f"TYPE_{self._type}":
                raise ValueError(given["data_type"])
            self.max_batch_size = max(1, int(config.get("max_batch_size", 0)))
        except (LookupError, ValueError, TypeError):
            raise InputError(
                f"the model {self._name} on {self._address} does not say how its images must come: {_EXPORT}."
            ) from None

    def _infer(self, crops: np.ndarray) -> np.ndarray:
        given = self._input, self._type, self.preprocessing.prepare(crops)
        found, version = self._connection().infer(self._name, self._version, given, self._output)
        self._served.add(version)
        if len(self._served) > 1:
            raise InputError(
                f"{self._address} has changed {self._name} from one version to another meanwhile: run it again, or "
                "name a version with -x."
            )
        if found.shape != (len(crops), self.dimension) or not np.isfinite(found).all():
            raise InputError(
                f"the model {self._name} on {self._address} answers with {list(found.shape)}, or values that are not "
                f"finite, in place of [{len(crops)}, {self.dimension}]."
            )
        return found.astype(np.float32, copy=False)

    def _connection(self) -> Connection:
        """That of this thread."""
        if not hasattr(self._own, "connection"):
            self._own.connection = Connection(self._address, self._over)
            self._all.append(self._own.connection)
        return cast(Connection, self._own.connection)

    def _close(self) -> None:
        # A server waits with its end for those who are connected.
        while self._all:
            self._all.pop().close()
