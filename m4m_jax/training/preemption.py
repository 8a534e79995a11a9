"""SIGTERM: the run saves and ends with status 75, whatever it is doing.

A handler written in Python runs only between two steps of the interpreter, so not while a program
compiles. Therefore a thread of its own watches for the signal. A run of several processes stops in
all of them at the same point, whichever of them the signal reaches.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from types import FrameType
from typing import NoReturn, Protocol

import jax

from m4m_jax.runtime import RESUME, stopped
from m4m_jax.training import hosts

PATIENCE = 18.0
"""Seconds that training has to come to a point where it can stop, and to save."""
TIDYING = 3.0
"""Seconds that the main thread has to leave by itself once there is nothing left to save."""
ALL = 23.0
"""Seconds after which the process is gone."""
_STOP, _POINT = "m4m/stop", "m4m/point"


class Preempted(BaseException):
    """The run has been told to stop, and what it has done is saved."""


class Saved(Protocol):
    """What is asked of a run's checkpoints by the thread that ends it."""

    @property
    def last_good(self) -> str:
        """The last one, in words."""

    def await_saving(self, seconds: float) -> None:
        """Wait for what is being saved, but no longer."""


class Preemption:
    """Stops a run on SIGTERM, once `watch` has been called.

    The points at which a run can stop are passed by all processes in the same order, and counted by
    `passed`. While a process does not `hold` anything that has yet to be saved, as before the first
    step and while programs compile, it leaves wherever it is.
    """

    def __init__(self) -> None:
        self._lock, self._leaving = threading.Lock(), threading.Lock()
        self._points, self._holding, self._stopping = 0, False, False
        self._stop_at: int | None = None
        self._agreed, self._over = threading.Event(), threading.Event()
        self._listener: threading.Thread | None = None
        self._saved: Saved | None = None
        self._signalled = time.monotonic()

    def watch(self) -> None:
        """Begin to watch, in the main thread."""
        heard, told = socket.socketpair()
        told.setblocking(False)
        signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._interrupt)
        # The thread keeps the sending end open as well.
        threading.Thread(target=self._await_signal, args=(heard, told), daemon=True).start()
        if hosts.store() is not None:
            self._listener = threading.Thread(target=self._await_others, daemon=True)
            self._listener.start()

    def end(self) -> None:
        """Listen no longer: a process must not end while one of its threads asks the others."""
        signal.signal(signal.SIGTERM, lambda number, frame: self.leave())
        self._over.set()
        if self._listener is not None:
            self._listener.join()

    def tells(self, saved: Saved) -> None:
        """Name the run's checkpoints, of which the last is told at the end."""
        self._saved = saved

    def hold(self, holding: bool) -> None:
        """Say whether there is something that has yet to be saved."""
        with self._lock:
            self._holding = holding

    def passed(self) -> bool:
        """Pass a point at which the run can stop; whether it is to stop there."""
        with self._lock:
            self._points += 1
            if not self._stopping:
                return False
        self._agreed.wait()
        if self._stop_at is None:
            raise Preempted
        return self._points >= self._stop_at

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, as soon as it gets there: leave tidily what need not be saved."""
        if not self._holding:
            raise Preempted

    def _await_signal(self, heard: socket.socket, told: socket.socket) -> None:
        while signal.SIGTERM not in heard.recv(64):
            pass
        _tell_others()
        self._stop()

    def _await_others(self) -> None:
        while not self._over.wait(0.3):
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # nobody has been signalled
                if hosts.store() is not None and hosts.store().key_value_try_get(_STOP):
                    return self._stop()

    def _stop(self) -> None:
        """Agree with the other processes where to stop, and see to it that this one ends."""
        with self._lock:
            if self._stopping:
                return
            self._stopping, self._signalled = True, time.monotonic()
            here = self._points if self._holding else -1
        try:
            found = [int(x) for x in hosts.exchange(_POINT, str(here), PATIENCE / 2)]
        except jax.errors.JaxRuntimeError:
            found = [-1]  # one of them is gone
        # Nobody is past a point that one of them has not come to, but for the next one.
        self._stop_at = max(found) + 1 if min(found) >= 0 else None
        self.hold(self._holding and self._stop_at is not None)
        self._agreed.set()
        end = self._signalled + PATIENCE
        while self._holding and time.monotonic() < end:
            time.sleep(0.05)
        if self._saved is not None:
            self._saved.await_saving(end - time.monotonic())
        time.sleep(TIDYING)
        self.leave()

    def leave(self) -> NoReturn:
        """Say how to resume, and end the process; the first thread to come does it."""
        self._leaving.acquire()
        _tell_others()  # the main thread may leave before the one that watches has come to it
        if hosts.number() == 0:
            stopped("nothing was saved yet" if self._saved is None else self._saved.last_good)
        hosts.leave(RESUME, max(1.0, self._signalled + ALL - time.monotonic()))


def _tell_others() -> None:
    """Have all processes stop, of which none may be there any more."""
    if (store := hosts.store()) is not None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            store.key_value_set(_STOP, "now", allow_overwrite=True)
