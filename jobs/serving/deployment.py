"""The endpoint as Ray Serve runs it: ingress → describer → searchers, each a deployment of its own.

All processes of an endpoint import this module, the job and Serve's controller too; so each replica imports what it
needs when it is made, and starts seconds earlier for that.
"""

import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import LoggingConfig

from jobs.serving.options import ServeConfig
from rsir_core.endpoint.tokens import Tokens

if TYPE_CHECKING:
    from fastapi import FastAPI

    from rsir_core.backend.protocol import CompareRequest, DescribeRequest, PartitionRequest
    from rsir_core.retrieval.query import Descriptor, Likeness

HEALTH_TIMEOUT: Final = 60.0  # seconds; the probe queues behind two batches, and a large detector is slow on a CPU
COMMON: Final[dict[str, Any]] = {
    "health_check_timeout_s": HEALTH_TIMEOUT,
    "max_constructor_retry_count": 2,
    "graceful_shutdown_wait_loop_s": 0.2,  # between looks whether queries are still under way; 2 by default
}
DESCRIPTIONS: Final = 2  # calls under way in a describer: one is described, one is decoded or waits
SEARCHES: Final = 4  # calls under way in a searcher, above which another replica is worth its memory
REQUESTS: Final = LoggingConfig(encoding="JSON", log_level="INFO", enable_access_log=False)

log = logging.getLogger("ray.serve")
Handle = DeploymentHandle[Any]
T = TypeVar("T")


