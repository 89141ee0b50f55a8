"""A job's options with some changed."""

from typing import Any, TypeVar

from jobs.command import JobConfig

C = TypeVar("C", bound=JobConfig)


def replaced(config: C, **changes: Any) -> C:
    """Copy options with some changed, which are checked as all others are."""
    return type(config)(**{**config.model_dump(), **changes})
