"""What the documents promise exists: commands, options, files; the cluster file fits Ray's schema."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main
import yaml

from reid_tune.cli.commands import app

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PINS = (ROOT / "constraints.txt").read_text().splitlines()
PLACEHOLDERS = re.compile(r"\b(FILE|SPEC|NAME|DIR|MODEL|URL|ID|PATH)\b")


def commands() -> list[tuple[str, str]]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        blocks = re.findall(r"^(?:\.venv/bin/)?(reid-tune .*)$", text, flags=re.MULTILINE)
        inline = re.findall(r"`(reid-tune [^`]*)`", text)
        found += [(document.name, command.replace(r"\|", "|")) for command in [*blocks, *inline]]
    return found


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize(("document", "command"), commands())
def test_commands_of_the_documents_parse(document: str, command: str) -> None:
    words = shlex.split(command.split("#")[0])[1:]
    node = typer.main.get_command(app)
    while words and hasattr(node, "commands") and not words[0].startswith("-"):
        assert words[0] in node.commands, f"{document}: {command}"
        node = node.commands[words.pop(0)]
    options = {name for parameter in node.params for name in parameter.opts}
    unknown = [word for word in words if word.startswith("-") and word not in options and word != "--help"]
    assert not unknown, f"{document}: {command}"
    for word in words:
        if word.endswith(".yaml") and not PLACEHOLDERS.search(word):
            assert (ROOT / word).is_file(), f"{document}: {command}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in link:
            assert (document.parent / link).exists(), link


def test_the_cluster_file_fits_rays_schema() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text())))


def test_the_pods_of_the_kubernetes_job_mount_what_they_declare() -> None:
    job = yaml.safe_load((ROOT / "kubernetes" / "rayjob.yaml").read_text())["spec"]
    cluster = job["rayClusterSpec"]
    pods = [group["template"]["spec"] for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]]
    for pod in pods:
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == next(pin for pin in PINS if pin.startswith("ray==")).removeprefix("ray==")


def test_dependency_files_hold_no_address() -> None:
    assert PINS and all(re.match(r"^[a-z0-9][a-z0-9._-]*==[^:/]+$", line) for line in PINS)