class Replicas:
    """Call all replicas of a deployment; a `protocol.VersionHolder`."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """Let all replicas hold these versions. One that starts meanwhile loads what it needs."""
        try:
            answers = await self._handle.broadcast("hold", versions).results_async(return_exceptions=True)
        except DeploymentUnavailableError:  # the endpoint is being ended, the ingress last
            return {}
        refused: dict[int, str] = {}
        for answer in answers:
            # What `hold` itself does not answer with is a replica that was lost, perhaps to what it should load.
            refused |= dict.fromkeys(versions, str(answer)) if isinstance(answer, BaseException) else answer
        return refused


class DescriberReplicas(Replicas):
    """Call a replica of `DescriberReplica`; a `protocol.Describer`."""

    async def describe(self, asked: "list[DescribeRequest]") -> "list[Descriptor | Exception]":
        """Let one of them describe pictures."""
        return await _call(self._handle.describe, asked)

    async def compare(self, asked: "list[CompareRequest]") -> "list[list[Likeness | None] | Exception]":
        """Let one of them compare pictures."""
        return await _call(self._handle.compare, asked)


class SearcherReplicas(Replicas):
    """Call a replica of `SearcherReplica`; a `protocol.Searcher`."""

    async def answer(self, asked: "list[PartitionRequest[T]]") -> list[T | Exception]:
        """Let one of them answer from its rows."""
        return await _call(self._handle.answer, asked)


async def _call(method: DeploymentHandle[T], asked: list[Any]) -> T:
    answers: T = await method.remote(asked)
    return answers


class DescriberReplica:
    """Run a `DescriberWorker` in a process of its own."""

    def __init__(self, index: str, max_pixels: int, device: str) -> None:
        import torch  # noqa: PLC0415

        from rsir_core.backend.describer_worker import DescriberWorker  # noqa: PLC0415
        from rsir_core.models.allocator import keep_activations  # noqa: PLC0415

        torch.set_num_threads(1)
        keep_activations()
        self._worker = DescriberWorker(index, max_pixels, device)

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """Hold these versions."""
        return await self._worker.hold(versions)

    async def describe(self, asked: "list[DescribeRequest]") -> "list[Descriptor | Exception]":
        """Describe pictures."""
        return await self._worker.describe(asked)

    async def compare(self, asked: "list[CompareRequest]") -> "list[list[Likeness | None] | Exception]":
        """Compare pictures."""
        return await self._worker.compare(asked)

    async def check_health(self) -> None:
        """Raise if queries fail; called by Ray Serve, which replaces a replica that fails or does not answer."""
        await self._worker.check_health()


class SearcherReplica:
    """Run a `SearcherWorker` in a process of its own."""

    def __init__(self, index: str, part: int, parts: int) -> None:
        from rsir_core.backend.searcher_worker import SearcherWorker  # noqa: PLC0415

        self._worker = SearcherWorker(index, part, parts)

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """Hold these versions."""
        return await self._worker.hold(versions)

    async def answer(self, asked: "list[PartitionRequest[T]]") -> list[T | Exception]:
        """Answer from the rows."""
        return await self._worker.answer(asked)

    async def check_health(self) -> None:
        """Raise if queries fail; called by Ray Serve, which replaces a replica that fails or does not answer."""
        await self._worker.check_health()


class Ingress:
    """Serve the routes over the index's newest version.

    Args:
        config: of the job.
        tokens: who may ask; None: everybody.
        describer: see `DescriberReplica`.
        searchers: see `SearcherReplica`, of each share of the rows.
    """

    def __init__(self, config: ServeConfig, tokens: Tokens | None, describer: Handle, searchers: list[Handle]) -> None:
        self._config, self._tokens = config, tokens
        log.addFilter(_is_for_operators)
        self._describer, self._searchers = DescriberReplicas(describer), [SearcherReplicas(one) for one in searchers]

    def __serve_build_asgi_app__(self) -> "FastAPI":
        """Build the application in the replica; called by Ray Serve."""
        from jobs.serving.metrics import RequestMetrics  # noqa: PLC0415
        from rsir_core.backend.batch import BATCH, GPU_BATCH  # noqa: PLC0415
        from rsir_core.backend.router import Router  # noqa: PLC0415
        from rsir_core.backend.versions import LoadedVersions  # noqa: PLC0415
        from rsir_core.endpoint.app import build_app  # noqa: PLC0415
        from rsir_core.endpoint.page_files import PageSettings  # noqa: PLC0415
        from rsir_core.endpoint.reading import Limits  # noqa: PLC0415

        config = self._config
        calls = DESCRIPTIONS * config.max_describers, SEARCHES * config.max_replicas
        pictures = GPU_BATCH if config.num_gpus else BATCH
        router = Router(self._describer, self._searchers, *calls, pictures)
        versions = LoadedVersions(config.index, router, config.refresh)
        limits = Limits(config.max_k, config.max_bytes, config.max_pixels, config.max_labels)
        page = PageSettings(config.open_in, config.basemap)
        return build_app(router, versions, limits, RequestMetrics(versions), self._tokens, page)


def build(config: ServeConfig) -> Application:
    """Bind the deployments together: one describer, a searcher per share of the rows, and the ingress.

    Describer and searchers reserve half a CPU each: a query keeps one of them busy at a time, and both fit on one core.

    Raises:
        ConfigError: the file of tokens cannot be read.
    """
    tokens = None if config.tokens is None else Tokens.read(config.tokens)
    half: dict[str, Any] = {"num_cpus": 0.5}
    describer = serve.deployment(
        name="describer",
        ray_actor_options=half | ({"num_gpus": config.num_gpus} if config.num_gpus else {}),
        max_ongoing_requests=8 * DESCRIPTIONS,  # some of large images, which go alone
        **_scaled(config.max_describers, DESCRIPTIONS),
    )(DescriberReplica).bind(config.index, config.max_pixels, "cuda" if config.num_gpus else "cpu")
    searchers = [
        serve.deployment(
            name=f"searcher-{part}",
            ray_actor_options=half,
            max_ongoing_requests=config.max_concurrency,
            **_scaled(config.max_replicas, SEARCHES),
        )(SearcherReplica).bind(config.index, part, config.partitions)
        for part in range(config.partitions)
    ]
    ingress = serve.deployment(
        name="ingress",
        num_replicas=1,  # see `LoadedVersions`
        ray_actor_options={"num_cpus": 0},  # it waits
        max_ongoing_requests=config.max_concurrency,
        max_queued_requests=config.max_concurrency,  # by default there is no limit
        backpressure_config=BackpressureConfig(retry_after_s=1),
        logging_config=REQUESTS,
        **COMMON,
    )(serve.ingress()(Ingress))
    return ingress.bind(config, tokens, describer, searchers)


def _is_for_operators(record: logging.LogRecord) -> bool:
    """Tell requests and warnings from what Serve says of its own working, which would be on the job's terminal."""
    return record.levelno > logging.INFO or hasattr(record, "request")


def _scaled(most: int, ongoing: int) -> dict[str, Any]:
    """Configure one replica, or as many as keep each at so many requests."""
    if most == 1:
        return COMMON
    return COMMON | {
        "autoscaling_config": {"min_replicas": 1, "max_replicas": most, "target_ongoing_requests": ongoing}
    }
