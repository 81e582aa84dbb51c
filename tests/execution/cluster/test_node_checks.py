import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from reid_tune.errors import InfrastructureError, InputError
from reid_tune.execution.cluster import node_checks
from reid_tune.execution.cluster.node_checks import _call_on_nodes, _Package, _read_package
from reid_tune.execution.cluster.session import ray_session


@pytest.mark.integration
def test_a_node_that_has_left_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="rt", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)  # Short enough for Ray's sockets.
        with ray_session():
            node = ray.get_runtime_context().get_node_id()
            nodes = {node: "127.0.0.1", node[::-1]: "10.77.0.2"}
            assert _call_on_nodes(nodes, lambda node_id: node_id.upper()) == {node: node.upper()}


HERE = _Package("0.1.0", "/here/reid_tune", "aaaaaaaaaaaa")
SAME, PART, OTHER = (replace(HERE, folder="/there", digest=digest) for digest in (HERE.digest, "bbbbbbbbbb", "cccccc"))
MESSAGE = r"node 10.0.0.2 has reid-tune 0.1.0 in /there \(source cccccc\), and this machine reid-tune 0.1.0 in /here"


@pytest.mark.parametrize(
    ("answers", "calls", "message"),
    [
        ([SAME], 1, ""),
        ([PART, SAME], 2, ""),
        ([None, SAME], 2, ""),
        ([None, PART, SAME], 3, ""),
        ([PART, None, SAME], 3, ""),
        ([PART, OTHER, SAME], 3, ""),
        ([OTHER, OTHER], 2, MESSAGE),
        ([PART, OTHER, OTHER], 3, MESSAGE),
        ([None, None, OTHER, OTHER], 4, MESSAGE),
    ],
)
def test_a_package_that_is_being_unpacked_is_read_again(
    answers: list[_Package | None], calls: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None: the node cannot import the package."""
    remaining = list(answers)

    def call(nodes: dict[str, str], function: Any) -> dict[str, _Package]:
        answer = remaining.pop(0)
        if answer is None:
            raise InfrastructureError("node 10.0.0.2 cannot run reid-tune: No module named 'reid_tune'")
        return {"n1": SAME, "n2": answer}

    monkeypatch.setattr(node_checks, "_call_on_nodes", call)
    monkeypatch.setattr(node_checks, "_read_package", lambda node: HERE)
    monkeypatch.setattr(node_checks, "_UNPACK_PAUSE", 0.0)
    with pytest.raises(InputError, match=message) if message else nullcontext():
        node_checks._require_same_package({"n1": "10.0.0.1", "n2": "10.0.0.2"})
    assert len(answers) - len(remaining) == calls


@pytest.mark.parametrize("is_unpacking", [True, False])
def test_a_node_without_the_package_is_reported_at_last(is_unpacking: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = iter(replace(OTHER, digest=str(number)) for number in range(1000))

    def call(nodes: dict[str, str], function: Any) -> dict[str, _Package]:
        if is_unpacking:
            return {"n2": next(packages)}
        raise InfrastructureError("node 10.0.0.2 cannot run reid-tune")

    monkeypatch.setattr(node_checks, "_call_on_nodes", call)
    monkeypatch.setattr(node_checks, "_UNPACK_PAUSE", 0.01)
    monkeypatch.setattr(node_checks, "_UNPACK_SECONDS", 0.05)
    error = InputError if is_unpacking else InfrastructureError
    with pytest.raises(error, match=r"node 10\.0\.0\.2"):
        node_checks._require_same_package({"n2": "10.0.0.2"})


def test_the_digest_is_of_names_and_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.setattr(node_checks.reid_tune, "__file__", str(tmp_path / "__init__.py"))
    digests = [_read_package("").digest]
    for name, content in (("a.py", "1"), ("sub/b.py", "1"), ("a.py", "2"), ("sub/c.py", "")):
        (tmp_path / name).write_text(content)
        digests.append(_read_package("").digest)
    (tmp_path / "sub" / "c.py").rename(tmp_path / "c.py")
    digests.append(_read_package("").digest)
    (tmp_path / "data.txt").write_text("no source")
    assert len(set(digests)) == 6 and _read_package("").digest == digests[-1]
