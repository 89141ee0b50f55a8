"""Check and measure the GPU path on this machine: correctness, each part alone, the pipeline, uploads, trainings, cost.

Every figure is printed as it comes. Nothing is downloaded; what is missing is named and left out.
"""

import argparse
import os
import platform
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch
import torchvision

from tests.gpu import correctness, jpeg, networks, parts, pipeline, prices, training, uploads
from tests.gpu.report import Report
from tests.gpu.setting import TINY, Setting, Size


class Section(NamedTuple):
    """A part of the script: at most so many seconds, begun only if at least so many are left."""

    name: str
    function: Callable[[Setting, Report], None]
    seconds: float
    least: float = 5.0


SECTIONS: Final = (
    Section("correctness", correctness.check, 60),
    Section("decoding", parts.decoding, 40),
    Section("device", parts.copying, 10),
    Section("device", parts.describing, 45),
    Section("networks", networks.run_networks, 75),
    Section("jpeg", jpeg.decode_on_device, 15),
    Section("pipeline", pipeline.run_pipelines, 130),
    Section("uploads", uploads.serve_uploads, 30),
    Section("cost", prices.price, 10),
    Section("training", training.train, 90),
    Section("compiled", networks.compile_networks, 200, least=networks.COMPILING),
)
GRACE: Final = 20.0  # seconds after the time is up, when the script ends in the midst of what it does


def main(argv: Sequence[str] | None = None) -> Report:
    """Run all sections, or those that are named."""
    options = parser().parse_args(argv)
    report = Report(options.minutes * 60, options.out)
    report.machine = describe_machine(options.device)
    print("\n".join(f"{name}: {value}" for name, value in report.machine.items()), flush=True)
    watchdog = threading.Timer(options.minutes * 60 + GRACE, report.give_up)
    watchdog.daemon = True
    watchdog.start()
    with tempfile.TemporaryDirectory(prefix="rsir-gpu-") as folder:
        setting = Setting(
            torch.device(options.device), options.seconds, TINY if options.tiny else Size(), Path(folder),
            1 if options.tiny else options.cores, options.dollars, options.core_dollars,
        )  # fmt: skip
        for section in SECTIONS:
            if not options.only or section.name in options.only:
                report.run(section.name, lambda s=section: s.function(setting, report), section.seconds, section.least)  # type: ignore[misc]
    watchdog.cancel()
    wrong = [line.name for line in report.lines if line.name.startswith("WRONG")]
    print(f"{len(wrong)} checks failed" + "".join(f"\n{name}" for name in wrong), flush=True)
    return report


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    found = argparse.ArgumentParser("python -m tests.gpu", description=__doc__)
    found.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    found.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    found.add_argument("--minutes", type=float, default=8.0, help="after which nothing more is begun")
    found.add_argument("--out", type=Path, help="JSON file of all that is found")
    found.add_argument(
        "--only", nargs="+", choices=sorted({section.name for section in SECTIONS}), help="these sections"
    )
    found.add_argument("--tiny", action="store_true", help="few and small images, to rehearse on a CPU")
    found.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="that read; default: all")
    found.add_argument("--dollars", type=float, default=4.0, help="that this machine costs per hour; an assumption")
    found.add_argument("--core-dollars", type=float, default=0.03, help="that a core of a CPU machine costs per hour")
    return found


def describe_machine(device: str) -> dict[str, str]:
    """Name what was measured on."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else platform.machine()
    return {
        "device": name,
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cuda": str(torch.version.cuda),
    }
