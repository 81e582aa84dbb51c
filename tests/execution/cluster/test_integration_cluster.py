"""Sweeps on machines in network namespaces, which join, leave, lose the network and die; `-s` shows the log."""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from reid_tune.config.encryption_key import KEY_FILE_VARIABLE
from reid_tune.journal.events import EpochReported, RunEnded, RunRetried, parse_event
from reid_tune.journal.lease import LEASE
from reid_tune.storage.s3 import S3Store

from ...helpers.cli_sweep import SPEC, Bench
from ...helpers.cluster_machines import Machines, why_not_permitted
from ...helpers.s3_server import BUCKET, s3_server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

HEAD = f"{Machines.address(1)}:6379"
AT_HEAD = ("sweep", "sweep.yaml", "--address", HEAD)


@contextmanager
def network(dashboard: bool = False) -> Iterator[Machines]:
    if reason := why_not_permitted():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="rt-"))
    try:
        with Machines(folder, dashboard) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster_of_a_head(cpus: int, dashboard: bool = False) -> Iterator[Machines]:
    with network(dashboard) as made:
        made.add(1, cpus)
        yield made


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with cluster_of_a_head(cpus=0) as made:
        yield made


class Cluster:
    """A bench whose commands run on a machine of a cluster."""

    def __init__(self, machines: Machines, bench: Bench) -> None:
        self.machines = machines
        self.bench = bench
        self.began = time.monotonic()

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the head to its end."""
        return subprocess.run(self._on_head(*arguments), **self._options(environment), capture_output=True)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command on the head, ended after the block."""
        with (self.bench.folder / "output.txt").open("a") as output:
            process = subprocess.Popen(self._on_head(*arguments), **self._options({}), stdout=output, stderr=output)
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=120)

    def say(self, text: str) -> None:
        """A line of the log."""
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def wait(self, message: str, condition: Callable[[], Any]) -> Any:
        """Wait until a condition has a true value, and return the value."""
        end = time.monotonic() + 300
        while not (value := condition()):
            assert time.monotonic() < end, f"{message}\n" + (self.bench.folder / "output.txt").read_text()
            time.sleep(0.1)
        self.say(message)
        return value

    def reports(self, run: str) -> list[EpochReported]:
        """A run's reports so far."""
        return self.bench.reports(run)

    def reported(self, run: str, count: int = 1) -> EpochReported:
        """Wait for further reports of a run, and return the last one."""
        before = len(self.reports(run))
        self.wait(f"{run} continues", lambda: len(self.reports(run)) >= before + count)
        return self.reports(run)[-1]

    def lost(self, run: str) -> int:
        """Number of losses of a run's processes."""
        return sum(isinstance(event, RunRetried) and event.run == run for event in self.bench.events)

    @staticmethod
    def line(*arguments: str) -> list[str]:
        """A command line."""
        return [sys.executable, "-m", "reid_tune", *arguments]

    def _on_head(self, *arguments: str) -> list[str]:
        return self.machines.command_on(1, *self.line(*arguments))

    def _options(self, environment: dict[str, str]) -> dict[str, Any]:
        return {"cwd": self.bench.folder, "env": self.machines.variables(1) | environment, "text": True}


def endless(folder: Path) -> Bench:
    """A sweep of two trials that do not end by themselves."""
    bench = Bench(folder, scheduler={"name": "none"}, budget={"trials": 2}, resources={"max_concurrent": None})
    bench.write_spec(train={**SPEC["train"], "num_epochs": 5000})
    return bench


