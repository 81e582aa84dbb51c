"""What serving costs: PyTorch, ONNX Runtime in this process, and a genuine Triton over HTTP and gRPC.

    python benchmarks/serving.py [--threads N] [--quick]

Each way embeds the same crops, preprocessing included, with as many threads, and the ways take turns, so that a busy
machine slows all of them. Images a second with batches of 16, and the latency of one image, at their best. The obvious
way is PyTorch in eager mode, as it comes. Triton needs `make triton`; its ONNX Runtime is a backend in Python
(tests/deploy/triton/onnxruntime), the server, its scheduler and its protocols are the real ones.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from common import RESNET, SWIN, machine
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.deploy.triton.server import triton_server

from reid_tune.deploy.onnx_export import export_onnx
from reid_tune.deploy.onnx_model import OnnxModel
from reid_tune.deploy.triton.address import Address
from reid_tune.deploy.triton.client import TritonModel
from reid_tune.deploy.triton.config import ServingOptions
from reid_tune.deploy.triton.repository import write_repository
from reid_tune.modeling.network import ReIDNet
from reid_tune.tables import print_table
from reid_tune.training.embedding import make_embed_function
from tests.deploy.conftest import make_network

Embed = Callable[[np.ndarray], np.ndarray]
BATCH, SIZE = 16, (256, 128)
EAGER, RUNTIME = "PyTorch, eager", "ONNX Runtime"
WANTED = {RESNET: "1.9x", SWIN: "1.6x"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="turns of each way")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each way")
    parser.add_argument("--quick", action="store_true", help="a small network and one turn, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine(torch.device("cpu")))
    for backbone in ("resnet18",) if arguments.quick else (RESNET, SWIN):
        with tempfile.TemporaryDirectory() as folder:
            compare(backbone, Path(folder), 1 if arguments.quick else arguments.rounds)


def compare(backbone: str, folder: Path, rounds: int) -> None:
    """Print the table of one backbone."""
    network, experiment = make_network(backbone, *SIZE, **{"dataset.val_batch_size": BATCH})
    export_onnx(network, experiment, folder / "model.onnx")
    threads = torch.get_num_threads()
    model = OnnxModel(folder / "model.onnx", threads=threads)
    write_repository(folder / "model.onnx", folder / "repository", name="reid", serving=ServingOptions(threads=threads))
    crops = np.random.default_rng(0).integers(0, 256, (4 * BATCH, *SIZE, 3), np.uint8)
    with served(folder / "repository") as triton:
        ways: dict[str, Embed] = {
            EAGER: plainly(network.eval(), model),
            "PyTorch, evaluate": make_embed_function(network, experiment),
            RUNTIME: lambda images: model.embed(images, BATCH),
            **triton,
        }
        expected = ways[RUNTIME](crops)
        for name, way in ways.items():
            assert np.allclose(way(crops), expected, atol=5e-4 * np.abs(expected).max()), name
        many, one = seconds(ways, crops, rounds), seconds(ways, crops[:1], 4 * rounds)
    table = Table(f"{backbone}, 256x128", "images/s, batches of 16", "against PyTorch", "one image, ms", "wanted")
    for name in ways:
        share, wanted = "", {RUNTIME: WANTED.get(backbone, "")}.get(name, "")
        if name in triton:
            share, wanted = f", {many[RUNTIME] / many[name]:.0%} of {RUNTIME}", f"90% of {RUNTIME}"
        speed, ratio = f"{len(crops) / many[name]:.1f}{share}", f"{many[EAGER] / many[name]:.2f}x"
        table.add_row(name, speed, ratio, f"{1000 * one[name]:.1f}", wanted)
    print_table(table)


def plainly(network: ReIDNet, model: OnnxModel) -> Embed:
    """PyTorch as it comes: contiguous images [n, C, H, W]; `evaluate` has the channels last, which suits a ResNet."""

    @torch.inference_mode()
    def embed(images: np.ndarray) -> np.ndarray:
        parts = (model.preprocessing.prepare(images[start : start + BATCH]) for start in range(0, len(images), BATCH))
        return np.concatenate([network(torch.from_numpy(part)).numpy() for part in parts])

    return embed


def seconds(ways: dict[str, Embed], images: np.ndarray, rounds: int) -> dict[str, float]:
    """The shortest time of each way for some images: what else the machine does only ever adds."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way(images)
            found[name].append(time.perf_counter() - begun)
    return {name: min(times) for name, times in found.items()}


@contextmanager
def served(repository: Path) -> Iterator[dict[str, Embed]]:
    """The model of a repository on a genuine server, over both protocols."""
    with triton_server(repository) as server, ExitStack() as stack:

        def over(address: Address) -> Embed:
            model = stack.enter_context(TritonModel(address, "reid", max_concurrent=2))

            def embed(images: np.ndarray) -> np.ndarray:
                batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
                return np.concatenate(list(model.embed(batches)))

            return embed

        yield {
            "Triton, HTTP": over(Address("http", server.http)),
            "Triton, gRPC": over(Address("grpc", server.grpc)),
        }


if __name__ == "__main__":
    main()
