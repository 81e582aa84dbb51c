"""SECURITY.md names tests that exist, and every documented way of starting a cluster sends no usage reports."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
POLICY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
VARIABLE = "RAY_USAGE_STATS_ENABLED=0"
START = re.compile(r"\bray start\b (--head|--address)")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"tests/[\w/]+\.py(?:::\w+)?", POLICY))))
def test_a_test_of_a_promise_exists(name: str) -> None:
    path, _, function = name.partition("::")
    assert (ROOT / path).is_file()
    assert not function or f"def {function}(" in (ROOT / path).read_text(encoding="utf-8")


def starts_without_the_variable(text: str) -> list[str]:
    """Return the lines that start Ray, in whose block of commands nothing switches its usage reports off."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.M | re.S) or re.split(r"\n(?=\w)", text)
    return [block for block in blocks if START.search(block) and VARIABLE not in block]


def test_a_start_with_usage_reports_is_noticed() -> None:
    assert starts_without_the_variable("```sh\nray start --head\n```\n")
    assert starts_without_the_variable("a:\n  - ray start --address=x\nb:\n  - RAY_USAGE_STATS_ENABLED=0\n")
    assert not starts_without_the_variable("```sh\nexport RAY_USAGE_STATS_ENABLED=0\nray start --head\n```\n")


@pytest.mark.parametrize("path", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "cluster.yaml"])
def test_documented_clusters_send_no_usage_reports(path: Path) -> None:
    assert starts_without_the_variable(path.read_text(encoding="utf-8")) == []


def test_clusters_on_kubernetes_and_in_containers_send_no_usage_reports() -> None:
    job = yaml.safe_load((ROOT / "kubernetes" / "rayjob.yaml").read_text(encoding="utf-8"))
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        for container in group["template"]["spec"]["containers"]:
            assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
    assert VARIABLE in (ROOT / "Dockerfile").read_text(encoding="utf-8")
