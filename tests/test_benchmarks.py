"""Every benchmark runs, at a tiny size, and says what it is to say: the contracts' keys, and no time of them."""

import importlib
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
TINY = {
    "changes": "--rows 200 --changes 24",
    "ground_changes": "--side 1024 --image-size 32 --components 4",
    "compact": "--few 100 --many 200",
    "index": "--images 24",
    "listing": "--images 300",
    "load": "--rows 1000",
    "marks": "--repeats 1",
    "memory": "--few 24 --many 30",
    "metrics": "--rows 200",
    "mixed": "",  # of a made-up index
    "objects": "--sets mosaic2,plain --per-class 3",  # drawn
    "nodes": "--images 24 --watch-seconds 0.1",
    "page": "--rows 3000 --results 100 --rounds 1",
    "pca": "--rows 1000 --dimensions 32 --components 4",
    "refit": "--rows 200",
    "regions": "--images 12",  # drawn
    "rerun": "--rows 100 --new 24",
    "scenes": "--side 832 --per-class 1 --queries 3",
    "search": "--rows 2000 --queries 10",
    "serve": "--rows 1000 --requests 5 --seconds 0.5 --images 16 --swap-requests 20 --settle-seconds 0",
    "startup": "--rows 100 --repeats 1",
    "training": "--side 32 --steps 1",
    "vectors": "--rows 300 --dimensions 24",
}
KEYS = {  # that others rely on
    "index": {"images", "ratio_plain_loop", "ratio_user_script", "cpu_ms_outside_models"},
    "memory": {"ratio_100k_10k"},
    "marks": {"average_precision", "fit_1000_marks_seconds"},
    "metrics": {"seconds", "peak_bytes"},
    "mixed": {"archives", "auto_behind_the_better"},
    "pca": {"ratio_incremental_pca", "max_angle"},
    "startup": {"help_seconds", "open_and_search_seconds", "search_image_seconds", "unchanged_index_seconds"},
    "objects": {"sets"},
    "regions": {"queries", "precision_at_10", "rows", "search_ms", "describe_seconds"},
    "search": {"rows", "queries", "ours_ms", "faiss_flat_ms", "matrix_product_ms", "identical"},
    "serve": {"p50_ratio_noop", "rps_ratio_noop", "swap_requests", "swap_failed"},
}


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("[a-z]*.py")))
def test_a_benchmark_runs_at_a_tiny_size(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    importlib.import_module(f"tests.benchmarks.{name}").main([*TINY[name].split(), "--json"])
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert set(result) >= KEYS.get(name, {"rows"} if "--rows" in TINY[name] else set())
