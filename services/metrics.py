"""What each transaction cost this process so far, and the account of one request."""

import time
import types
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from stores.usage import CURRENT, Usage

__all__ = ["Metrics", "Transaction", "Usage", "current_usage", "on_account"]

T = TypeVar("T")
_FIRST_FAILURE = 500
_FIRST_REFUSAL = 400


def current_usage(usage: Usage) -> None:
    """Puts what this task does from now on, on that account."""
    CURRENT.set(usage)


@types.coroutine
def on_account(work: Coroutine[Any, Any, T], usage: Usage) -> Generator[Any, Any, T]:
    """What `work` returns; the CPU time of its own steps is put on the account.

    A coroutine shares its thread with others, so each step is measured by itself.
    """
    clock = time.thread_time_ns
    step, argument = work.send, None
    while True:
        started = clock()
        try:
            waited_for = step(argument)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            usage.cpu_nanoseconds += clock() - started
        try:
            step, argument = work.send, (yield waited_for)
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:  # noqa: BLE001 - handed on to the work
            step, argument = work.throw, error


@dataclass(slots=True)
class Transaction:
    """All requests of one kind.

    Attributes:
        refused: Answered with 4xx.
        failed: Answered with 5xx.
        seconds: From the arrival of a request to the last byte of its answer.
    """

    requests: int = 0
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)

    def add(self, status: int, seconds: float, usage: Usage) -> None:
        """Counts a request."""
        self.requests += 1
        self.refused += _FIRST_REFUSAL <= status < _FIRST_FAILURE
        self.failed += status >= _FIRST_FAILURE
        self.seconds += seconds
        total = self.usage
        for name in _COUNTED:
            amount = getattr(usage, name)
            if amount:
                setattr(total, name, getattr(total, name) + amount)


_COUNTED = tuple(item.name for item in fields(Usage))


class Metrics:
    """The transactions of this process by name."""

    def __init__(self) -> None:
        self.transactions: dict[str, Transaction] = {}

    def add(self, name: str, status: int, seconds: float, usage: Usage) -> None:
        """Counts a request."""
        transaction = self.transactions.get(name)
        if transaction is None:
            transaction = self.transactions[name] = Transaction()
        transaction.add(status, seconds, usage)
