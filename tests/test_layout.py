"""The house keeps its shape: imports run one way, ray stays in jobs/, names live in one place."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = [  # one a line: several people add to it
    "errors",
    "names",
    "rows",
    "storage",
    "files",
    "bucket",
    "heap",
    "archive",
    "geometry",
    "placement",
    "footprint",
    "orientation",
    "samples",
    "tiles",
    "raster",
    "reader",
    "scenes",
    "survey",
    "hrefs",
    "stac",
    "labels",
    "regions",
    "letterbox",
    "suppression",
    "precision",
    "depthwise",
    "detector",
    "representative",
    "folding",
    "classifier",
    "activation",
    "augmentation",
    "bundle",
    "describe",
    "frozen",
    "calibration",
    "pca",
    "clusters",
    "candidates",
    "filters",
    "delta",
    "lease",
    "table",
    "plan",
    "stored",
    "leftover",
    "drift",
    "last_run",
    "lookup",
    "search",
    "resident",
    "replacing",
    "nomatch",
    "versions",
    "retention",
    "duplicates",
    "feedback",
    "metrics",
    "unseen",
    "arms",
    "gallery",
    "evaluation",
    "paper",
    "tables",
    "plots",
    "findings",
    "report_page",
    "report",
]


def imported(file: Path) -> set[str]:
    """Full names of the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def test_a_later_stage_imports_an_earlier_one_and_never_back() -> None:
    rooms = {file.stem for file in (ROOT / "rsir_core").glob("*.py")} - {"__init__"}
    assert rooms == set(ORDER), "name the new room here and in the README's design section"
    for i, room in enumerate(ORDER):
        later = {f"rsir_core.{other}" for other in ORDER[i:]} | {"jobs", "tests"}
        names = imported(ROOT / "rsir_core" / f"{room}.py")
        assert not {n for n in names if n in later or n.split(".")[0] in {"jobs", "tests"}}, room


def test_packages_of_jobs_import_one_way_and_no_entry_point() -> None:
    below = {
        "boxes": set[str](),
        "pipeline": set[str](),
        "training": {"boxes", "pipeline"},
        "indexing": {"pipeline"},
        "evaluating": {"pipeline"},
        "serving": {"pipeline"},
        "demo_scenes": set[str](),
    }
    assert set(below) == {f.parent.name for f in (ROOT / "jobs").glob("*/__init__.py")}, "name the new package here"
    for package, allowed in below.items():
        rooms = {f"jobs.{other}" for other in {package, *allowed}} | {
            "jobs.cluster",
            "jobs.command",
            "jobs.config",
            "jobs.resources",
        }
        for file in (ROOT / "jobs" / package).glob("*.py"):
            names = {name for name in imported(file) if name.split(".")[0] == "jobs"}
            assert not {n for n in names if not any(n == r or n.startswith(f"{r}.") for r in rooms)}, file


@pytest.mark.slow
def test_importing_the_core_loads_no_ray_and_touches_nothing(tmp_path: Path) -> None:
    code = f"import sys, {', '.join('rsir_core.' + room for room in ORDER)}; print('ray' in sys.modules)"
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert done.stdout.strip() == b"False"
    assert not [f for f in home.rglob("*") if f.is_file()]


@pytest.mark.slow
def test_workers_that_only_publish_load_no_torch() -> None:
    code = "import sys, jobs.indexing.publishing; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


@pytest.mark.parametrize("word", ["import ray", ".remote("])
def test_ray_is_only_in_jobs(word: str) -> None:
    assert not [f.name for f in (ROOT / "rsir_core").glob("*.py") if word in f.read_text()]


def test_there_is_no_utils() -> None:
    assert not [f for d in ("rsir_core", "jobs") for f in (ROOT / d).rglob("*util*")]
