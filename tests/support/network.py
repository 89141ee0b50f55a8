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
    if event == "socket.getaddrinfo" and not _is_here(args[0]):
        raise socket.gaierror(f"{args[0]} is looked up by no test")  # as without a network, which Ray is prepared for
    if event == "socket.connect":
        connecting, address = args
        if connecting.family == socket.AF_UNIX or connecting.type & socket.SOCK_DGRAM:  # these ask for a route only
            return
        if not _is_here(address[0]):
            raise NetworkError(f"{address[0]} is not this machine, and tests reach no other")


def _is_here(host: str | bytes | None) -> bool:
    host = host.decode() if isinstance(host, bytes) else host or ""
    if host.lower() in _NAMES:
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified or str(address) in _OURS
