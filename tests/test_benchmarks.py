"""The benchmarks of training run, and print their tables."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from getpass import getuser
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import reid_tune

pytestmark = pytest.mark.integration

ROOT = Path(reid_tune.__file__).parent.parent
EPOCH = "an epoch of 8 steps with its checkpoint"
ABSENT = ("ray", "mlflow", "optuna", "omegaconf")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of a short name: sockets of workers lie in it, whose names may have 108 bytes."""
    with TemporaryDirectory(prefix="rt") as name:
        yield Path(name)


def run(script: str, folder: Path, *arguments: str, without: tuple[str, ...] = ABSENT) -> str:
    """What a benchmark prints on the smallest sizes, on a machine without what sweeps and tracking need."""
    bare, work = folder / "bare", folder / "work"
    for part in (bare, work):
        part.mkdir()
    for name in without:
        (bare / f"{name}.py").write_text(f"raise ModuleNotFoundError({name!r})\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), "--quick", "--device", "cpu", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(work), "PYTHONPATH": str(bare)},
        cwd=work,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in work.iterdir()} <= {f"torchinductor_{getuser()}"}  # torch's own
    return done.stdout


def row(printed: str, name: str) -> list[str]:
    """The cells of one row of the table after its name."""
    lines = [line for line in printed.splitlines() if re.match(rf"│ {re.escape(name)}[\s,]", line)]
    matches = [line for line in lines if re.match(rf"│ {re.escape(name)} +│", line)] or lines
    assert len(matches) == 1, printed
    return [cell.strip() for cell in matches[0].strip("│").split("│")[1:]]


def number(cell: str) -> float:
    return float(cell.replace(",", "").removesuffix("x"))


def assert_names_the_machine(printed: str) -> None:
    first = printed.splitlines()[0]
    assert f"{len(os.sched_getaffinity(0))} cores" in first and "no GPU" in first and "torch 2." in first
    assert printed.count("┏") == 1


def test_the_training_step_is_timed_both_ways_and_stage_by_stage(folder: Path) -> None:
    printed = run("training_step.py", folder)
    assert_names_the_machine(printed)
    plain, ours, ratio, _ = row(printed, "images/s")
    assert number(ratio) == pytest.approx(number(ours) / number(plain), abs=0.02, rel=0.01)
    epoch, constant = (number(row(printed, f"{name}, s")[1]) for name in (EPOCH, "8 steps on a constant batch"))
    share = number(row(printed, "share of the constant batch, whole epochs, %")[1])
    assert share == pytest.approx(100 * constant / epoch, rel=0.01)
    for stage in ("to the device", "augmentation", "forward", "losses", "backward", "optimizer"):
        assert number(row(printed, f"{stage}, ms")[1]) > 0
    assert row(printed, "compiled, images/s")[1] == row(printed, "peak memory, GB")[1] == "not measured"


def test_the_full_run_is_projected_from_a_few_steps(folder: Path) -> None:
    printed = run("full_run.py", folder)
    assert_names_the_machine(printed)
    minutes = number(row(printed, "minutes of 120 epochs of 12,936 images, projected")[1])
    start, epoch, validation = (
        number(row(printed, f"{name}, s")[1])
        for name in (
            "start, with the extra time of the first epoch",
            "an epoch with its checkpoint",
            "a validation of 2,587 images",
        )
    )
    assert minutes == pytest.approx((start + 120 * epoch + 12 * validation) / 60, rel=0.01)
    hours = number(row(printed, "a sweep of 64 such trials with ASHA, GPU-hours, projected")[1])
    # ResNet's warm-up of 10 epochs gives rungs at 22 and 66 epochs, which a third and a ninth of the trials survive.
    share = (22 + 44 / 3 + 54 / 9) / 120
    assert hours == pytest.approx(64 * share * minutes / 60, rel=0.05)
    one, eight = (number(row(printed, f"the same, hours on {gpus}")[1]) for gpus in ("1 GPU", "8 GPUs"))
    assert one == hours and eight == pytest.approx(hours / 8, rel=0.01)


def test_trainings_that_share_a_device_are_compared_with_one_alone(folder: Path) -> None:
    printed = run("gpu_sharing.py", folder)
    assert_names_the_machine(printed)
    alone, together, ratio, _ = row(printed, "images/s of all")
    assert number(ratio) == pytest.approx(number(together) / number(alone), abs=0.02, rel=0.01)
    assert number(row(printed, "images/s of each")[1]) == pytest.approx(number(together) / 2, rel=0.01)
    assert all(number(cell) > 0 for cell in row(printed, "start-up, s")[:2])
    assert row(printed, "device memory of all, GB")[:2] == ["not measured", "not measured"]


def test_chunks_are_compared_with_a_whole_batch(folder: Path) -> None:
    printed = run("accumulate.py", folder)
    assert_names_the_machine(printed)
    whole, chunked, ratio, _ = row(printed, "memory of a step, MB, 8 chunks")
    assert number(ratio) == pytest.approx(number(whole) / number(chunked), abs=0.02, rel=0.01)
    assert all(
        number(cell) > 0 for name in ("seconds of a step", "loss of the first step") for cell in row(printed, name)[:2]
    )


