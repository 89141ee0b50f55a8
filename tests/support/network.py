"""No test reaches a network beyond this machine, by whatever library and in whatever process."""

import ipaddress
import os
import socket
import sys
from typing import Any, Final

import psutil

_OURS: Final = {
    interface.address.partition("%")[0]
    for interfaces in psutil.net_if_addrs().values()
    for interface in interfaces
    if interface.family in (socket.AF_INET, socket.AF_INET6)
}
_NAMES: Final = {"", "localhost", socket.gethostname().lower()}
_NOWHERE: Final = "http://127.0.0.1:9"  # where nobody listens


class NetworkError(RuntimeError):
    """A test wants something from another machine; no OSError, which would be taken for a store's."""


def block_network() -> None:
    """Refuse connections to other machines from now on, in this process, its forks and what they start.

    Python's own sockets are watched here; libraries with sockets of theirs (of Rust, or libcurl) and other processes
    are sent to a proxy that is not there.
    """
    here = ",".join(sorted({"localhost", "127.0.0.1", "::1", *_OURS}))
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), _NOWHERE) | {"no_proxy": here}
    os.environ.update({name: value for key, value in proxies.items() for name in (key, key.upper())})
    sys.addaudithook(_watch)


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        connecting, address = args
        if connecting.family == socket.AF_UNIX or connecting.type & socket.SOCK_DGRAM:  # these ask for a route only
            return
        host = address[0]
    elif event == "socket.getaddrinfo":
        host = args[0]
    else:
        return
    if not _is_here(host.decode() if isinstance(host, bytes) else host or ""):
        raise NetworkError(f"{host} is not this machine, and tests reach no other; see tests/support/network.py")


def _is_here(host: str) -> bool:
    if host.lower() in _NAMES:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or str(address) in _OURS
