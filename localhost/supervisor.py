"""The parent of several processes: it forks them, and forks them again when they die.

The parent runs no event loop, no thread and none of the app's code, so forking is
safe at any time and nothing of the app can take it down. It keeps the listening
sockets open: while a child starts again, new connections wait instead of failing.
"""

import logging
import mmap
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from localhost.errors import HostError
from localhost.process import Role, Setup, run

logger = logging.getLogger(__name__)

_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 10.0
_SETTLED_SECONDS = 60.0
_KILL_AFTER_DRAIN_SECONDS = 5.0
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})


@dataclass(slots=True)
class Child:
    """One process slot; times are `time.monotonic` seconds.

    Attributes:
        roles: What it runs.
        pid: Process id, None while there is none.
        ready: It has told that it is ready.
        needed: False once a process said that it has nothing to do.
        born: When it was started last.
        crashes: Deaths in a row that came soon after a start.
        due: When to start it again.
    """

    roles: Role
    pid: int | None = None
    ready: bool = False
    needed: bool = True
    born: float = 0.0
    crashes: int = 0
    due: float = 0.0


class Supervisor:
    """Runs `workers` HTTP processes and one for jobs."""

    def __init__(
        self, setup: Setup, workers: int, on_ready: Callable[[], None]
    ) -> None:
        self._setup = setup
        self._on_ready = on_ready
        self._announced = False
        self._stop_by: float | None = None
        self._stopping = Role.HTTP
        self._exit_code = 0
        self._children = [Child(Role.HTTP) for _ in range(workers)]
        self._children.append(Child(Role.JOBS))
        self._signals_in, self._signals_out = _pipe()
        self._ready_in, self._ready_out = _pipe()
        self._lifeline_in, self._lifeline_out = os.pipe()
        self._told = mmap.mmap(-1, 1)  # one child tells why none can start

    def run(self) -> int:
        """Supervise until a signal has stopped everything; the exit code.

        In a child this call raises SystemExit when the child is done.
        """
        signal.set_wakeup_fd(self._signals_out, warn_on_full_buffer=False)
        for handled in _SIGNALS:
            signal.signal(handled, _nothing)
        while self._goes_on():
            self._wait()
            self._note_ready()
            for number in _read(self._signals_in):
                if number in {signal.SIGTERM, signal.SIGINT}:
                    self._stop(number)
            self._reap()
        return self._exit_code

    def _goes_on(self) -> bool:
        """Start what is due, or go on stopping; False when nothing runs any more."""
        if self._stop_by is None:
            self._start_due()
            return True
        if not any(child.pid for child in self._children):
            return False
        if time.monotonic() > self._stop_by:
            self._signal(self._stopping, signal.SIGKILL)
        requests_done = not any(c.pid for c in self._children if c.roles is Role.HTTP)
        if requests_done and self._stopping is Role.HTTP:
            self._begin_to_stop(Role.JOBS)
        return True

    def _wait(self) -> None:
        now = time.monotonic()
        moments = [c.due for c in self._children if c.needed and c.pid is None]
        if self._stop_by is not None:
            moments = [self._stop_by + 0.1]
        timeout = max(0.0, min(moments) - now) if moments else None
        select.select([self._signals_in, self._ready_in], [], [], timeout)

    def _start_due(self) -> None:
        now = time.monotonic()
        for index, child in enumerate(self._children):
            if child.needed and child.pid is None and child.due <= now:
                self._start(index, child)

    def _start(self, index: int, child: Child) -> None:
        child.ready = False
        child.born = time.monotonic()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._become(index, child.roles)
        child.pid = pid
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _become(self, index: int, roles: Role) -> NoReturn:
        """Be the child: leave the parent's affairs, run, exit."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(self._lifeline_out)
        os.close(self._setup.claimed)  # the folder is free once the parent is gone
        if Role.HTTP in roles:
            self._setup.load.begin(index)
        ready = bytes([index])
        try:
            worked = run(
                self._setup,
                roles,
                lambda: _write(self._ready_out, ready),
                self._lifeline_in,
            )
        except HostError as error:
            if not self._told[0]:
                self._told[0] = 1
                sys.stderr.write(f"{error}\n")
            sys.exit(1)
        if not worked:
            _write(self._ready_out, bytes([index | 0x80]))
        sys.exit(0)

    def _note_ready(self) -> None:
        for byte in _read(self._ready_in):
            child = self._children[byte & 0x7F]
            child.ready = True
            child.needed = not byte & 0x80
        if not self._announced and all(child.ready for child in self._children):
            self._announced = True
            self._on_ready()

    def _reap(self) -> None:
        for child in self._children:
            if child.pid is None:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._bury(child, os.waitstatus_to_exitcode(status))

    def _bury(self, child: Child, code: int) -> None:
        pid, child.pid = child.pid, None
        if self._stop_by is not None:
            return
        self._note_ready()
        if not child.needed:
            return
        if not self._announced and not child.ready:
            if not self._told[0]:
                logger.error("Process %s could not start (exit code %s)", pid, code)
            self._exit_code = 1
            self._stop(signal.SIGTERM)
            return
        now = time.monotonic()
        child.crashes = 0 if now - child.born > _SETTLED_SECONDS else child.crashes + 1
        delay = _FIRST_DELAY_SECONDS * 2 ** min(child.crashes - 1, 10)
        child.due = now + min(delay, _LONGEST_DELAY_SECONDS)
        logger.warning("Process %s died (exit code %s); starting another", pid, code)

    def _stop(self, number: int) -> None:
        """Drain at the first signal, end everything at the second."""
        if self._stop_by is not None:
            self._signal(Role.HTTP | Role.JOBS, signal.SIGKILL)
            self._exit_code = 128 + number
            return
        self._setup.listener.close()
        self._setup.rpc_listener.close()
        self._begin_to_stop(Role.HTTP)

    def _begin_to_stop(self, roles: Role) -> None:
        """Ask these children to end; requests need the jobs, so these come last."""
        drain = self._setup.serving.drain_seconds
        self._stopping = roles
        self._stop_by = time.monotonic() + drain + _KILL_AFTER_DRAIN_SECONDS
        self._signal(roles, signal.SIGTERM)

    def _signal(self, roles: Role, number: int) -> None:
        for child in self._children:
            if child.pid is not None and child.roles in roles:
                os.kill(child.pid, number)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Signals are handled where the wake-up descriptor is read."""


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except BlockingIOError:
        return b""


def _write(descriptor: int, message: bytes) -> None:
    os.write(descriptor, message)
