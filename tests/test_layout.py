"""The house keeps its shape: imports run one way, ray stays in jobs/, names live in one place."""

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from jobs.reference import JOBS
from tests.support.serving import ONE

ROOT = Path(__file__).parents[1]
# Which rooms of rsir_core a room may import; of them `arrays`, `errors`, `extras` and `schemas` are files.
MAY_IMPORT = {
    "arrays": set[str](),
    "errors": set[str](),
    "schemas": {"arrays"},
    "extras": {"errors"},
    "geo": {"arrays"},
    "storage": {"errors"},
    "imagery": {"arrays", "errors", "schemas", "geo", "storage"},
    "archive": {"arrays", "errors", "schemas", "geo", "storage", "imagery"},
    "models": {"arrays", "errors", "extras", "storage"},
    "search": {"arrays", "errors", "schemas", "geo"},
    "index": {"arrays", "errors", "schemas", "storage", "archive", "models", "search"},
    "retrieval": {"arrays", "errors", "schemas", "geo", "imagery", "models", "search", "index", "learning"},
    "changes": {"arrays", "schemas"},
    "learning": {"arrays", "errors", "schemas", "storage", "index"},
    "export": {"errors", "schemas", "geo", "storage", "index", "models"},
    "backend": {"arrays", "errors", "imagery", "models", "index", "retrieval"},
    "endpoint": {
        *("errors", "schemas", "geo", "archive", "imagery", "models", "search", "index", "retrieval"),
        *("backend", "export", "learning"),
    },
    "api": {
        *("arrays", "errors", "extras", "schemas", "geo", "storage", "imagery", "archive"),
        *("models", "search", "index", "retrieval", "export", "learning", "evaluation"),
    },
    "boxes": {"arrays", "errors", "storage", "imagery", "archive", "models"},
    "training": {"arrays", "errors", "schemas", "storage", "imagery", "archive", "models", "boxes"},
    "evaluation": {
        *("arrays", "errors", "schemas", "storage", "imagery", "archive"),
        *("models", "search", "index", "retrieval"),
    },
}


