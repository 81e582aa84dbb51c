"""Check the project on a GPU: what works, what does not, and how fast it is. 8 to 9 minutes.

    python benchmarks/gpu/check.py [--images FILE.tar|FOLDER] [--seconds 500] [--only NAME,...] [--skip NAME,...]
    python benchmarks/gpu/check.py --device cpu --quick

Prints a line for each step when it ends, and a table at the end. The output folder is $OUT, or `reid-tune-gpu` below
the temporary folder: gpu.json has all numbers, log.txt the output of every command, profile.txt the kernels of 20
steps. The exit status is 1 if a step failed; a failed step does not stop the others. `--quick` is for machines without
a GPU: with tiny sizes it checks every command line, and measures nothing. See README.md.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

import torch
from commands import Commands
from programs import Programs
from steps import Runner, Step
from training import Training

MAX_CONCURRENT = 6  # steps that run at the same time on a GPU
CPU_LIMIT_FACTOR = 3  # of the limits on a CPU


def main() -> int:
    options, started = parse(), time.monotonic()
    output = Path(os.environ.get("OUT") or Path(tempfile.gettempdir(), "reid-tune-gpu"))
    output.mkdir(parents=True, exist_ok=True)
    print_machine(options.device)
    cuda = options.device == "cuda"
    runner = Runner(output / "gpu.json", options.seconds, options.only, options.skip, 1 if cuda else CPU_LIMIT_FACTOR)
    with tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as name:
        os.environ["REID_TUNE_CACHE_DIR"] = str(Path(name, "cache"))
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(name, "inductor"))
        commands = Commands(output / "log.txt")
        training = Training(commands, Path(name), options.images, cuda, options.quick)
        programs = Programs(commands, Path(name), output, cuda, options.quick)
        chains, single_steps = concurrent_chains(training, programs), timed_steps(training, programs)
        require_known([*options.only, *options.skip], [*chain(*chains), *single_steps])
        runner.run(Step("data", 120, training.data), always=True)
        runner.run_chains(chains, MAX_CONCURRENT if cuda else 2)
        for step in single_steps:
            runner.run(step)
    print(f"\nall took {time.monotonic() - started:.0f} s; the numbers are in {output}\n")
    for name, value in runner.results.get("lab", {}).get("data", {}).items():
        for text in value if isinstance(value, list) else [value]:
            print(f"lab: {name}: {text}"[:330])
    print("", *runner.table(), sep="\n")
    return int(runner.has_failed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--images", type=lambda text: Path(text).resolve(), help="data to train on; by default drawn")
    parser.add_argument("--seconds", type=float, default=500, help="time of all steps together")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument("--skip", type=lambda text: text.split(","), default=[])
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def require_known(names: list[str], steps: list[Step]) -> None:
    if unknown := set(names) - {step.name for step in steps}:
        sys.exit(f"there are no steps {', '.join(sorted(unknown))}; there are {', '.join(step.name for step in steps)}")


def print_machine(device: str) -> None:
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    cores = len(os.sched_getaffinity(0))
    print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, {cores} cores, {free:.0f} GB free", flush=True)
    if device == "cuda":
        if not torch.cuda.is_available():
            sys.exit("torch finds no GPU: use --device cpu --quick to check the command lines only")
        gpu = torch.cuda.get_device_properties(0)
        print(f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB, CUDA {torch.version.cuda}", flush=True)


def concurrent_chains(training: Training, programs: Programs) -> list[list[Step]]:
    """Return chains that run at the same time; the steps of a chain need each other's files and run in turn."""
    quick, cuda = training.quick, training.cuda
    swin = ("model.backbone=swin_tiny_patch4_window7_224", "train.optim.name=SGD", "train.optim.base_lr=0.0008")
    swin += () if quick else ("model.input_height=384", "model.input_width=128")
    bf16, two, soon = "train.precision=bf16", "train.num_epochs=2", "train.optim.warmup_iters=1"
    fp16 = "train.precision=fp16" if cuda else bf16
    large = () if quick else ("dataset.batch_size=128",)
    longer = f"train.num_epochs={1 if quick else 3}"
    options = (
        *(fp16, "train.deterministic=true", "train.clip_grad_norm=1", "dataset.color_jitter.prob=0.5"),
        *("model.with_center_loss=true", "model.metric_loss_type=triplet_center", "dataset.validation=none", *swin),
    )
    return [
        [Step("compile", 200, training.train_step("compile", bf16, two, "train.compile=true", *large))],
        [
            Step("bf16", 120, training.train_step("bf16", bf16, longer, soon, *large)),
            Step("evaluate", 120, training.evaluate),
            Step("export", 150, training.export),
        ],
        [Step("tests", 120, programs.tests)],
        [Step("deterministic", 120, training.train_twice)],
        [Step("swin", 120, training.train_step("swin", bf16, *swin))],
        [Step("all-options", 120, training.train_step("all-options", *options))],
        [Step("fp16", 120, training.train_step("fp16", "train.precision=fp16", two, soon))],
        [Step("graphs", 120, training.train_step("graphs", bf16, two, soon, "train.cuda_graphs=true"))],
        [
            Step(
                "chunks", 120, training.train_step("chunks", bf16, soon, "train.accumulate=2", "dataset.resident=false")
            )
        ],
        [Step("no-gpu", 120, training.train_without_gpu)],
        [Step("gpu-ids", 60, training.train_on_missing_gpu)],
        [Step("group", 90, programs.group)],
    ]


def timed_steps(training: Training, programs: Programs) -> list[Step]:
    """Return the steps that run one at a time, because their time matters or they need all of the memory."""
    return [
        Step("memory", 60, training.train_too_large_batch),
        Step("full_run", 110, programs.benchmark("full_run.py", "--epochs", "6"), least=40),
        Step("training_step", 150, programs.benchmark("training_step.py", "--repeats", "3"), least=40),
        Step("sharing", 120, programs.benchmark("gpu_sharing.py"), least=40),
        Step("evaluation", 100, programs.evaluation, least=30),
        Step("lab", 200, programs.laboratory, least=30),
    ]


if __name__ == "__main__":
    sys.exit(main())
