"""Reading in a process of its own: an image that hangs, crashes or floods its decoder costs that image, not the run.

The process reads one image after the other. What is long (pixels) comes back as anonymous memory that both map, all
else as JSON: the bytes of strangers are decoded there, so nothing that it sends is unpickled. The kernel keeps the
limits, not a thread, so that they hold while C code runs: RLIMIT_AS the memory, SIGALRM the time. Linux only.
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
from rsir_core.imagery.decode import Picture

Request = Sequence[Any]  # positional arguments of the reading function, as JSON has them; the first is the URI
JsonObject = dict[str, Any]  # what JSON holds
T = TypeVar("T", Picture, JsonObject)
ReadFunction = Callable[..., Picture]  # of a module, so that the process finds it by name; raises ImageError

_AHEAD: Final = 16  # requests under way, so that the process need not wait for us
_MESSAGE: Final = 200_000  # bytes, at most, of one message either way


def memory_for(max_pixels: int) -> int:
    """Compute the address space in bytes that suffices for any image of so many pixels: file, samples, copies."""
    return 2 * 1024**3 + 64 * max_pixels


class Reader(Generic[T]):
    """Reads pictures, or facts of files, in a process of its own, which is replaced when a file ends it.

    Args:
        read: what reads one; of a module, and it runs in that process.
        seconds: per file, after which it failed, unless it is allowed more (`allow`).
        memory: bytes of address space that the process may use.
    """

    def __init__(self, read: Callable[..., T], seconds: float, memory: int) -> None:
        self._read: Callable[..., T] = read
        self._limits = (seconds, memory)
        self._start()

    def read(self, requests: Sequence[Request]) -> list[T | ImageError]:
        """Read each request, in order; the result is what was read, or what is wrong with it."""
        try:
            return self._answers(requests)
        except BaseException:  # answers may be under way: the next call must not take them for its own
            self.close()
            raise

    def close(self) -> None:
        """End the process; reading again starts another."""
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
        spared = -1  # the image that may be read once more, because something else may have ended the process
        while waiting or sent:
            if (found := self._next(waiting, sent)) is not None:
                sent.popleft()
                answers.append(found)
                continue
            status = self._process.wait()
            waiting.extendleft(reversed(sent))
            sent.clear()
            if status == -signal.SIGKILL and spared != len(answers):
                spared = len(answers)
            else:
                answers.append(self._why(waiting.popleft()[0], status))
            self.close()
        return answers

    def _next(self, waiting: deque[Request], sent: deque[Request]) -> T | ImageError | None:
        """Wait for the next answer, with more requests sent before; None: the process has ended."""
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
            pass  # it has ended; what it answered before is still there
        try:
            data, files, _, _ = socket.recv_fds(self._channel, _MESSAGE, 1)
        except ConnectionResetError:  # said once, and first, when it left requests unread
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
        raise RuntimeError(f"reading failed otherwise than by an ImageError:\n{head['bug']}")
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
    return Picture(pixels, head["notes"], time, footprint, head["window"] and Window(*head["window"]))


# What follows runs in the process.


def allow(times: int) -> None:
    """Give the file that is being read so many times its time; for what is large. Elsewhere it does nothing."""
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    signal.setitimer(signal.ITIMER_REAL, left * times)


def _serve(descriptor: int, where: tuple[str, str], limits: tuple[float, int]) -> None:
    """Answer requests until the other end is closed."""
    seconds, memory = limits
    channel = socket.socket(fileno=descriptor)
    module, name = where
    read = getattr(__import__(module, fromlist=[name]), name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the job's end is ours
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    Path("/proc/self/oom_score_adj").write_text("1000")  # where memory is short, this process goes first
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
                out.write(data)
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
    if picture.footprint is not None:
        head["footprint"] = (picture.footprint.bbox, picture.footprint.polygon.hex(), picture.footprint.crs)
    return head, picture.pixels.data


def _send_error(channel: socket.socket, message: str, stage: FailureStage, kind: FailureKind) -> None:
    head = {"message": message[: _MESSAGE // 8], "stage": stage, "kind": kind}
    channel.send(json.dumps(head).encode())
