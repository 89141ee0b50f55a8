"""Kill the index job at random moments, and compare what is left with what an undisturbed run leaves.

    python -m tests.kills --count 200 --seed 0

Each round changes a small archive, or restores an older version, and starts the job as a process of its own on a real
Ray. When the job begins the stage of its run that the round is about, the script waits for a random share of the time
that this stage takes and kills the driver, or a worker process of Ray's, by SIGKILL. After each kill a reader must see
the version of before or the one that the run was to publish, whole. After every few kills an undisturbed run must leave
exactly the rows that it leaves without kills: none lost, none doubled, each with the embedding of its image.

The parent loads the job's modules once and forks, as importing them takes longer than a run; it never starts threads,
Ray or Delta Lake itself, which a fork would break.
"""

import argparse
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork has none of its parent's threads
os.environ["RAY_AUTH_MODE"] = "disabled"  # else a Ray that `ray.init` starts refuses other drivers; it is on loopback

import numpy as np
import psutil
import ray
from deltalake import DeltaTable
from PIL import Image

import jobs.indexing.index as job
from jobs.demo.scenes import CLASSES, draw_scene
from jobs.indexing import restoring
from jobs.indexing.options import IndexConfig
from jobs.indexing.run_report import RunReport
from rsir_core import schemas
from rsir_core.archive.listing import list_images
from rsir_core.errors import RsirError
from rsir_core.index.index import Index
from rsir_core.index.no_match import has_no_match_threshold
from rsir_core.index.versions import Version, versions_of
from rsir_core.retrieval.served_version import open_version
from tests.support.models import write_bundle
from tests.support.options import replaced

Stage = Literal[
    "list and compare", "describe", "publish", "compact", "measure the no-match threshold", "vacuum", "restore"
]
Victim = Literal["driver", "worker"]
Keys = frozenset[tuple[str, str]]  # image id and etag of published rows

POOL: Final = 40  # pictures that the archive's images are taken from
IMAGES: Final = 12
COMPONENTS: Final = 3
CHECK_EVERY: Final = 8  # kills
START_SECONDS: Final = 120.0
# How often which stage is killed, of 20 kills; workers run in the first three of the stages that start Ray.
KILLS: Final[dict[tuple[Stage, Victim], int]] = {
    ("list and compare", "driver"): 1,
    ("describe", "driver"): 3,
    ("describe", "worker"): 3,
    ("publish", "driver"): 3,
    ("publish", "worker"): 1,
    ("compact", "driver"): 2,
    ("compact", "worker"): 1,
    ("measure the no-match threshold", "driver"): 1,
    ("restore", "driver"): 3,
    ("vacuum", "driver"): 2,
}
NO_WORKERS: Final = ("ray::IDLE", "ray::Dashboard", "ray::RuntimeEnv")  # without the latter two a node ends
ROUNDS: Final = [kill for kill, times in KILLS.items() for _ in range(times)]

log = logging.getLogger("kills")
context = multiprocessing.get_context("fork")


class Round(NamedTuple):
    """What became of one run."""

    killed: bool
    exit_code: int
    seconds: dict[str, float]  # that each stage took, of those that ended


class Archive:
    """A folder of images that changes; each image is one of a pool of pictures.

    Args:
        folder: to make.
        chance: what decides.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self._chance = folder / "archive", chance
        self._pool, self._made = folder / "pool", 0
        self._pool.mkdir(parents=True)
        self.folder.mkdir()
        for i in range(POOL):
            pixels = draw_scene(CLASSES[i % len(CLASSES)], np.random.default_rng(i)).pixels
            Image.fromarray(pixels[:96, : 96 + i]).save(self._pool / f"{i:02}.png")
        self.pictures: dict[str, int] = {}
        for _ in range(IMAGES):
            self._add()

    @property
    def pool(self) -> Path:
        """The folder of all pictures."""
        return self._pool

    def change(self) -> None:
        """Add an image, put another picture in the place of one, and remove one."""
        self._add()
        changed, gone = self._chance.sample(sorted(self.pictures), 2)
        self._put(changed)
        (self.folder / gone).unlink()
        del self.pictures[gone]

    def _add(self) -> None:
        self._made += 1
        self._put(f"{self._made:04}.png")

    def _put(self, name: str) -> None:
        picture = self._chance.choice([i for i in range(POOL) if i != self.pictures.get(name)])
        self.pictures[name] = picture
        copy = self.folder / f".{name}"
        shutil.copyfile(self._pool / f"{picture:02}.png", copy)
        copy.replace(self.folder / name)  # so that no run reads half of it


# In a process of its own: what touches Ray, Delta Lake or the index


def in_a_fork(body: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a process of its own and return what it returns.

    Raises:
        RuntimeError: the function raised; the text has its traceback.
    """
    ours, theirs = context.Pipe(False)
    process = context.Process(target=_answer, args=(theirs, body, args))
    process.start()
    theirs.close()
    try:
        done, answer = ours.recv()
    except EOFError:
        done, answer = False, f"{body.__name__} ended without an answer"
    process.join()
    if not done:
        raise RuntimeError(answer)
    return answer


