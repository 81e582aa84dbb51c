"""Speed of serving: PyTorch, ONNX Runtime in this process, and a real Triton server over HTTP and gRPC.

    python benchmarks/serving.py [--threads N] [--quick]

All variants embed the same crops, preprocessing included, with the same number of threads. They take turns, so that a
busy machine slows all of them. The figures are the best images per second with batches of 16, and the best latency of
one image. Plain PyTorch is eager, with its defaults. Triton needs `make triton`; its ONNX Runtime is a backend in
Python (tests/helpers/onnxruntime), but the server, its scheduler and its protocols are real.
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
from tests.helpers.triton_server import triton_server

Embed = Callable[[np.ndarray], np.ndarray]
BATCH, SIZE = 16, (256, 128)
EAGER, RUNTIME = "PyTorch, eager", "ONNX Runtime"
TARGETS = {RESNET: "1.9x", SWIN: "1.6x"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="turns of each variant")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of each variant")
    parser.add_argument("--quick", action="store_true", help="one small network, only to check that the script runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine(torch.device("cpu")))
    for backbone in ("resnet18",) if arguments.quick else (RESNET, SWIN):
        with tempfile.TemporaryDirectory() as folder:
            compare(backbone, Path(folder), 1 if arguments.quick else arguments.rounds)


def compare(backbone: str, folder: Path, rounds: int) -> None:
    """Print the table of a backbone."""
    network, experiment = make_network(backbone, *SIZE, **{"dataset.val_batch_size": BATCH})
    export_onnx(network, experiment, folder / "model.onnx")
    threads = torch.get_num_threads()
    model = OnnxModel(folder / "model.onnx", threads=threads)
    write_repository(folder / "model.onnx", folder / "repository", name="reid", serving=ServingOptions(threads=threads))
    crops = np.random.default_rng(0).integers(0, 256, (4 * BATCH, *SIZE, 3), np.uint8)
    with serve(folder / "repository") as triton:
        variants: dict[str, Embed] = {
            EAGER: plain_embed(network.eval(), model),
            "PyTorch, evaluate": make_embed_function(network, experiment),
            RUNTIME: lambda images: model.embed(images, BATCH),
            **triton,
        }
        expected = variants[RUNTIME](crops)
        for name, embed in variants.items():
            assert np.allclose(embed(crops), expected, atol=5e-4 * np.abs(expected).max()), name
        of_batches, of_one_image = best_seconds(variants, crops, rounds), best_seconds(variants, crops[:1], 4 * rounds)
    table = Table(f"{backbone}, 256x128", "images/s, batches of 16", "against PyTorch", "one image, ms", "target")
    for name in variants:
        share, target = "", {RUNTIME: TARGETS.get(backbone, "")}.get(name, "")
        if name in triton:
            share, target = f", {of_batches[RUNTIME] / of_batches[name]:.0%} of {RUNTIME}", f"90% of {RUNTIME}"
        speed, ratio = f"{len(crops) / of_batches[name]:.1f}{share}", f"{of_batches[EAGER] / of_batches[name]:.2f}x"
        table.add_row(name, speed, ratio, f"{1000 * of_one_image[name]:.1f}", target)
    print_table(table)


def plain_embed(network: ReIDNet, model: OnnxModel) -> Embed:
    """Return plain PyTorch with contiguous images [n, C, H, W]; `evaluate` uses channels last, which suits a ResNet."""

    @torch.inference_mode()
    def embed(images: np.ndarray) -> np.ndarray:
        parts = (model.preprocessing.prepare(images[start : start + BATCH]) for start in range(0, len(images), BATCH))
        return np.concatenate([network(torch.from_numpy(part)).numpy() for part in parts])

    return embed


def best_seconds(variants: dict[str, Embed], images: np.ndarray, rounds: int) -> dict[str, float]:
    """Return the shortest time of each variant for the images, as other load of the machine only adds to it."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, embed in variants.items():
            started = time.perf_counter()
            embed(images)
            times[name].append(time.perf_counter() - started)
    return {name: min(seconds) for name, seconds in times.items()}


@contextmanager
def serve(repository: Path) -> Iterator[dict[str, Embed]]:
    """Serve the model of a repository with a real server; yields a function that embeds for each protocol."""
    with triton_server(repository) as server, ExitStack() as stack:

        def connect(address: Address) -> Embed:
            model = stack.enter_context(TritonModel(address, "reid", max_concurrent=2))

            def embed(images: np.ndarray) -> np.ndarray:
                batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
                return np.concatenate(list(model.embed(batches)))

            return embed

        yield {
            "Triton, HTTP": connect(Address("http", server.http)),
            "Triton, gRPC": connect(Address("grpc", server.grpc)),
        }


if __name__ == "__main__":
    main()
