"""Read in a separate process, so that an image that hangs, crashes or floods its decoder costs only that image.

The process reads one image after another. Pixels come back as anonymous memory that both processes map, everything else
as JSON; untrusted bytes are decoded there, so nothing that it sends is unpickled. The kernel enforces the limits, so
that they hold while C code runs: RLIMIT_AS for memory, SIGALRM for time. Linux only.
"""

import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import numpy as np
from rasterio.windows import Window

from rsir_core.arrays import Pixels
from rsir_core.errors import FailureKind, FailureStage, ImageError
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.geo.footprint import Footprint
from rsir_core.imagery.picture import Picture

Request = Sequence[Any]  # positional arguments of the reading function, JSON values; the first is the URI
JsonObject = dict[str, Any]  # of JSON values
T = TypeVar("T", Picture, JsonObject)
ReadFunction = Callable[..., Picture]  # module-level, so that the process can import it; raises ImageError

_AHEAD: Final = 16  # requests sent ahead, so that the process never waits for the next
_MESSAGE: Final = 200_000  # bytes, at most, of a message in either direction


def memory_for(max_pixels: int) -> int:
    """Compute the address space, in bytes, that suffices for any image of `max_pixels`: file, samples, copies."""
    return 2 * 1024**3 + 64 * max_pixels


