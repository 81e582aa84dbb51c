"""Memory and time of a training step by the number of chunks (`train.accumulate`).

    python benchmarks/accumulate.py [--device cuda] [--backbone swin_tiny_patch4_window7_224] [--batch 64] [--chunks 8]

Each number of chunks runs in a separate process: a few steps on one batch at the backbone's default size. On a GPU the
memory is the peak of PyTorch's allocator in a step; on a CPU it is the peak resident memory of the process, minus that
before its first step. The loss of the first step shows that the losses see the whole batch. It is the same for a Swin,
here without stochastic depth; the batch norm of a ResNet sees one chunk at a time.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import common
import torch

from reid_tune.training.pipeline import training_batches
from reid_tune.training.state import create_or_resume


def main() -> None:
    arguments = parse()
    if arguments.measure:
        print(json.dumps(measure(arguments)))
        return
    print(common.machine(common.device_of(arguments)))
    whole, chunked = (measure_in_process(chunks) for chunks in (1, arguments.chunks))
    common.show(
        f"{whole['backbone']}, {whole['size']}, batch {whole['batch']}",
        "1 chunk",
        [
            common.Row(f"memory of a step, MB, {arguments.chunks} chunks", whole["memory"], chunked["memory"], "less"),
            common.Row("seconds of a step", whole["seconds"], chunked["seconds"], "less"),
            common.Row("loss of the first step", whole["loss"], chunked["loss"]),
        ],
    )


def parse() -> argparse.Namespace:
    parser = common.make_parser(__doc__)
    parser.add_argument("--backbone", help=f"default {common.SWIN}")
    parser.add_argument("--batch", type=int, help="a multiple of 4 and of --chunks; default 128 on a GPU, 32 elsewhere")
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_in_process(chunks: int) -> dict[str, float]:
    """Return the result of `measure` for a number of chunks, from a separate process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", str(chunks)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return dict(json.loads(printed.splitlines()[-1]))


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the memory in MB, the seconds and the loss of steps with `arguments.measure` chunks."""
    device, quick = common.device_of(arguments), arguments.quick
    batch = arguments.batch or (16 if quick else 128 if device.type == "cuda" else 32)
    with common.temporary_workspace() as folder:
        values = {
            "dataset.train_dataset_dir": str(common.draw_crops(folder / "crops", 2 * batch, batch // 4)),
            "dataset.batch_size": batch,
            "train.accumulate": arguments.measure,
            "model.drop_path": 0.0,
        }
        experiment = common.spec(arguments.backbone or (common.TINY if quick else common.SWIN), values, quick=quick)
        memory, seconds, loss = steps(experiment, device, folder / "run")
    model = experiment.model
    size = f"{model.input_height} x {model.input_width}"
    return {
        "backbone": model.backbone,
        "size": size,
        "batch": batch,
        "memory": memory,
        "seconds": seconds,
        "loss": loss,
    }


def steps(experiment: common.Experiment, device: torch.device, folder: Path) -> tuple[float, float, float]:
    """Return the peak memory in MB, the seconds of a step, and the loss of the first step."""
    state = create_or_resume(experiment, folder, device, None)
    with training_batches(experiment, state.data, state.image_source, device, range(1)) as batches:
        images, labels = state.prepare_inputs(next(batches))
    now = common.clock(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = peak_resident_bytes()
    state.network.train()
    loss = float(state.step(images, labels)["loss"])
    started = now()
    for _ in range(2):
        state.step(images, labels)
    seconds = (now() - started) / 2
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes() - before
    return peak / 1e6, seconds, loss


def peak_resident_bytes() -> int:
    """Return the peak resident memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
