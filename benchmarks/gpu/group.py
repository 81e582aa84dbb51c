"""Process group with a single worker: checks what several GPUs would do, as far as one GPU can.

    python benchmarks/gpu/group.py --file FILE [--device cpu]

Writes the backend to a JSON file after the collectives of training and DistributedDataParallel have worked.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from reid_tune.training.launch import launch_workers


def work(file: Path, device: torch.device) -> None:
    objects = [None]
    dist.all_gather_object(objects, "text")
    dist.broadcast_object_list(objects)
    rows = torch.ones(4, 8, device=device)
    parts = [torch.empty_like(rows)]
    dist.all_gather(parts, rows)
    dist.all_reduce(rows)
    assert objects == ["text"] and torch.equal(parts[0], rows)
    module = DistributedDataParallel(torch.nn.Linear(8, 2).to(device))
    module(parts[0]).sum().backward()
    file.write_text(json.dumps({"backend": dist.get_backend()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="has no effect")
    parser.add_argument("--file", type=Path, required=True)
    options = parser.parse_args()
    launch_workers(
        work, (options.file,), [torch.device("cuda", 0) if options.device == "cuda" else torch.device("cpu")]
    )


if __name__ == "__main__":
    main()
