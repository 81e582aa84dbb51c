"""Time of writing and reading a training checkpoint with its digest, against plain torch.save and torch.load.

    python benchmarks/checkpoint.py [--quick]

The checkpoint is that of a resnet_50 with 751 identities and the moments of Adam. Each figure is the fastest of five.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import common
import torch

from reid_tune.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from reid_tune.checkpoints.damage import content_digest
from reid_tune.modeling.network import build_seeded_network

REPEATS = 5


def main() -> None:
    arguments = common.make_parser(__doc__).parse_args()
    print(common.machine(torch.device("cpu")))
    checkpoint = make_checkpoint(common.TINY if arguments.quick else common.RESNET, quick=arguments.quick)
    with common.temporary_workspace() as folder:
        path = Path(folder, "checkpoint.pth")
        plain = Path(folder, "plain.pth")
        rows = [
            common.Row(
                "seconds to write",
                fastest(lambda: torch.save(vars(checkpoint), plain)),
                fastest(lambda: save_checkpoint(path, checkpoint)),
                "less",
            ),
            common.Row(
                "seconds to read",
                fastest(lambda: torch.load(plain, weights_only=True)),
                fastest(lambda: load_checkpoint(path)),
                "less",
            ),
            common.Row("seconds of the digest", "", fastest(lambda: content_digest(vars(checkpoint)))),
            common.Row("MB", plain.stat().st_size / 1e6, path.stat().st_size / 1e6),
        ]
    common.show(f"{checkpoint.spec['model']['backbone']} with its optimizer", "PyTorch", rows)


def make_checkpoint(backbone: str, *, quick: bool) -> Checkpoint:
    """Return the checkpoint of a network after a step of Adam."""
    experiment = common.spec(backbone, {}, quick=quick)
    network = build_seeded_network(experiment.model, common.IDENTITIES, seed=0)
    optimizer = torch.optim.Adam(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    history = [{"epoch": epoch, "loss": 1 / epoch} for epoch in range(1, common.EPOCHS + 1)]
    identities = list(range(common.IDENTITIES))
    model = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    return Checkpoint(
        experiment.model_dump(mode="json"), common.EPOCHS, identities, history, model, optimizer.state_dict()
    )


def fastest(function: Callable[[], object]) -> float:
    """Return the seconds of the fastest call."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    sys.exit(main())
