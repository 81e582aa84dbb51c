"""Triton's backend `onnxruntime` in Python, by the interface of Triton's Python-based backends.

The genuine server reads, checks, schedules and batches as ever; only the network runs here. It stands in for the
backend of NVIDIA's images, which no Python package has. On the CPU, with one thread unless the
configuration says otherwise.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton

__all__ = ["TritonPythonModel"]


class TritonPythonModel:
    """One instance of a model, see https://github.com/triton-inference-server/python_backend."""

    def initialize(self, args: dict[str, str]) -> None:
        options = onnxruntime.SessionOptions()
        parameters = json.loads(args["model_config"])["parameters"]
        options.intra_op_num_threads = int(parameters.get("intra_op_thread_count", {"string_value": 1})["string_value"])
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (self._input,), (self._output,) = (
            [node.name for node in nodes] for nodes in (self._session.get_inputs(), self._session.get_outputs())
        )

    def execute(self, requests: list) -> list:
        """One answer for each request; they are one batch of the network."""
        inputs = [triton.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        embeddings = self._session.run([self._output], {self._input: np.concatenate(inputs)})[0]
        parts = np.split(embeddings, np.cumsum([len(part) for part in inputs])[:-1])
        return [triton.InferenceResponse([triton.Tensor(self._output, part)]) for part in parts]
