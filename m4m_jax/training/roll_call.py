"""Processes that start together announce themselves, so that those that are missing can be named.

jax's own start would end a process, without a word about who is missing, where one does not come.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time

from m4m_jax.errors import M4MError

_PAUSE = 0.2
_GO = "go"


def answer(coordinator: str, processes: int, process: int, seconds: float) -> None:
    """Wait until all processes have announced themselves to process 0, at HOST:PORT.

    The port is free again afterwards.

    Raises:
        M4MError: in every process that came, names those that did not in so many seconds.
    """
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise M4MError(f"--coordinator {coordinator} is not HOST:PORT")
    end = time.monotonic() + seconds
    if process == 0:
        verdict = _call(int(port), processes, end)
    else:
        verdict = _announce(host.strip("[]"), int(port), process, end)
    if verdict != _GO:
        raise M4MError(f"after {seconds:g} s, {verdict}")


def _call(port: int, processes: int, end: float) -> str:
    """Process 0: gather the others, and give them all the same verdict."""
    there: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(port))
        while len(there) < processes - 1 and (left := end - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(OSError, ValueError):  # whoever knocks and says nothing
                connection = stack.enter_context(server.accept()[0])
                connection.settimeout(5)
                there[int(json.loads(_line(connection))["process"])] = connection
        missing = [str(k) for k in range(1, processes) if k not in there]
        verdict = _GO
        if missing:
            names = f"process{'es' * (len(missing) > 1)} {', '.join(missing)}"
            verdict = f"{names} of {processes} did not come to {socket.gethostname()}:{port}"
        for connection in there.values():
            with contextlib.suppress(OSError):
                connection.sendall(verdict.encode() + b"\n")
    return verdict


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise M4MError(f"port {port} of --coordinator cannot be used: {error.strerror}") from error


def _announce(host: str, port: int, process: int, end: float) -> str:
    """The others: find process 0, and hear its verdict."""
    reason = "it did not answer"
    while (left := end - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall(json.dumps({"process": process}).encode() + b"\n")
                # Process 0 waits as long, and has a moment more to say who is missing.
                connection.settimeout(left + 5)
                if verdict := _line(connection):
                    return verdict
        except OSError as error:
            reason = error.strerror or str(error)
        time.sleep(_PAUSE)
    return f"process 0 of the run was not found at {host}:{port} ({reason})"


def _line(connection: socket.socket) -> str:
    with connection.makefile() as lines:
        return lines.readline().strip()