def _answer(to: Connection, body: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        to.send((True, body(*args)))
    except BaseException:
        to.send((False, traceback.format_exc()))


def run_job(config: IndexConfig, stages: Connection, log_file: Path) -> None:
    """Run the index job; tell the stages of its run; exit as the command does."""

    class ToldReport(RunReport):
        def begin(self, stage: str | None) -> None:
            stages.send(stage)
            super().begin(stage)

    with log_file.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    for room in (job, restoring):
        setattr(room, "RunReport", ToldReport)  # noqa: B010 -- mypy does not see that they import it
    try:
        job.index_archive(config)
    except RsirError as error:
        print(f"index: {error}", flush=True)
        os._exit(1)
    os._exit(0)


def published(uri: str, version: int | None = None) -> tuple[int, Keys] | None:
    """Read a version (default: the newest) and its rows' keys as any reader of Delta Lake; None: there is none."""
    if not DeltaTable.is_deltatable(f"{uri}/features"):
        return None
    table = DeltaTable(f"{uri}/features", version=version)
    found = table.to_pyarrow_table(columns=[schemas.IMAGE_ID, schemas.ETAG])
    keys = list(zip(found[schemas.IMAGE_ID].to_pylist(), found[schemas.ETAG].to_pylist(), strict=True))
    assert len(set(keys)) == len(keys), "a row is doubled"
    return (int(table.version()), frozenset(keys)) if table.version() else None


def versions_of_index(uri: str) -> list[Version]:
    """List the versions of an index."""
    return versions_of(Index(uri))


def listed(archive: str) -> Keys:
    """Keys that an undisturbed run publishes."""
    return frozenset((file.image_id, file.etag) for file in list_images(archive))


def described(uri: str) -> dict[str, Any]:
    """Read the embedding of each image of an index that nobody disturbed."""
    index = Index(uri)
    features = index.features()
    return dict(zip(features[schemas.IMAGE_ID].to_pylist(), index.embeddings(features), strict=True))


def check_whole(uri: str, pictures: dict[str, int], reference: dict[str, Any]) -> None:
    """Hold an index against what an undisturbed run leaves of an archive.

    Raises:
        AssertionError: they differ.
    """
    index = Index(uri)
    features = index.features()
    assert features[schemas.IMAGE_ID].to_pylist() == sorted(pictures), "rows are lost, or too many"
    wanted = np.stack([reference[f"{pictures[name]:02}.png"] for name in sorted(pictures)])
    stored = index.embeddings(features)
    np.testing.assert_allclose(stored, wanted, rtol=0.01, atol=0.005)
    (pca,) = set(features[schemas.PCA].to_pylist())
    np.testing.assert_allclose(
        schemas.to_matrix(features[schemas.FEATURE]), index.pca(pca).transform(stored), atol=1e-5
    )
    keys = index.keys("embeddings").to_pylist()
    assert len({tuple(key.values()) for key in keys}) == len(keys), "an embedding is stored twice"
    assert len(index.keys("failures")) == 0
    assert has_no_match_threshold(index, index.version())
    assert open_version(uri).images == len(pictures)


# The rounds


class Rounds:
    """Runs of the job over one index, each killed in one of its stages.

    Args:
        folder: of everything.
        chance: what decides.
        address: of the Ray that the jobs join.
    """

    def __init__(self, folder: Path, chance: random.Random, address: str) -> None:
        self._chance, self._log = chance, folder / "job.log"
        self.archive = Archive(folder, chance)
        self.config = IndexConfig(
            archive=str(self.archive.folder), models=str(folder / "models"), index=str(folder / "index"),
            components=COMPONENTS, batch_size=1, commit_every=4, actors=1, address=address, compact=True,
        )  # fmt: skip
        self._seconds: dict[str, float] = {}
        self._folder = folder

    def prepare(self) -> None:
        """Describe all pictures without kills, for what to compare with, and run the job for the first time."""
        in_a_fork(write_bundle, self._folder / "models")
        whole = self._of(archive=str(self.archive.pool), index=str(self._folder / "reference"))
        self.undisturbed(whole)
        self._reference = in_a_fork(described, whole.index)
        self.check()
        self.undisturbed(self._of(vacuum=True, keep_days=0.0))

    def check(self) -> None:
        """Let a run end undisturbed and hold the index against what such a run leaves."""
        self.undisturbed(self.config)
        in_a_fork(check_whole, self.config.index, self.archive.pictures, self._reference)

    def undisturbed(self, config: IndexConfig) -> None:
        """Run the job to its end."""
        done = self._run(config, None, "driver")
        assert done.exit_code == 0, self._log.read_text()[-3000:]
        self._seconds |= done.seconds

    def kill(self, stage: Stage, victim: Victim) -> bool:
        """Run the job and kill it in a stage; returns whether the kill came before the run had ended.

        Raises:
            AssertionError: what a reader sees then is neither the version of before nor the one to be published.
        """
        before = in_a_fork(published, self.config.index)
        config, allowed = self._round(stage)
        done = self._run(config, stage, victim)
        seen = in_a_fork(published, self.config.index)
        assert seen is not None and seen[1] in (before[1], allowed), f"{stage}, {victim}: {seen} after {before}"
        if victim == "worker":  # Ray starts another, and the run ends well
            assert done.exit_code == 0, self._log.read_text()[-3000:]
        return done.killed

    def _round(self, stage: Stage) -> tuple[IndexConfig, Keys]:
        """What the job is told, and the rows that it is to publish."""
        if stage == "vacuum":
            config = self._of(vacuum=True, keep_days=0.0)
        elif stage == "restore":
            return self._older()
        else:
            self.archive.change()
            config = self.config
        return config, in_a_fork(listed, config.archive)

    def _older(self) -> tuple[IndexConfig, Keys]:
        """Any older version that can still be read, and its rows."""
        readable = [v.version for v in in_a_fork(versions_of_index, self.config.index) if v.readable]
        version = self._chance.choice(readable[1:] or readable)
        found = in_a_fork(published, self.config.index, version)
        assert found is not None
        return IndexConfig(index=self.config.index, restore=version), found[1]

    def _run(self, config: IndexConfig, stage: Stage | None, victim: Victim) -> Round:
        """Run the job; kill in the stage, if one is given."""
        ours, theirs = context.Pipe(False)
        process = context.Process(target=run_job, args=(config, theirs, self._log))
        process.start()
        theirs.close()
        seconds: dict[str, float] = {}
        killed, now, began = False, None, time.monotonic()
        for told in _told(ours):
            if now is not None:
                seconds[now] = time.monotonic() - began
            now, began = told, time.monotonic()
            if told == stage and stage is not None:
                time.sleep(self._chance.uniform(0, self._seconds.get(stage, 1.0)))
                killed = self._strike(process, victim)
        process.join()
        return Round(killed, int(process.exitcode or 0), seconds)

    def _strike(self, process: Any, victim: Victim) -> bool:
        """Kill a process; returns whether there was one to kill."""
        if victim == "driver":
            if not process.is_alive():
                return False
            os.kill(process.pid, signal.SIGKILL)
            return True
        while process.is_alive():  # until Ray has a worker for this run
            if workers := _busy_workers():
                with _gone_already():
                    self._chance.choice(workers).kill()
                return True
            time.sleep(0.05)
        return False

    def _of(self, **options: Any) -> IndexConfig:
        return replaced(self.config, **options)


def _told(stages: Connection) -> Iterator[str | None]:
    """The stages that a run tells, until it ends."""
    while True:
        try:
            yield stages.recv()
        except EOFError:
            return


@contextmanager
def _gone_already() -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess:
        log.debug("the worker had ended by itself")


def _busy_workers() -> list[psutil.Process]:
    """Ray's worker processes that do something, on this script's Ray only."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with _gone_already():
            name = process.name() if process.status() != psutil.STATUS_ZOMBIE else ""
            if name.startswith("ray::") and not name.startswith(NO_WORKERS):
                found.append(process)
    return found


@contextmanager
def cluster() -> Iterator[str]:
    """A Ray of two cores in a process of its own; its address."""
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold_cluster, args=(theirs,))
    process.start()
    try:
        assert ours.poll(START_SECONDS), "Ray did not start"
        yield ours.recv()
    finally:
        ours.send("enough")
        process.join()


def _hold_cluster(parent: Connection) -> None:
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )  # fmt: skip
    parent.send(ray.get_runtime_context().gcs_address)
    parent.recv()
    ray.shutdown()


def main() -> None:
    """Kill as often as asked; one JSON line at the end."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=200, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    chance, kills, missed, checks = random.Random(args.seed), Counter[str](), 0, 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, cluster() as address:
        rounds = Rounds(Path(folder), chance, address)
        rounds.prepare()
        queue: list[tuple[Stage, Victim]] = []
        while kills.total() < args.count:
            queue = queue or chance.sample(ROUNDS, len(ROUNDS))
            stage, victim = queue.pop()
            if rounds.kill(stage, victim):
                kills[f"{stage}: {victim}"] += 1
            else:
                missed += 1
                assert missed < 4 * len(ROUNDS) + args.count, "kills come too late, again and again"
            if kills.total() % CHECK_EVERY == 0 or kills.total() == args.count:
                rounds.check()
                checks += 1
            log.info("%d of %d kills, %s of %s", kills.total(), args.count, victim, stage)
    seconds = round(time.monotonic() - began)
    result = {"kills": kills.total(), "by_stage": dict(kills), "missed": missed, "checks": checks, "seconds": seconds}
    print(json.dumps(result | {"seed": args.seed}))


if __name__ == "__main__":
    main()
