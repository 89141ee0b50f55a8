"""Report what this machine has: what an answer to "it does not work here" begins with. No secret is read."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from jobs.checking.options import DoctorConfig
from jobs.command import Summary
from rsir_core.errors import RsirError

PACKAGES: Final = (
    "rsir", "ray", "torch", "torchvision", "ultralytics-opencv-headless", "numpy", "numba", "pyarrow",
    "deltalake", "fsspec", "s3fs", "gcsfs", "adlfs", "planetary-computer", "rasterio", "pandas", "geopandas",
)  # fmt: skip
VARIABLES: Final = (
    "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_ENDPOINT_URL", "AWS_REGION", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_ID", "RAY_ADDRESS",
)  # fmt: skip
FILES: Final = (
    "~/.aws/credentials", "~/.aws/config", "~/.config/gcloud/application_default_credentials.json",
    "~/.config/fsspec",
)  # fmt: skip
GIB: Final = 2**30


def doctor(config: DoctorConfig) -> Summary:
    """Run the check.

    Raises:
        RsirError: the index that was named does not open.
    """
    found: dict[str, Any] = {
        "python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu_threads": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
        "gpus": _gpus(),
        "credentials": [name for name in VARIABLES if os.environ.get(name)]
        + [name for name in FILES if Path(name).expanduser().exists()],
    }
    problem: RsirError | None = None
    if config.index is not None:
        try:
            found["index"] = _index(config.index)
        except RsirError as error:
            problem = error
    if not config.as_json or problem is not None:
        _print(found)
    if problem is not None:
        raise problem
    return found if config.as_json else {}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    """Name the GPUs that torch can use."""
    try:
        import torch  # noqa: PLC0415 -- may be what is missing
    except ImportError as error:
        return [f"torch cannot be imported: {error}"]
    names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB" for gpu in names]


def _index(uri: str) -> str:
    from rsir_core.retrieval.served_version import open_version  # noqa: PLC0415 -- brings the packages that are named

    opened = open_version(uri)
    return f"{uri} opens: version {opened.version}, {opened.images} images, {len(opened.classes)} classes"


def _print(found: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in found.items():
        table.add_row(name.replace("_", " "), _text(value), style=None)
    Console(highlight=False, markup=False).print(table)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name} {number or '– not installed'}" for name, number in value.items())
    if isinstance(value, list):
        return "\n".join(value) or "none"
    return str(value)