def test_problems_of_a_cluster_are_reported_before_a_sweep_starts(machines: Machines, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (tmp_path / "runs").mkdir()
    cluster = Cluster(machines, bench)

    def refused(*arguments: str, **environment: str) -> str:
        done = cluster.command(*AT_HEAD, *arguments, **environment)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr and not list((tmp_path / "runs").iterdir())
        cluster.say(done.stderr.splitlines()[-1])
        return done.stderr

    assert "refuses this machine's token" in refused(RAY_AUTH_TOKEN="f" * 64)
    assert "no Ray cluster answers" in refused("--address", "10.77.0.1:6380")
    assert "but the cluster has none of these" in refused()
    machines.add(2)
    assert "a run of 2 worker(s)" in refused("sweep.resources.workers=2")
    for hidden, expected in (("data", "there is no folder"), ("runs", "the storage")):
        machines.add(3, hidden=tmp_path / hidden)
        message = refused()
        assert f"node {Machines.address(3)}: " in message and expected in message
        machines.leave(3)
    machines.leave(2)


def test_a_sweep_outlives_its_machines(machines: Machines, tmp_path: Path) -> None:
    cluster = Cluster(machines, endless(tmp_path))
    for number in (2, 3):
        machines.add(number)
    with cluster.running(*AT_HEAD):
        cluster.wait("both trials report", lambda: cluster.reports("trials/0000") and cluster.reports("trials/0001"))
        at = {run: cluster.reports(run)[-1].nodes for run in ("trials/0000", "trials/0001")}
        assert sorted(at.values()) == [[Machines.address(2)], [Machines.address(3)]]
        stays, moves = sorted(at, key=lambda run: at[run])

        cluster.say(f"machine 3 dies, which runs {moves}")
        epoch = cluster.reported(moves, 2).epoch
        machines.kill(3)
        cluster.wait(f"{moves} is lost", lambda: cluster.lost(moves))
        machines.add(4)
        cluster.say("machine 4 joins")
        report = cluster.reported(moves)
        assert report.nodes == [Machines.address(4)] and report.epoch >= epoch

        cluster.say("machine 2 loses the network for 5 s")
        machines.disconnect(2)
        time.sleep(5)
        machines.reconnect(2)
        assert cluster.reported(stays).nodes == [Machines.address(2)] and not cluster.lost(stays)

        machines.add(5)
        cluster.say("machine 5 joins; machine 2 loses the network for 90 s")
        machines.disconnect(2)
        cut = time.monotonic()
        cluster.wait(f"{stays} is lost", lambda: cluster.lost(stays))
        assert cluster.reported(stays).nodes == [Machines.address(5)]
        cluster.wait("90 s are over", lambda: time.monotonic() > cut + 90)
        machines.reconnect(2)
        assert {tuple(event.nodes) for event in cluster.reports(stays)[-1:]} == {(Machines.address(5),)}
        assert cluster.reported(stays, 5).nodes == [Machines.address(5)] and cluster.lost(stays) == 1

        before = {run: cluster.reports(run)[-1].epoch for run in at}
        cluster.say("the head dies, and with it the driver")
        machines.kill(1)
    for number in (2, 4, 5):
        machines.remove(number)
    machines.start(1, cpus=0)
    for number in (2, 4):
        machines.add(number)
    assert (tmp_path / "runs" / "small" / LEASE).exists(), "the driver had no time to clean up"
    with cluster.running(*AT_HEAD, "--resume", "auto") as process:
        for run, epoch in before.items():
            assert cluster.reported(run).epoch >= epoch + 1

        machines.add(6, hidden=tmp_path / "data")
        cluster.say("machine 6 joins without the data; machine 4 dies")
        machines.kill(4)
        assert process.wait(timeout=180) == 3
    last = (tmp_path / "output.txt").read_text().splitlines()[-1]
    assert f"node {Machines.address(6)} has no {tmp_path / 'data'}" in last and "--resume auto" in last
    for run in at:
        epochs = [event.epoch for event in cluster.reports(run)]
        assert epochs == list(range(1, len(epochs) + 1)), "each epoch once"


def test_a_sweep_and_its_data_are_in_a_bucket(tmp_path: Path) -> None:
    storage, data = S3Store(f"s3://{BUCKET}/sweeps"), S3Store(f"s3://{BUCKET}/data")
    folders = {key: f"{data}/{Path(value).name}" for key, value in SPEC["dataset"].items() if key.endswith("_dir")}
    bench = Bench(
        tmp_path, storage=storage.url, scheduler={"name": "none"}, budget={"trials": 2}, resources={"max_concurrent": 1}
    )
    bench.write_spec(dataset=SPEC["dataset"] | folders, train=SPEC["train"] | {"num_epochs": 6})
    with network() as machines, s3_server(machines.add_host()) as environment:
        for path in filter(Path.is_file, (tmp_path / "data").rglob("*")):
            data.upload(path, str(path.relative_to(tmp_path / "data")))
        shutil.rmtree(tmp_path / "data")
        machines.environment |= environment
        cluster = Cluster(machines, bench)
        for number in (1, 2):
            machines.add(number, cpus=number - 1)

        def reports(run: str = "") -> list[EpochReported]:
            lines = (storage.read("small/events.jsonl") or b"").split(b"\n")[:-1]
            events = map(parse_event, lines)
            return [event for event in events if isinstance(event, EpochReported) and run in event.run]

        with cluster.running(*AT_HEAD, "--until", "search") as process:
            cluster.wait("trial 0 has three reports", lambda: len(reports()) >= 3)
            assert {tuple(event.nodes) for event in reports()} == {(Machines.address(2),)}
            machines.add(3)
            cluster.say("machine 3 joins; machine 2 dies, and then the driver")
            machines.remove(2)
            cluster.wait("trial 0 continues", lambda: reports()[-1].nodes == [Machines.address(3)])
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not (tmp_path / "data").exists() and not (tmp_path / "runs").exists()
        shutil.rmtree(machines.cache(1))
        cluster.say("machine 3 continues as the driver, too")
        done = subprocess.run(
            machines.command_on(3, *cluster.line(*AT_HEAD, "--until", "search", "--resume", "auto")),
            cwd=tmp_path, env=machines.variables(3), text=True, capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        for run in ("trials/0000", "trials/0001"):
            assert [event.epoch for event in reports(run)] == list(range(1, 7)), "each epoch once"
        names = storage.objects()
        assert not [name for name in names if "/ray/" in name or ".nodes-" in name or name.endswith("driver.json")]
        bench.environment = environment
        assert "epoch 6/6" in bench.run("logs", "small/0", "--storage", storage.url).stdout
        cluster.say(bench.run("sweeps", "--storage", storage.url).stdout)


def test_a_sweep_grows_from_zero_with_an_autoscaler(tmp_path: Path) -> None:
    """Ray's autoscaler with Ray's provider for tests, whose machines are processes on the head."""
    bench = endless(tmp_path)
    head = {"resources": {"CPU": 0}, "max_workers": 0}
    kinds = {"ray.head.default": head, "worker": {"resources": {"CPU": 1}, "min_workers": 0, "max_workers": 2}}
    commands = ("setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands")
    commands += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")
    config = {
        "cluster_name": "x",
        "max_workers": 2,
        "provider": {
            "type": "fake_multinode",
            "disable_launch_config_check": True,
            "disable_node_updaters": True,
            "use_node_id_as_ip": True,
            "gcs_address": HEAD,
        },
        "available_node_types": {name: kind | {"node_config": {}} for name, kind in kinds.items()},
        "head_node_type": "ray.head.default",
        "idle_timeout_minutes": 0.5,
        "upscaling_speed": 1,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **dict.fromkeys(commands, []),
    }
    # Where `ray up` writes it on the head.
    (home := tmp_path / "home").mkdir()
    (home / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(config))
    with network() as machines:
        machines.environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "HOME": str(home)}
        machines.add(1, 0, None, f"--autoscaling-config={home / 'ray_bootstrap_config.yaml'}")
        cluster = Cluster(machines, bench)
        done = cluster.command(*AT_HEAD, "sweep.resources.cpus_per_worker=2")
        assert done.returncode == 2 and "2 x 1 CPU" in done.stderr, done.stderr
        with cluster.running(*AT_HEAD):
            for run in ("trials/0000", "trials/0001"):
                cluster.wait(f"{run} reports", lambda run=run: cluster.reports(run))  # type: ignore[misc]
        assert not bench.count(RunEnded), "on two machines at once"


def test_a_sweep_is_submitted_as_a_job(tmp_path: Path) -> None:
    bench = Bench(tmp_path, budget={"trials": 1}, storage=str(tmp_path / "runs"))
    folders = {key: str(tmp_path / value) for key, value in SPEC["dataset"].items() if key.endswith("_dir")}
    bench.write_spec(dataset=SPEC["dataset"] | folders)
    (tmp_path / "key").write_text("secret\n")
    key = {KEY_FILE_VARIABLE: str(tmp_path / "key")}
    with cluster_of_a_head(cpus=1, dashboard=True) as machines:
        cluster = Cluster(machines, bench)

        def submitted(*arguments: str, **environment: str) -> tuple[int, str]:
            command = ("sweep", "sweep.yaml", "--submit", "http://127.0.0.1:8265", "--until", "search", *arguments)
            done = cluster.command(*command, **environment)
            assert "Traceback" not in done.stdout + done.stderr
            return done.returncode, done.stdout + done.stderr

        (tmp_path / "output.txt").touch()
        cluster.wait("the dashboard answers", lambda: "no dashboard" not in submitted(RAY_AUTH_TOKEN="f" * 64)[1])
        status, output = submitted(RAY_AUTH_TOKEN="f" * 64)
        assert status == 2 and "refuses this machine's token" in output
        status, output = submitted("sweep.storage=runs")
        assert status == 2 and "give the absolute path" in output
        status, output = submitted("--resume", "auto", **key)
        assert status == 0 and "trial 0 finished at epoch 4" in output and bench.count(RunEnded) == 1
        assert (tmp_path / "runs" / "mlflow.db").is_file()
        status, output = submitted(**key)
        assert status == 2 and "the sweep small exists" in output, "the sweep's own status and words"
        status, output = submitted(REID_TUNE_ENCRYPTION_KEY="secret")
        assert status == 2 and "must be in a file" in output
