"""Deviation of full-size ONNX files from PyTorch, by backbone, height and options.

    python benchmarks/export.py [--images FOLDER] [--quick]

All backbones of the documentation and two more families of timm at 256x128 and 384x128, as `export` writes them. A file
that deviates is rejected, so every row is a file that users would get. The networks are untrained, and the weights and
statistics of their batch norms are drawn: an untrained residual branch ends in a weight of 0, which would make parity
easy.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import RESNET, SWIN, TINY, machine
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from reid_tune.data.image_spec import ImageSpec, interpolation_for
from reid_tune.data.images import decode_images
from reid_tune.data.records import read_image_folder
from reid_tune.deploy.onnx_export import export_onnx
from reid_tune.deploy.preprocessing import DEFAULT, ExportOptions
from reid_tune.tables import print_table
from tests.deploy.conftest import make_network

BACKBONES = (
    RESNET,
    SWIN,
    "swin_small_patch4_window7_224",
    "swin_base_patch4_window7_224",
    "convnext_tiny",
    "vit_small_patch16_224",
)
OPTIONS = {"plain": DEFAULT, "uint8, l2, fp16": ExportOptions("uint8_nhwc", "fp16", l2_normalized=True)}
WIDTH, CROPS = 128, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of crops in Market-1501's layout (default: drawn crops)")
    parser.add_argument("--quick", action="store_true", help="one small network, only to check that the script runs")
    arguments = parser.parse_args()
    print(machine(torch.device("cpu")))
    names = "options", "MB", "seconds", "1 - cosine", "limit", "difference", "limit", "10 neighbours"
    table = Table("backbone", "size", *names)
    for backbone in (TINY,) if arguments.quick else BACKBONES:
        for height in (256, 384):
            for name, options in OPTIONS.items():
                cells = row(backbone, height, options, arguments.images)
                table.add_row(backbone.removesuffix("_patch4_window7_224"), f"{height}x{WIDTH}", name, *cells)
                print(backbone, height, name, *cells, file=sys.stderr)
    print_table(table)


def row(backbone: str, height: int, options: ExportOptions, images: Path | None) -> list[str]:
    """Export a network, and return the cells of its row."""
    network, experiment = make_network(backbone, height, WIDTH)
    crops = None
    if images:
        records = read_image_folder(images).records
        sample = records[:: max(1, len(records) // CROPS)][:CROPS]
        crops = decode_images(sample, ImageSpec(height, WIDTH, interpolation_for(backbone)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        started = time.perf_counter()
        parity = export_onnx(network, experiment, path, crops=crops, options=options)
        seconds, size = time.perf_counter() - started, path.stat().st_size
    return [
        f"{size / 1e6:.1f}",
        f"{seconds:.0f}",
        f"{abs(1 - parity.cosine):.0e}",
        f"{1 - parity.min_cosine:.0e}",
        f"{parity.difference:.0e}",
        f"{parity.max_difference:.0e}",
        f"{parity.same_neighbours:.0%}",
    ]


if __name__ == "__main__":
    main()
