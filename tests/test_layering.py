"""Who may import whom, read from the sources."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import reid_tune

ROOT = Path(reid_tune.__file__).parent
# From the top to the bottom: a module imports from its own package and from layers below its own.
LAYERS = (
    {"__main__"},
    {"cli", "api"},
    {"sweep", "doctor"},
    {"report"},
    {"search"},
    {"execution"},
    {"search_space"},
    {"tasks"},
    {"tracking", "deploy"},
    {"training", "journal"},
    {"checkpoints", "evaluation", "modeling", "losses", "optim", "data", "demo"},
    {"config", "storage"},
    {"environment", "errors", "files", "identities", "imports", "tables"},
)
DEPTH = {package: depth for depth, layer in enumerate(LAYERS) for package in layer}
# Modules that import another module of their own layer.
WITHIN_LAYER = {("files", "errors")}
# Who imports a large library: packages, or modules of a package that otherwise may not.
OWNERS = {"ray": {"execution"}, "optuna": {"search", "search_space/ranges"}, "mlflow": {"tracking"}}
BELOW_TASKS = {package for layer in LAYERS[LAYERS.index({"tasks"}) + 1 :] for package in layer} - {"tracking"}

Import = tuple[Path, str, str]


def sources() -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def package_of(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def imports_of(code: str) -> Iterator[str]:
    """Dotted names of all imports, those inside functions too."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def all_imports() -> list[Import]:
    return [
        (path, package_of(path), name)
        for path in sources()
        for name in imports_of((ROOT / path).read_text(encoding="utf-8"))
    ]


def wrong_direction(package: str, name: str) -> bool:
    root, _, inside = name.partition(".")
    wanted = inside.split(".")[0]
    if root != "reid_tune" or wanted not in DEPTH or wanted == package:
        return False
    return DEPTH[wanted] <= DEPTH[package] and (package, wanted) not in WITHIN_LAYER


def test_every_package_has_a_layer() -> None:
    assert {package_of(path) for path in sources()} == set(DEPTH)


def test_the_table_of_packages_is_that_of_the_layers() -> None:
    text = (ROOT.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (`[^|]+`) \|", text, re.M)
    table: dict[int, set[str]] = {}
    for level, names in rows:
        table.setdefault(int(level), set()).update(re.findall(r"`(\w+)`", names))
    assert table == {level: set(layer) for level, layer in enumerate(LAYERS) if level}


def test_the_walk_sees_imports_inside_functions_and_tells_directions() -> None:
    code = "def f():\n    import ray.tune\n    from reid_tune.config import load as l\nimport os, json\n"
    assert set(imports_of(code)) == {"ray.tune", "reid_tune.config.load", "os", "json"}
    assert wrong_direction("data", "reid_tune.config.load") is False
    assert wrong_direction("data", "reid_tune.modeling.network") and wrong_direction("config", "reid_tune.data.records")
    assert wrong_direction("errors", "reid_tune.files.atomic_path") and not wrong_direction(
        "files", "reid_tune.errors.X"
    )


def test_imports_point_downwards() -> None:
    found = all_imports()
    assert sum(name.startswith("reid_tune.") for _, _, name in found) > 100
    assert [f"{path}: {name}" for path, package, name in found if wrong_direction(package, name)] == []


def room_of(module: str) -> str:
    """The folder of a module: a package, or a package inside a package."""
    path = ROOT.joinpath(*module.split(".")[1:])
    folder = path if path.is_dir() else path.parent
    return "." if folder == ROOT else folder.relative_to(ROOT).as_posix()


def folder_imports() -> dict[str, set[str]]:
    """For each folder the other folders that its modules import from."""
    graph: dict[str, set[str]] = {}
    for path, _, name in all_imports():
        if not name.startswith("reid_tune."):
            continue
        # A name is of a module, or is the module itself.
        target = name if ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py").is_file() else name.rpartition(".")[0]
        importer, imported = path.parent.as_posix(), room_of(target)
        if "." not in (importer, imported) and importer != imported:
            graph.setdefault(importer, set()).add(imported)
    return graph


def test_folders_do_not_import_each_other_in_a_circle() -> None:
    graph = folder_imports()
    assert "execution" in graph["execution/cluster"] and len(graph) > 15
    order = TopologicalSorter(graph)
    try:
        order.prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


@pytest.mark.parametrize("library", OWNERS)
def test_large_libraries_have_one_owner(library: str) -> None:
    importers = {path for path, _, name in all_imports() if name.split(".")[0] == library}
    owners = OWNERS[library]
    assert {package_of(path) for path in importers} == {owner.split("/")[0] for owner in owners}
    assert [
        str(path)
        for path in importers
        if package_of(path) not in owners and path.with_suffix("").as_posix() not in owners
    ] == []


def writes_environment(node: ast.AST) -> bool:
    """Whether a statement or call sets or deletes an environment variable."""
    if isinstance(node, ast.Call):
        calls = r"(os\.)?(environ\.(setdefault|update|pop|popitem|clear)|(put|unset)env)"
        return re.fullmatch(calls, ast.unparse(node.func)) is not None
    targets = [*getattr(node, "targets", []), *filter(None, [getattr(node, "target", None)])]
    return any(re.match(r"(os\.)?environ\b", ast.unparse(target)) for target in targets)


def test_one_module_writes_environment_variables() -> None:
    for code in ("os.environ |= {}", "del os.environ['X']", "environ['X'] = '1'", "os.environ.pop('X')"):
        assert any(map(writes_environment, ast.walk(ast.parse(code)))), code
    nodes = ((path.name, node) for path in ROOT.rglob("*.py") for node in ast.walk(ast.parse(path.read_text())))
    assert {name for name, node in nodes if writes_environment(node)} == {"environment.py"}


def run_python(code: str) -> list[str]:
    """Lines that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.integration
def test_everything_below_tasks_imports_without_ray_mlflow_and_optuna() -> None:
    modules = [
        ".".join(("reid_tune", *path.with_suffix("").parts)).removesuffix(".__init__")
        for path in sources()
        if package_of(path) in BELOW_TASKS
    ]
    blocked = sorted(OWNERS)
    code = (
        "import importlib, sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {blocked!r}:\n"
        "            raise ModuleNotFoundError('blocked ' + name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        f"for library in {blocked!r}:\n"
        "    try:\n"
        "        importlib.import_module(library)\n"
        "    except ModuleNotFoundError as error:\n"
        "        print(error)\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    print(name)\n"
    )
    assert len(modules) > 40
    assert run_python(code) == [f"blocked {library}" for library in blocked] + modules


def test_a_sweep_that_continues_imports_no_networks() -> None:
    heavy = {"timm", "torchvision", "ray", "mlflow", "sklearn", "pandas", "matplotlib", "scipy.stats"}
    (loaded,) = run_python("import sys, reid_tune.sweep.run; print('modules', *sys.modules)")
    assert heavy.isdisjoint(loaded.split())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['reid-tune', '--help']\n"
        "try:\n"
        "    runpy.run_module('reid_tune', run_name='__main__')\n"
        "except SystemExit as done:\n"
        "    print('status', done.code)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    *help_text, status, loaded = run_python(code)
    assert status == "status 0" and any("sweep" in line for line in help_text)
    assert "typer" in loaded.split()
    assert {"torch", "ray", "mlflow", "optuna", "numpy", "pandas", "pydantic", "timm"}.isdisjoint(loaded.split())
