"""Every operation of the client library, written once for its blocking and its awaited form.

An operation is a generator: it yields the requests it needs, gets their answers back, or their
failure raised, and returns its result. It knows no transport. `Blocking` and `Awaited` owners run
the generators; the `operation` descriptor turns each into a method that returns the result, or an
awaitable of it, with the same parameters.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_args, overload

from xpmem_emu.client.wire import Ask
from xpmem_emu.codec import Buffer, convert
from xpmem_emu.kernel.call import Call, Returns
from xpmem_emu.kernel.calls import Value

_P = ParamSpec("_P")
_T = TypeVar("_T")

CHUNK = 1 << 20
"""Bytes of memory that one request moves; longer transfers are split and pipelined."""
CHUNKS_AHEAD = 64
"""Pieces of a transfer that are asked for before the first has succeeded."""


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """One request to a partition."""

    body: Call | object
    bulk: Buffer = b""
    kind: Ask = Ask.CALL


@dataclass(frozen=True, slots=True)
class OperationAnswer:
    """What a call that succeeded gave back."""

    value: Value
    bulk: Buffer = b""


Steps = Generator[Sequence[OperationRequest], Sequence[OperationAnswer], _T]
"""An operation in progress: requests out, as many answers in, T at the end."""


class Blocking(ABC):
    """An owner whose methods return results."""

    @abstractmethod
    def exchange(self, requests: Sequence[OperationRequest]) -> Sequence[OperationAnswer]:
        """All answers, in the order of the requests. Raises the first failure."""

    def run(self, steps: Steps[_T]) -> _T:
        """Carry out an operation."""
        try:
            requests = next(steps)
            while True:
                try:
                    answers = self.exchange(requests)
                except Exception as failure:
                    requests = steps.throw(failure)
                else:
                    requests = steps.send(answers)
        except StopIteration as end:
            result: _T = end.value
            return result


class Awaited(ABC):
    """An owner whose methods return awaitables."""

    @abstractmethod
    async def exchange(self, requests: Sequence[OperationRequest]) -> Sequence[OperationAnswer]:
        """All answers, in the order of the requests. Raises the first failure."""

    async def run(self, steps: Steps[_T]) -> _T:
        """Carry out an operation."""
        try:
            requests = next(steps)
            while True:
                try:
                    answers = await self.exchange(requests)
                except Exception as failure:
                    requests = steps.throw(failure)
                else:
                    requests = steps.send(answers)
        except StopIteration as end:
            result: _T = end.value
            return result


class operation(Generic[_P, _T]):  # noqa: N801 - a decorator
    """Makes a method of a generator function."""

    def __init__(self, build: Callable[Concatenate[Any, _P], Steps[_T]]) -> None:
        self._build = build
        functools.update_wrapper(self, build)  # type: ignore[arg-type]

    def __set_name__(self, owner: type, name: str) -> None:
        self._build.__name__ = name

    @overload
    def __get__(self, owner: None, kind: type) -> operation[_P, _T]: ...
    @overload
    def __get__(self, owner: Blocking, kind: type) -> Callable[_P, _T]: ...
    @overload
    def __get__(self, owner: Awaited, kind: type) -> Callable[_P, Awaitable[_T]]: ...

    def __get__(self, owner: Any, kind: type) -> object:
        if owner is None:
            return self
        build = self._build

        @functools.wraps(build)
        def method(*args: _P.args, **kwargs: _P.kwargs) -> _T | Awaitable[_T]:
            result: _T | Awaitable[_T] = owner.run(build(owner, *args, **kwargs))
            return result

        return method


def ask(call: Returns[_T]) -> Steps[_T]:
    """What one call is answered with. Raises BadMessage when that is not of its type."""
    (answer,) = yield [OperationRequest(call)]
    (base,) = type(call).__dict__["__orig_bases__"]  # such as Returns[int]
    kind: type[_T] = get_args(base)[0]
    return convert(answer.value, kind)


def of_partition(kind: Callable[_P, Returns[_T]]) -> operation[_P, _T]:
    """The method of a partition that makes one call: its parameters are the fields."""

    @functools.wraps(kind, assigned=("__doc__",), updated=())
    def build(owner: Any, /, *args: _P.args, **kwargs: _P.kwargs) -> Steps[_T]:
        return ask(kind(*args, **kwargs))

    return operation(build)


def of_task(kind: Callable[Concatenate[int, _P], Returns[_T]]) -> operation[_P, _T]:
    """The method of a task that makes one call of it."""

    @functools.wraps(kind, assigned=("__doc__",), updated=())
    def build(owner: Any, /, *args: _P.args, **kwargs: _P.kwargs) -> Steps[_T]:
        return ask(kind(owner.pid, *args, **kwargs))

    return operation(build)


def pieces(start: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, size) of the pieces of a transfer; one, even of an empty one."""
    for done in range(0, size or 1, CHUNK):
        yield start + done, min(CHUNK, size - done)


def load_pieces(call: Callable[[int, int], Call], start: int, size: int) -> Steps[bytes]:
    """The bulk of `call(start, size)`, in pieces."""
    answers = yield from _in_turn(
        OperationRequest(call(at, part)) for at, part in pieces(start, size)
    )
    return b"".join(answer.bulk for answer in answers)


def store_pieces(call: Callable[[int], Call], start: int, data: Buffer) -> Steps[None]:
    """`call(start)` with all of `data`, in pieces."""
    view = memoryview(data).cast("B")
    yield from _in_turn(
        OperationRequest(call(start + done), view[done : done + part])
        for done, part in pieces(0, len(view))
    )


def _in_turn(requests: Iterator[OperationRequest]) -> Steps[list[OperationAnswer]]:
    """The pieces of a transfer, some at a time: when one fails, those behind are not asked for, so
    a terabyte that is not there costs what a little costs."""
    answers: list[OperationAnswer] = []
    while several := list(islice(requests, CHUNKS_AHEAD)):
        answers += yield several
    return answers
