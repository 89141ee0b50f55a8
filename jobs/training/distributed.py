"""Fine-tune the classifier on a cluster: the workers of `rsir_core.training`, started and continued by Ray Train."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import ray
import ray.train
import torch
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    ControllerError,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer, get_device, prepare_model
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution import context
from torch import nn
from torch.utils.data import Dataset, DistributedSampler

from jobs.training.options import FinetuneClassifierConfig
from rsir_core.errors import ConfigError, ImageError
from rsir_core.storage.filesystem import file_system
from rsir_core.training.classifier import Plan, train

START_TRIES: Final = 120  # of Ray Train to get its workers, of a minute each and over a whole training
_STATE: Final = "state.pt"


class RayTrainWorker:
    """Be one of Ray Train's workers; see `rsir_core.training.worker.Worker`."""

    def __init__(self) -> None:
        world = ray.train.get_context()
        self.rank, self._workers = world.get_world_rank(), world.get_world_size()
        self.device = torch.device(get_device())

    def wrap(self, model: nn.Module) -> nn.Module:
        """Move a network to the device, and average its gradients over all workers."""
        wrapped: nn.Module = prepare_model(model)
        return wrapped

    def share(self, images: Dataset[Any]) -> DistributedSampler[Any] | None:
        """Choose this worker's share of each epoch; None: all of it."""
        # Not by Ray's `prepare_data_loader`, which would fork the processes that read: it forgets how they start.
        return DistributedSampler(images, self._workers, self.rank) if self._workers > 1 else None

    def newest(self) -> bytes | None:
        """Read the run's newest checkpoint; None: there is none yet."""
        checkpoint = ray.train.get_checkpoint()
        return None if checkpoint is None else _content(checkpoint)

    def report(self, epoch: int, metrics: dict[str, float], checkpoint: Callable[[], bytes]) -> None:
        """Report an epoch, of which the worker of rank 0 saves a checkpoint."""
        if self.rank != 0:
            ray.train.report({"epoch": epoch, **metrics})
            return
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / _STATE).write_bytes(checkpoint())
            ray.train.report({"epoch": epoch, **metrics}, checkpoint=Checkpoint.from_directory(folder))


def train_worker(settings: dict[str, Any]) -> None:
    """Train in one of Ray Train's workers."""
    # Ray Train's own line for each report, which its `LoggingConfig` does not reach: the logger has its file's name.
    logging.getLogger(context.__file__).setLevel(logging.WARNING)
    train(ray.get(settings["plan"]), RayTrainWorker())


def train_on_cluster(config: FinetuneClassifierConfig, plan: Plan, folder: str, environment: dict[str, str]) -> bytes:
    """Run or continue a training on the cluster that this process is connected to; returns its last checkpoint.

    Args:
        config: of the job.
        plan: of the training.
        folder: URI in which the run keeps its checkpoints.
        environment: variables of the workers.

    Raises:
        ImageError: an image cannot be read any more.
        ConfigError: the loss is no number any more, or the workers never came.
    """
    fs, path = file_system(folder)  # absolute, as Ray Train wants it
    runs, _, run = (path if "file" in fs.protocol else fs.unstrip_protocol(path)).rpartition("/")
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"plan": ray.put(plan)},
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.num_gpus > 0,
            resources_per_worker={"CPU": config.num_cpus, **({"GPU": config.num_gpus} if config.num_gpus else {})},
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # its stub is of the version before
            name=run,
            storage_path=runs,
            checkpoint_config=CheckpointConfig(num_to_keep=2),  # one while the next is written
            # A store's hiccup, or a worker that was killed; and minutes in which a cluster may grow.
            failure_config=FailureConfig(max_failures=2, controller_failure_limit=START_TRIES),  # type: ignore[call-arg]
            worker_runtime_env={"env_vars": environment},
            logging_config=LoggingConfig("WARNING"),  # else five lines of Ray Train's around each epoch's own
        ),
    )
    checkpoint = _fit(trainer, config)
    if checkpoint is None:
        raise RuntimeError("Ray Train reports no epoch, though there is one at least")
    return _content(checkpoint)


def _content(checkpoint: Checkpoint) -> bytes:
    with checkpoint.as_directory() as folder:
        return (Path(folder) / _STATE).read_bytes()


def _fit(trainer: TorchTrainer, config: FinetuneClassifierConfig) -> Checkpoint | None:
    """Run a training and return its last checkpoint; raises what `train_on_cluster` does."""
    try:
        return trainer.fit().checkpoint
    except ControllerError as error:
        if not isinstance(error.controller_failure, WorkerGroupStartupTimeoutError):
            raise
        gpus = f" and {config.num_gpus:g} GPUs" if config.num_gpus else ""
        raise ConfigError(
            f"{config.workers} workers of {config.num_cpus} CPUs{gpus} were not there in {START_TRIES} tries of a "
            "minute; give fewer --workers, --num-cpus or --num-gpus, or let the cluster grow"
        ) from error
    except WorkerGroupError as error:
        causes = [getattr(cause, "_base_exc", cause) for cause in error.worker_failures.values()]  # as Ray wraps them
        foreseen = [cause for cause in causes if isinstance(cause, (ImageError, ConfigError))]
        if foreseen:
            raise foreseen[0] from error
        raise
