"""Indexing on two nodes of one core each against one, start-up apart: real raylets, each with its own object store.

Ratios mean something only while both cores are free: `quiet` says whether others used less than a tenth of a core.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from jobs.demo.scenes import write_archive
from jobs.indexing.options import IndexConfig
from tests.benchmarks.index import BATCH, write_models
from tests.support.options import replaced

ROOT = Path(__file__).parents[2]


def run(config: IndexConfig, nodes: int) -> float:
    """Images per second of a fresh cluster, from the first image opened to the last file written."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        given = replaced(config, address=cluster.address)
        names = {"address", "archive", "models", "index", "batch_size"}
        options = [f"--{name.replace('_', '-')}={value}" for name, value in given.model_dump(include=names).items()]
        done = subprocess.run(
            [sys.executable, "-m", "jobs.index", *options, "--json"], cwd=ROOT, check=True, stdout=subprocess.PIPE
        )
        return float(json.loads(done.stdout.splitlines()[-1])["images_per_second"])
    finally:
        cluster.shutdown()


def others(seconds: float) -> float:
    """Cores that everybody else uses."""
    before, began = psutil.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after = psutil.cpu_times()
    busy = [sum(t) - t.idle - getattr(t, "iowait", 0.0) for t in (before, after)]
    return float(busy[1] - busy[0]) / (time.monotonic() - began)


def main(argv: Sequence[str] | None = None) -> None:
    """By turns, medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", help="folder of images; default: drawn scenes")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--watch-seconds", type=float, default=5.0, help="of what others use, before each run")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    rates: dict[int, list[float]] = {1: [], 2: []}
    used = []
    with tempfile.TemporaryDirectory() as folder:
        archive = args.archive or f"{folder}/archive"
        if args.archive is None:
            write_archive(Path(archive), args.images // 12 + 1, seed=0)
        write_models(f"{folder}/models")
        for i in range(args.rounds):
            for nodes, found in rates.items():
                used.append(others(args.watch_seconds))
                config = IndexConfig(
                    archive=archive, models=f"{folder}/models", index=f"{folder}/index{i}_{nodes}", batch_size=BATCH
                )
                found.append(run(config, nodes))
    one, two = (statistics.median(rates[nodes]) for nodes in (1, 2))
    result: dict[str, Any] = {
        "images_per_second_1": one,
        "images_per_second_2": two,
        "ratio_two_nodes": round(two / one, 3),
        "others_cores": round(max(used), 2),
        "quiet": max(used) < 0.1,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
