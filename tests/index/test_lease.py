"""One at a time, whoever comes; the dead are found out, and a lost lease is noticed."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from rsir_core.errors import LeaseError
from rsir_core.index.lease import Holder, Lease
from rsir_core.storage.filesystem import create_file, put_file

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from rsir_core.index.lease import Lease
with Lease.take(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["local", "memory"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "index")
    else:
        yield f"memory://{tmp_path.name}/index"
        fsspec.filesystem("memory").store.clear()


def elsewhere(index: str, generation: int) -> Holder:
    """A holder on another machine, of which nothing is known but its file."""
    holder = replace(Holder.this(), machine="another", name="night on node7, process 4")
    put_file(f"{index}/lease/{generation:08}.json", holder.to_bytes())
    return holder


def test_a_file_is_created_once(index: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        wrote = list(pool.map(lambda i: create_file(f"{index}/file", b"%d" % i), range(8)))
    assert sum(wrote) == 1
    assert fsspec.filesystem(index.partition("://")[0] if "://" in index else "file").cat_file(
        f"{index}/file"
    ) == b"%d" % wrote.index(True)


def test_one_holds_it_and_the_next_gets_it_afterwards(index: str) -> None:
    for _ in range(3):
        with Lease.take(index) as lease:
            with pytest.raises(LeaseError, match=r"index.*process \d+, since 2"):
                Lease.take(index)
            lease.check()


def test_it_is_given_back_when_the_run_fails(index: str) -> None:
    with pytest.raises(ZeroDivisionError), Lease.take(index):
        raise ZeroDivisionError
    with Lease.take(index):
        pass


def test_of_many_one_gets_it(index: str) -> None:
    def take(_: int) -> Lease | None:
        try:
            return Lease.take(index)
        except LeaseError:
            return None

    with ThreadPoolExecutor(8) as pool:
        taken = [lease for lease in pool.map(take, range(8)) if lease is not None]
    assert len(taken) == 1
    taken[0].check()


@pytest.mark.slow
def test_a_killed_holder_of_this_machine_is_followed_at_once(tmp_path: Path) -> None:
    index = str(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, index], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LeaseError, match=f"process {holder.pid},"):
            Lease.take(index)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with Lease.take(index, ttl=1e6) as lease:  # would outlast the test
            lease.check()


def test_a_folder_may_have_two_colons_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "photos").write_text("mine")
    index = str(tmp_path / "photos::v2" / "index")
    for _ in range(2):
        with Lease.take(index) as lease:
            lease.check()
    assert (tmp_path / "photos").read_text() == "mine"
    assert (tmp_path / "photos::v2" / "index" / "lease" / "00000002.json").exists()


def test_credentials_that_may_not_delete_leave_old_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def deny(_: Any, path: str) -> None:
        raise PermissionError(f"Access Denied: {path}")

    monkeypatch.setattr(LocalFileSystem, "rm_file", deny)
    for _ in range(3):
        with Lease.take(str(tmp_path)) as lease:
            lease.check()
    assert "00000001.json, of a lease that has ended, could not be removed: Access Denied" in caplog.text
    assert len(list((tmp_path / "lease").iterdir())) == 3


def test_a_holder_whose_process_is_hidden_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under /proc with hidepid, where a process of another user looks as if it were no more."""
    mine = Holder.this()
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    monkeypatch.setattr("rsir_core.index.lease._machine", lambda: mine.machine)
    monkeypatch.setattr("rsir_core.index.lease.Path", lambda _: tmp_path / "hidden")
    assert not mine.is_here and not mine.is_gone
    assert replace(mine, pid=ended.pid).is_gone


def test_a_silent_holder_of_another_machine_is_followed_and_finds_it_out(index: str) -> None:
    with Lease.take(index) as suspended:
        elsewhere(index, 2)
        with Lease.take(index, ttl=0.05, beat=0.02) as lease:
            with pytest.raises(LeaseError, match=r"lost its lease .* to .*process"):
                suspended.check()
            lease.check()


def test_a_holder_of_another_machine_that_renews_keeps_it(index: str) -> None:
    def renew(holder: Holder) -> None:
        for i in range(100_000):
            put_file(f"{index}/lease/00000001.json", replace(holder, renewed=f"beat {i}").to_bytes())
            if refused.done():
                return

    holder = elsewhere(index, 1)
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(Lease.take, index, 1e6, 0.02)
        renew(holder)
        with pytest.raises(LeaseError, match="night on node7"):
            refused.result()


def test_the_thread_renews_it(index: str) -> None:
    with Lease.take(index, beat=0.01):
        first = fsspec.open(f"{index}/lease/00000001.json").open().read()
        while (renewed := fsspec.open(f"{index}/lease/00000001.json").open().read()) == first:
            pass
    before, after = json.loads(first), json.loads(renewed)
    assert after["token"] == before["token"] and after["renewed"] > before["renewed"]


def test_a_half_written_lease_is_watched(index: str) -> None:
    put_file(f"{index}/lease/00000004.json", b'{"name": "x')
    with Lease.take(index, ttl=0.05, beat=0.02) as lease:
        fs, folder = fsspec.core.url_to_fs(f"{index}/lease")
        assert fs.exists(f"{folder}/00000005.json")
        lease.check()


def test_foreign_files_beside_it_do_no_harm(index: str) -> None:
    put_file(f"{index}/lease/.DS_Store", b"")
    put_file(f"{index}/lease/readme.json", b"{}")
    with Lease.take(index) as lease:
        lease.check()