def test_waiting_threads_are_measured_alone_and_with_neighbours(folder: Path) -> None:
    printed = run("threads.py", folder)
    assert_names_the_machine(printed)
    for place in ("alone", "next to 1 busy process"):
        for kind in ("wall", "CPU"):
            assert all(number(cell) > 0 for cell in row(printed, f"{kind} seconds, {place}")[:3])


def test_each_augmentation_is_weighed_against_a_step(folder: Path) -> None:
    printed = run("augmentation.py", folder)
    assert_names_the_machine(printed)
    for name in ("a step, ms", "erasing", "RandAugment of 2 operations", "all, with a probability of 0.5"):
        assert all(number(cell) > 0 for cell in row(printed, name)[:2])


def test_the_input_pipeline_is_timed_both_ways_and_weighed(folder: Path) -> None:
    printed = run("input_pipeline.py", folder, "--cores", "1")
    assert_names_the_machine(printed)
    plain, ours, ratio, target = row(printed, "images/s per core")
    assert number(ratio) == pytest.approx(number(ours) / number(plain), rel=0.01) and target == "15x"
    assert number(row(printed, "build of the cache, s")[1]) > 0
    assert all(number(cell) > 0 for cell in row(printed, "memory of each of 4 processes, MB")[:2])


def test_the_search_is_compared_at_equal_epochs(folder: Path) -> None:
    printed = run("search_quality.py", folder, without=())
    assert_names_the_machine(printed)
    best = number(re.search(r"the best of the table: ([\d.]+)", printed)[1])
    first, second, lead = (
        [float(cell.split()[0]) for cell in row(printed, name)]
        for name in ("auto + asha", "random + asha", "auto + asha minus random + asha")
    )
    assert lead == pytest.approx([a - b for a, b in zip(first, second, strict=True)], abs=0.16)
    assert all(0 < early <= late <= best for early, late in (first, second))


@pytest.mark.parametrize("objective", ["samples", "conditions", "crossing"])
def test_tools_search_objectives_with_many_keys(folder: Path, objective: str) -> None:
    methods = ["auto + asha", "Optuna GP + halving", "Ray Tune OptunaSearch + ASHA"]
    printed = run("search_quality.py", folder, objective, "--methods", *methods, without=())
    assert all(0 < number(row(printed, name)[-2].split()[0]) <= 80 for name in methods)
    error = re.search(r"cross-validated: ([\d.]+)", printed)
    assert (error is not None) == (objective == "samples")


def test_suggestions_are_timed(folder: Path) -> None:
    printed = run("search_time.py", folder, without=())
    assert_names_the_machine(printed)
    for sampler in ("auto", "tpe"):
        median, most = (number(row(printed, f"{sampler}, {name}, ms")[1]) for name in ("median", "95th percentile"))
        assert 0 < median <= most


def test_importances_are_compared_with_known_ones(folder: Path) -> None:
    printed = run("importances.py", folder, without=())
    assert_names_the_machine(printed)
    for function in ("additive", "peak", "products", "interaction"):
        cells = row(printed, f"{function}, 30 trials, most of them stopped")
        values = [tuple(map(float, cell.split(";"))) for cell in cells]
        assert len(values) == 4 and all(0 <= error <= 100 and 0 <= ordered <= 100 for error, ordered in values)


def test_the_cost_of_the_driver_is_measured_on_simulated_trials(folder: Path) -> None:
    printed = run("sweep_overhead.py", folder, "--runs", "0", without=())
    assert_names_the_machine(printed)
    reports = int(re.search(r"CPU of a report, mean of ([\d,]+), ms", printed)[1].replace(",", ""))
    assert 60 * 6 <= reports < 60 * 27, "60 trials of 27 epochs, some stopped after 6"
    assert number(row(printed, f"CPU of a report, mean of {reports:,}, ms")[1]) > 0
    assert number(row(printed, "size of the log, MB")[1]) > 0


def test_a_checkpoint_is_timed_with_its_digest(folder: Path) -> None:
    printed = run("checkpoint.py", folder)
    assert_names_the_machine(printed)
    assert all(number(row(printed, name)[1]) > 0 for name in ("seconds to write", "seconds to read"))
    assert number(row(printed, "seconds of the digest")[1]) < number(row(printed, "seconds to write")[1])


def test_the_parts_of_a_resume_are_timed(folder: Path) -> None:
    printed = run("resume.py", folder, without=())
    assert_names_the_machine(printed)
    total, log = (row(printed, name) for name in (r"all but Ray, 20 trials", "replay of the search"))
    assert number(total[0]) > number(total[1]) > number(log[1]) > 0


def test_the_rule_of_confirm_is_calibrated_on_equal_models(folder: Path) -> None:
    (table := folder / "table.txt").write_text(
        "\n".join(f"{seed} {split} 0.{50 + seed + split} 40 10" for seed in range(5) for split in range(5))
    )
    printed = run("calibration.py", folder, "--table", str(table), without=())
    for name in (
        "table.txt: real trainings",
        "null_trainings.json: real trainings",
        "seeds 0.5 points, 150 identities",
    ):
        lines = [line for line in printed.splitlines() if line.startswith(f"│ {name} ")]
        assert len(lines) == (3 if name.startswith("seeds") else 2)
        assert all(0 <= number(cell) <= 100 for line in lines for cell in line.strip("│").split("│")[1:])
