"""Bring along what a machine with PyTorch lacks for the script, as one archive that is unpacked beside the project.

Wheels of this environment's versions are fetched for the other machine's Python, without what the script does not run:
Ray's Java archives and web pages, tests, and stubs. The machine then needs no network:

    python3 -m tarfile -e FOLDER/site.tar.xz site && PYTHONPATH=site python3 -m tests.gpu
"""

import argparse
import lzma
import platform
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ARCHIVE: Final = "site.tar.xz"
LIMIT: Final = 60_000_000  # bytes of the archive
IMPORTED: Final = (  # all that the script imports at some time, but for what it measures to be missing
    "tests.gpu.script", "jobs.training.finetune_classifier", "jobs.training.finetune_detector", "jobs.pipeline.cluster",
    "ray.data", "ray._private.workers.default_worker",
)  # fmt: skip
# What a machine that is lent for PyTorch has; see its list of packages.
THERE: Final = (
    "torch", "torchvision", "pyarrow", "fsspec", "numpy", "pillow", "safetensors", "scipy", "scikit-learn",
    "numba", "pandas", "matplotlib", "opencv-python-headless", "pyyaml", "psutil", "requests", "protobuf", "click",
    "jinja2", "rich", "msgpack", "filelock", "packaging", "attrs", "aiohttp", "grpcio", "tqdm", "prometheus-client",
)  # fmt: skip
NOT_RUN: Final = ("bin/", "ray/jars/", "ray/dashboard/client/", "ray/rllib/", "ray/llm/", "ray/cpp/")
MANYLINUX: Final = ("2_28", "2_27", "2_17", "2014", "1", "2_24", "2_31", "2_34", "2_35")
DICTIONARY: Final = 1 << 28  # bytes that xz looks back: Ray's three programs have much in common


def lacking(there: Iterable[str] = THERE) -> list[str]:
    """List the distributions that the script imports and needs and that such a machine has not, `NAME==VERSION`.

    Some imports are of what happens to be installed (boto3 by rasterio); the project does not require those.
    """
    of_module = packages_distributions()
    names = {canonicalize_name(name) for module in imported() for name in of_module.get(module, ())}
    needed = (names & closure(["rsir"])) - closure(there) - {"rsir"}
    return sorted(f"{name}=={distribution(name).version}" for name in needed)


def imported() -> set[str]:
    """Import all of it in a process of its own; returns the top-level modules that are loaded then."""
    code = (
        f"import importlib, sys\nfor name in {IMPORTED!r}:\n    importlib.import_module(name)\n"
        "from rsir_core.models.detector import offline_ultralytics\n"
        "with offline_ultralytics():\n    import rsir_core.training.detector, rsir_core.training.detector_scoring\n"
        "print('MODULES', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("MODULES"))
    return set(line.split()[1:])


def closure(names: Iterable[str]) -> set[str]:
    """List these distributions and all that they require, as far as they are installed here."""
    found, waiting = set[str](), [canonicalize_name(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            required = [Requirement(text) for text in distribution(name).requires or ()]
        except PackageNotFoundError:
            continue
        waiting += [canonicalize_name(r.name) for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def fetch(requirements: Sequence[str], folder: Path, python: str) -> None:
    """Unpack wheels for a version of Python into a folder, by pip."""
    platforms = [word for version in MANYLINUX for word in ("--platform", f"manylinux{_dashed(version)}_x86_64")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--python-version", python, "--implementation", "cp", *platforms]
    subprocess.run([*command, "--target", str(folder), *requirements], check=True)


def _dashed(version: str) -> str:
    return f"_{version}" if "_" in version else version


def is_needed(name: str) -> bool:
    """Tell whether the script may need a file, by its name in the folder of packages."""
    folders = set(name.split("/")[:-1])
    is_left_out = (
        name.startswith(NOT_RUN) or name.endswith((".pyi", ".pyc", ".h")) or folders & {"tests", "__pycache__"}
    )
    return not is_left_out


def pack(site: Path, archive: Path) -> int:
    """Pack a folder of packages; returns the archive's bytes."""
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": DICTIONARY}]
    archive.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(
        (f for f in site.rglob("*") if f.is_file()), key=lambda f: (f.suffix, f.name, str(f))
    )  # alike together
    with lzma.open(archive, "wb", filters=filters) as out, tarfile.open(fileobj=out, mode="w") as tar:
        for file in files:
            if is_needed(name := file.relative_to(site).as_posix()):
                tar.add(file, name)
    return archive.stat().st_size


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch, pack, and say how large it is."""
    parser = argparse.ArgumentParser("python -m tests.gpu.bring", description=__doc__)
    parser.add_argument("folder", type=Path, help="to write the archive into")
    parser.add_argument("--python", default=".".join(platform.python_version_tuple()[:2]), help="version over there")
    parser.add_argument("--there", nargs="+", default=THERE, help="packages that are there; others come along")
    parser.add_argument("--list", action="store_true", help="only say what would come along")
    options = parser.parse_args(argv)
    requirements = lacking(options.there)
    print("\n".join(requirements), flush=True)
    if options.list:
        return
    with tempfile.TemporaryDirectory() as folder:
        fetch(requirements, Path(folder), options.python)
        size = pack(Path(folder), options.folder / ARCHIVE)
    print(f"{options.folder / ARCHIVE}: {size / 1e6:.1f} MB for Python {options.python}")
    if size > LIMIT:
        raise SystemExit(f"that is more than {LIMIT / 1e6:.0f} MB; name more packages that are there by --there")


if __name__ == "__main__":
    main()
