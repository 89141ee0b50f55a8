"""That the tests cannot reach other machines: see `tests.support.network`."""

import os
import socket
import subprocess
import sys

import httpx
import pytest
from deltalake import DeltaTable

from tests.support.network import NetworkError

ELSEWHERE = "198.51.100.1"  # of no machine: kept for examples


@pytest.mark.parametrize("host", [ELSEWHERE, "example.org", "2001:db8::1", b"example.org"])
def test_no_other_machine_is_reached(host: str) -> None:
    with pytest.raises((NetworkError, socket.gaierror)):
        socket.create_connection((host, 80), timeout=1)


def test_this_machine_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for host in ("127.0.0.1", "localhost"):
            with socket.create_connection((host, listener.getsockname()[1])) as sender:
                receiver, _ = listener.accept()
                with receiver:
                    sender.sendall(b"here")
                    assert receiver.recv(4) == b"here"


def test_nor_by_libraries_or_processes_with_sockets_of_their_own() -> None:
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{ELSEWHERE}", timeout=1)
    options = {"aws_allow_http": "true", "aws_access_key_id": "a", "aws_secret_access_key": "b", "max_retries": "0"}
    with pytest.raises(Exception, match="refused"):
        DeltaTable("s3://bucket/table", storage_options=options | {"aws_endpoint": f"http://{ELSEWHERE}"})
    code = f"import urllib.request; urllib.request.urlopen('http://{ELSEWHERE}', timeout=1)"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=False)
    assert "refused" in done.stderr
