import pytest
import torch

from reid_tune.config.load import build_experiment
from reid_tune.tasks.plan import describe_run

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("values", "devices", "expected"),
    [
        ({}, [CPU], "no GPU, the CPU, 1 decoding thread(s), fp32"),
        ({}, [GPU], "GPU 0, 1 decoding thread(s), fp32 (TF32), cuDNN benchmark True, deterministic False"),
        ({"train.tf32": False, "train.deterministic": True}, [GPU], "GPU 0, 1 decoding thread(s), fp32, deterministic"),
        (
            {"train.precision": "bf16", "train.accumulate": 4},
            [CPU, CPU],
            "no GPU, 2 processes on the CPU, 1 decoding thread(s), bf16, each worker's part of a batch in 4 chunks",
        ),
        (
            {"train.cuda_graphs": True},
            [CPU],
            "no GPU, the CPU, 1 decoding thread(s), fp32, no CUDA graphs, which need one worker on a GPU",
        ),
        (
            {"train.cuda_graphs": True, "train.deterministic": True},
            [GPU],
            "GPU 0, 1 decoding thread(s), fp32 (TF32), CUDA graphs, deterministic",
        ),
    ],
)
def test_the_line_names_what_a_training_uses(
    values: dict[str, object], devices: list[torch.device], expected: str
) -> None:
    assert describe_run(build_experiment({}, values, "test"), "train", devices) == f"train: {expected}"