def imported(file: Path) -> set[str]:
    """Full names of the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def core_imports() -> dict[str, set[str]]:
    """Modules of rsir_core, each with the full names that it imports."""
    core = ROOT / "rsir_core"
    names = {file: ".".join(file.relative_to(ROOT).with_suffix("").parts) for file in core.rglob("*.py")}
    return {name: imported(file) for file, name in names.items() if file.name != "__init__.py"}


def test_rooms_of_the_core_import_only_those_they_may() -> None:
    assert {name.split(".")[1] for name in core_imports()} == set(MAY_IMPORT), (
        "name the new room here and in docs/explanation/architecture.md"
    )
    for name, found in core_imports().items():
        room = name.split(".")[1]
        assert not {other.split(".")[0] for other in found} & {"jobs", "tests"}, name
        rooms = {parts[1] for other in found if (parts := other.split("."))[0] == "rsir_core" and len(parts) > 1}
        assert rooms <= MAY_IMPORT[room] | {room}, name


def test_no_two_modules_of_the_core_import_each_other_in_a_circle() -> None:
    found = core_imports()
    graph = {name: {other for other in found if other in names} for name, names in found.items()}
    rooms = {room: set(others) for room, others in MAY_IMPORT.items()}
    for each in (graph, rooms):
        assert len(list(TopologicalSorter(each).static_order())) == len(each)  # else: CycleError


def test_packages_of_jobs_import_one_way_and_no_entry_point() -> None:
    below = {
        "pipeline": set[str](),
        "boxes": {"pipeline"},
        "training": {"pipeline"},
        "indexing": {"pipeline"},
        "evaluating": {"pipeline"},
        "serving": {"pipeline"},
        "querying": {"pipeline"},
        "searching": set[str](),
        "checking": set[str](),
        "labelling": set[str](),
        "changing": set[str](),
        "demo": set[str](),
    }
    assert set(below) == {f.parent.name for f in (ROOT / "jobs").glob("*/__init__.py")}, "name the new package here"
    for package, allowed in below.items():
        rooms = {f"jobs.{other}" for other in {package, *allowed}} | {"jobs.command", "jobs.meter", "jobs.options"}
        for file in (ROOT / "jobs" / package).rglob("*.py"):
            names = {name for name in imported(file) if name.split(".")[0] == "jobs"}
            assert not {n for n in names if not any(n == r or n.startswith(f"{r}.") for r in rooms)}, file


@pytest.mark.slow
def test_importing_the_core_loads_no_ray_and_touches_nothing(tmp_path: Path) -> None:
    found = set(core_imports())
    offline = {name for name in found if name.startswith("rsir_core.training.detector")}  # see `offline_ultralytics`
    code = f"import {', '.join(found - offline)}\n"
    code += f"with rsir_core.models.detector.offline_ultralytics(): import {', '.join(offline)}\n"
    code += "import sys; print('ray' in sys.modules)"
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert done.stdout.strip() == b"False"
    assert not [f for f in home.rglob("*") if f.is_file()]


def test_a_job_is_where_one_guess_finds_it() -> None:
    for name, job in JOBS.items():
        folder = job.options.__module__.split(".")[1]
        assert job.body.partition(":")[0] == f"jobs.{folder}.{name}"
        assert callable(job.load())


# What takes its time to load: a process has of these only what it needs. Measured by tests/benchmarks/startup.py.
HEAVY = {
    *("ray", "torch", "torchvision", "timm", "ultralytics", "sklearn", "matplotlib"),
    *("numpy", "scipy", "pandas", "pyarrow", "deltalake", "numba", "rasterio", "pystac", "shapely"),
    *("fastapi", "starlette", "httpx", "rich", "PIL", "jinja2"),
}
READING = {"numpy", "scipy", "pyarrow", "deltalake"}  # the tables of an index
LISTING = READING | {"rasterio", "numba", "pystac", "shapely", "rich"}
SEARCHING = READING | {"numba", "rasterio", "shapely", "PIL", "pandas"}  # Arrow imports the last for any array
SERVING = {"numpy", "pandas", "pyarrow", "fastapi", "starlette", "httpx", "rich"}  # which Ray Serve imports
MAY_LOAD: dict[str, set[str]] = {
    "import rsir_core": set(),
    "from jobs.reference import JOBS": set(),  # every entry point with its options
    "import jobs.serve_tokens": set(),
    "import jobs.rsir": set(),
    f"import rsir_core; rsir_core.open(sys.argv[1]).search({ONE!r}, distance='plain')": SEARCHING,
    "import jobs.searching.search": SEARCHING | {"rich"},
    "import jobs.labelling.labels": READING | {"numba"},
    "import jobs.changing.changes": READING | {"numba", "shapely"},
    "import jobs.indexing.index": LISTING,  # to find out that nothing is new
    "import jobs.querying.query": SEARCHING,
    "import jobs.indexing.publishing": HEAVY - {"torch", "torchvision", "timm", "ultralytics"},
    "import jobs.serving.serve": SERVING | {"ray", "deltalake"},
    "import rsir_core.endpoint.app": SERVING | {"deltalake", "shapely", "PIL"},
    "from rsir_core.backend.searcher_worker import SearcherWorker; SearcherWorker(sys.argv[1])": (
        READING | {"numba", "pandas"}
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("code", MAY_LOAD)
def test_an_entry_point_loads_only_what_it_may(code: str, index: str) -> None:
    script = f"import sys; {code}; print(*{HEAVY} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", script, index], cwd=ROOT, capture_output=True, check=True, text=True)
    assert set(done.stdout.split()) <= MAY_LOAD[code]


@pytest.mark.parametrize("word", ["import ray", ".remote("])
def test_ray_is_only_in_jobs(word: str) -> None:
    assert not [f.name for f in (ROOT / "rsir_core").rglob("*.py") if word in f.read_text()]


def test_there_is_no_utils() -> None:
    assert not [f for d in ("rsir_core", "jobs") for f in (ROOT / d).rglob("*util*")]