class Reader(Generic[T]):
    """Read pictures, or metadata of files, in a separate process, which is replaced when a file ends it.

    Args:
        read: module-level function that reads one file; it runs in the process.
        seconds: limit per file, unless the function extends it by `allow`.
        memory: limit of the process's address space in bytes.
    """

    def __init__(self, read: Callable[..., T], seconds: float, memory: int) -> None:
        self._read: Callable[..., T] = read
        self._limits = (seconds, memory)
        self._start()

    def read(self, requests: Sequence[Request]) -> list[T | ImageError]:
        """Read each request, in order; returns what was read, or the error of each file."""
        try:
            return self._answers(requests)
        except BaseException:  # pending answers must not reach the next call
            self.close()
            raise

    def close(self) -> None:
        """End the process; the next read starts another."""
        self._end()

    def _start(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            where = (self._read.__module__, self._read.__qualname__)
            code = f"from rsir_core.imagery.sandbox import _serve; _serve({theirs.fileno()}, {where}, {self._limits})"
            self._process = subprocess.Popen(  # noqa: S603 -- this interpreter, and names of ours
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._greeted = False
        self._end: weakref.finalize[..., Any] = weakref.finalize(self, _end, self._process, self._channel)

    def _answers(self, requests: Sequence[Request]) -> list[T | ImageError]:
        answers: list[T | ImageError] = []
        waiting, sent = deque(requests), deque[Request]()
        retried = -1  # position of the image that is retried once, because something else may have killed the process
        while waiting or sent:
            if (found := self._next(waiting, sent)) is not None:
                sent.popleft()
                answers.append(found)
                continue
            status = self._process.wait()
            waiting.extendleft(reversed(sent))
            sent.clear()
            if status == -signal.SIGKILL and retried != len(answers):
                retried = len(answers)
            else:
                answers.append(self._why(waiting.popleft()[0], status))
            self.close()
        return answers

    def _next(self, waiting: deque[Request], sent: deque[Request]) -> T | ImageError | None:
        """Send more requests, then wait for the next answer; None if the process has ended."""
        if not self._end.alive:
            self._start()
        if not self._greeted and not self._channel.recv(1):
            raise RuntimeError(f"the reading process ended as it started; its status is {self._process.wait()}")
        self._greeted = True
        try:
            while waiting and len(sent) < _AHEAD:
                self._channel.send(json.dumps(waiting[0]).encode())
                sent.append(waiting.popleft())
        except ConnectionError:
            pass  # it has ended; earlier answers can still be received
        try:
            data, files, _, _ = socket.recv_fds(self._channel, _MESSAGE, 1)
        except ConnectionResetError:  # raised once, before the answers, if it left requests unread
            data, files, _, _ = socket.recv_fds(self._channel, _MESSAGE, 1)
        answer: T | ImageError | None = _answer(json.loads(data), files) if data else None
        return answer

    def _why(self, uri: str, status: int) -> ImageError:
        seconds, memory = self._limits
        if status == -signal.SIGALRM:
            what = f"is not read after {seconds:g} s; look at the file and its store, or raise --image-seconds"
            return ImageError(f"{uri} {what}", "read", "timeout")
        if status == -signal.SIGKILL:
            what = f"ended its reading process twice by SIGKILL (limit {memory:,} bytes); the machine's memory is short"
            return ImageError(f"{uri} {what}", "decode", "memory")
        ending = signal.Signals(-status).name if status < 0 else f"status {status}"
        return ImageError(f"{uri} ends its decoder ({ending}); convert it or leave it out", "decode", "crash")


def _end(process: "subprocess.Popen[bytes]", channel: socket.socket) -> None:
    channel.close()
    process.kill()
    process.wait()


def _answer(head: Mapping[str, Any], files: Sequence[int]) -> Any:
    if "bug" in head:
        raise RuntimeError(f"reading raised something else than an ImageError:\n{head['bug']}")
    if "kind" in head:
        return ImageError(head["message"], head["stage"], head["kind"])
    (file,) = files
    try:
        data = mmap.mmap(file, head["size"], mmap.MAP_PRIVATE)
    finally:
        os.close(file)
    return _picture(head, np.frombuffer(data, np.uint8)) if head["is_picture"] else json.loads(data[:])


def _picture(head: Mapping[str, Any], pixels: Pixels) -> Picture:
    pixels = pixels.reshape(head["height"], head["width"], 3)
    time = head["time"] and datetime.fromisoformat(head["time"])
    bbox, polygon, crs = head["footprint"] or (None, "", "")
    footprint = bbox and Footprint(BoundingBox(*bbox), bytes.fromhex(polygon), crs)
    window = head["window"] and Window(*head["window"])
    return Picture(pixels, head["notes"], time, footprint, window, head["cell"], head["covered"])


# Everything below runs in the process.


def allow(times: int) -> None:
    """Multiply the remaining time of the file being read, for large files; does nothing outside of a `Reader`."""
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    signal.setitimer(signal.ITIMER_REAL, left * times)


def _serve(descriptor: int, where: tuple[str, str], limits: tuple[float, int]) -> None:
    """Answer requests until the other end is closed."""
    seconds, memory = limits
    channel = socket.socket(fileno=descriptor)
    module, name = where
    read = getattr(__import__(module, fromlist=[name]), name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    Path("/proc/self/oom_score_adj").write_text("1000")  # when memory is short the kernel kills this process first
    try:
        channel.send(b"!")
        while request := channel.recv(_MESSAGE):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            _reply(channel, read, json.loads(request))
            signal.setitimer(signal.ITIMER_REAL, 0)
    except ConnectionError:
        return  # the job has ended


def _reply(channel: socket.socket, read: Callable[..., Picture | JsonObject], request: Request) -> None:
    try:
        found = read(*request)
        head, data = _packed(found) if isinstance(found, Picture) else ({}, memoryview(json.dumps(found).encode()))
        file = os.memfd_create("answer")
        try:
            with open(file, "wb", buffering=0, closefd=False) as out:
                left = data.cast("B")
                while left:  # Linux writes 2 GiB at most at a time
                    left = left[out.write(left) :]
            head |= {"size": data.nbytes, "is_picture": isinstance(found, Picture)}
            socket.send_fds(channel, [json.dumps(head).encode()], [file])
        finally:
            os.close(file)
    except ImageError as error:
        _send_error(channel, str(error), error.stage, error.kind)
    except MemoryError:
        what = f"needs more memory to read than it may have ({resource.getrlimit(resource.RLIMIT_AS)[0]:,} bytes)"
        _send_error(channel, f"{request[0]} {what}", "decode", "memory")
    except ConnectionError:
        raise
    except Exception:
        channel.send(json.dumps({"bug": traceback.format_exc()[-_MESSAGE // 8 :]}).encode())


def _packed(picture: Picture) -> tuple[JsonObject, memoryview]:
    height, width = picture.pixels.shape[:2]
    time = picture.time and picture.time.isoformat()
    head: JsonObject = {"height": height, "width": width, "notes": picture.notes, "time": time}
    head |= {"footprint": None, "window": picture.window and picture.window.flatten()}
    head |= {"cell": picture.cell, "covered": picture.covered}
    if picture.footprint is not None:
        head["footprint"] = (picture.footprint.bbox, picture.footprint.polygon.hex(), picture.footprint.crs)
    return head, picture.pixels.data


def _send_error(channel: socket.socket, message: str, stage: FailureStage, kind: FailureKind) -> None:
    head = {"message": message[: _MESSAGE // 8], "stage": stage, "kind": kind}
    channel.send(json.dumps(head).encode())
