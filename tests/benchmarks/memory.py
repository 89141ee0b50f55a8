"""Peak memory of the index job, all of its processes together, for many images against few. A tiny model describes."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from rsir_core.models import bundle
from rsir_core.models.classifier import build_classifier, settings_for
from tests.benchmarks.rerun import link_images
from tests.support.watching import Watch

CLASSES = ("airplane", "beach", "forest")
BACKBONE = "shufflenet_v2_x0_5"


def peak(models: Path, archive: Path, index: Path) -> tuple[int, float]:
    """Bytes, and images per second, of one run of the job."""
    options = {"models": models, "archive": archive, "index": index}
    command = [sys.executable, "-m", "jobs.index", "--json", *(f"--{name}={value}" for name, value in options.items())]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as job, Watch(job.pid) as watch:
        out, _ = job.communicate()
    if job.returncode:
        sys.exit(f"the job failed with status {job.returncode}")
    return watch.peak, json.loads(out.splitlines()[-1])["images_per_second"]


def main(argv: Sequence[str] | None = None) -> None:
    """Few, then many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        torch.manual_seed(0)
        model = build_classifier(BACKBONE, len(CLASSES))
        bundle.write_classifier(
            str(root / "models"), settings_for(BACKBONE, CLASSES, 32), model.state_dict(), 0.9, "uri,label,split\n"
        )
        found = {}
        for count in (args.few, args.many):
            link_images(root / f"archive{count}", 0, count)
            found[count] = peak(root / "models", root / f"archive{count}", root / f"index{count}")
    result = {
        "few": args.few,
        "many": args.many,
        "few_bytes": found[args.few][0],
        "many_bytes": found[args.many][0],
        "ratio_100k_10k": round(found[args.many][0] / found[args.few][0], 3),
        "images_per_second": found[args.many][1],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
