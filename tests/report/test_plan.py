from typing import Any

import pytest

from reid_tune.report.plan import plan_lines


def plan(**probe: float) -> dict[str, Any]:
    measured = {"steps": 20, "memory": 2e9, "gpu_memory": 0, "gpu_context": 0, "step_memory": 0, "largest_batch": 0}
    return {
        "probe": measured | probe,
        "pace": {"start": 3.0, "epoch": 5.0},
        "training_images": 1000,
        "training_identities": 50,
        "held_out_identities": 10,
        "pretrained": None,
        "cpus_per_run": 1,
        "gpus_per_run": 1,
        "at_once": 2,
        "rungs": [],
        "given": [],
        "folder": "runs/s",
        "warnings": [],
    }


GPU = {"gpu_memory": 9e9, "step_memory": 6.5e9}


@pytest.mark.parametrize(
    ("probe", "memory", "batch"),
    [
        (
            GPU | {"largest_batch": 96},
            "9.0 GB of GPU memory",
            "a step takes 6.5 GB of it at its peak; largest batch that fits, estimated from two batch sizes: 96",
        ),
        (
            GPU,
            "9.0 GB of GPU memory",
            "a step takes 6.5 GB of it at its peak; the largest batch that fits is not estimated for this spec",
        ),
        ({"gpu_memory": 9e9}, "9.0 GB of GPU memory", "the largest batch that fits is not estimated for this spec"),
    ],
)
def test_the_plan_tells_the_memory_of_a_step_and_the_largest_batch(
    probe: dict[str, float], memory: str, batch: str
) -> None:
    lines = list(plan_lines(plan(**probe)))
    (run,) = [line for line in lines if line.startswith("a run: ")]
    assert run.endswith(memory) and lines[lines.index(run) + 1] == batch


def test_without_a_gpu_the_plan_estimates_no_batch() -> None:
    lines = list(plan_lines(plan()))
    assert any(line.endswith("2.0 GB of memory") for line in lines) and not any("batch" in line for line in lines)
