"""Explain which extra brings a package that is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from rsir_core.errors import ConfigError


@contextmanager
def needing(package: str) -> Iterator[None]:
    """Convert a failed import in the body.

    Raises:
        ConfigError: the package is missing.
    """
    try:
        yield
    except ImportError as error:
        raise ConfigError(f"this needs {package}, which is not installed: pip install 'rsir[notebook]'") from error
