"""What SECURITY.md promises of the sources, its tests, and the documented ways of starting a cluster."""

import ast
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


# Calls that unpickle what they read, unless they have this argument.
GUARDED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
GUARDED["npy.read_array"] = GUARDED["numpy.load"] = GUARDED["np.load"]
# Whatever else unpickles, by the names in the sources.
UNPICKLING = re.compile(
    r"\b(cloudpickle|dill|joblib|marshal|shelve)\b|\bpickle\.(?!UnpicklingError)|\bfrom pickle\b|\bread_pickle\b"
    r"|\b(import|from) mlflow\.pyfunc\b|\btorch\.(hub|package|jit\.load)\b|load_state_dict_from_url"
    r"|\bdist\.\w*_object|\bmultiprocessing\.(connection|spawn)\b"
)
# Objects from processes that this one has started, over a pipe or in a file that nobody else can open.
OWN_PROCESSES = {"training/embedding_pool.py", "training/launch.py"}


def unpickling(source: str) -> list[str]:
    """Return the calls and names in a module by which something is unpickled."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in GUARDED:
            keyword, safe = GUARDED[name]
            values = [item.value for item in node.keywords if item.arg == keyword]
            if not (values and isinstance(values[0], ast.Constant) and values[0].value is safe):
                names.append(name)
    code = "\n".join(line.partition("#")[0] for line in source.splitlines())
    return names + [match[0] for match in UNPICKLING.finditer(code)]


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "torch.load(file, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "npy.read_array(file)",
        "import joblib",
        "pickle.loads(content)",
        "from pickle import loads",
        "import mlflow.pyfunc",
        "dist.all_gather_object(values, value)",
        "torch.hub.load(name)",
    ],
)
def test_a_call_that_unpickles_is_noticed(source: str) -> None:
    assert unpickling(source)


def test_nothing_unpickles_what_others_have_made() -> None:
    package = ROOT / "reid_tune"
    sources = {path.relative_to(package).as_posix(): path.read_text("utf-8") for path in package.rglob("*.py")}
    assert {path for path, source in sources.items() if unpickling(source)} == OWN_PROCESSES
