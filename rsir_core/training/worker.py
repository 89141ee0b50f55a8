"""The place of one process in a training: alone, as here, or as one of several that Ray Train has started."""

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

import torch
from torch import nn
from torch.utils.data import Dataset, DistributedSampler

from rsir_core.storage.filesystem import file_system, get_file, names_in, put_file

_KEPT: Final = 2  # checkpoints: one while the next is written

log = logging.getLogger(__name__)


class Worker(Protocol):
    """Connect one process of a training with the others, and with the run's checkpoints."""

    @property
    def rank(self) -> int:
        """Number of this process among all of them; the one of rank 0 logs and saves."""

    @property
    def device(self) -> torch.device:
        """Return the device on which this process computes."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """Move a network to the device, and average its gradients over all processes."""

    def share(self, images: Dataset[Any]) -> DistributedSampler[Any] | None:
        """Choose this process's share of each epoch; None: all of it."""

    def newest(self) -> bytes | None:
        """Read the run's newest checkpoint; None: there is none yet."""

    def report(self, epoch: int, metrics: dict[str, float], checkpoint: Callable[[], bytes]) -> None:
        """Report an epoch, and keep its checkpoint, which only the process of rank 0 makes."""


class LocalWorker:
    """Train alone, in this process.

    Attributes:
        rank: 0.
        device: where it computes.
    """

    def __init__(self, folder: str, device: torch.device) -> None:
        """Begin or continue a run.

        Args:
            folder: URI in which the run keeps its checkpoints.
            device: where to compute.
        """
        self.rank, self.device, self._folder = 0, device, folder

    def wrap(self, model: nn.Module) -> nn.Module:
        """Move a network to the device."""
        return model.to(self.device)

    def share(self, images: Dataset[Any]) -> None:
        """Take all of each epoch."""

    def newest(self) -> bytes | None:
        """Read the run's newest checkpoint; None: there is none yet.

        Raises:
            StorageError: the store does not answer, or refuses.
        """
        names = self._names()
        return get_file(f"{self._folder}/{names[-1]}") if names else None

    def report(self, epoch: int, metrics: dict[str, float], checkpoint: Callable[[], bytes]) -> None:
        """Keep an epoch's checkpoint, and the one before.

        Raises:
            StorageError: the store refuses or fails.
        """
        put_file(f"{self._folder}/epoch-{epoch:06}.pt", checkpoint())
        fs, path = file_system(self._folder)
        for name in self._names()[:-_KEPT]:
            fs.rm(f"{path}/{name}")

    def _names(self) -> list[str]:
        return [name for name in names_in(self._folder) if name.startswith("epoch-") and name.endswith(".pt")]
