"""Work that is shared among several processes: the examination of files, above all."""

from __future__ import annotations

import contextlib
import gc
import mmap
import pickle
import selectors
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from installer_stub.beside import Line, Second
from installer_stub.errors import PackError
from pack.examine import Context, Examined, Job, examine

Progress = Callable[[int], None]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_BATCH_FILES = 256
_BATCH_BYTES = 32 << 20
_AHEAD = 2  # items that a worker is given, so that it need not wait for the next


def examined(jobs: Sequence[Job], context: Context, workers: int, progress: Progress) -> Iterator[Examined]:
    """Examine all files, in worker processes where there is enough to do and there may be some. Raises as `mapped`."""
    return judged(lambda job: examine(job, context), jobs, workers, progress)


def judged(
    judge: Callable[[Job], Examined],
    jobs: Iterable[Job],
    workers: int,
    progress: Progress = lambda count: None,
    most: int = _BATCH_BYTES,
) -> Iterator[Examined]:
    """Judge files, in worker processes where there is more to do than ``most`` bytes. Raises as `mapped`."""
    batches = _batched(jobs, most)
    for batch, rows in zip(batches, mapped(partial(_rows, judge), batches, workers), strict=True):
        yield from map(Examined.again, batch, rows)
        progress(sum(job.size for job in batch))


def _rows(judge: Callable[[Job], Examined], batch: Iterable[Job]) -> list[tuple[Any, ...]]:
    """Judge files; return the verdicts without their jobs, which whoever asked has."""
    return [tuple(judge(job)[1:]) for job in batch]


def _batched(jobs: Iterable[Job], most: int) -> list[list[Job]]:
    """Divide jobs into what a worker is given at once: hundreds of small files, or ``most`` bytes."""
    batches: list[list[Job]] = []
    batch: list[Job] = []
    size = 0
    for job in jobs:
        batch.append(job)
        size += job.size
        if len(batch) >= _BATCH_FILES or size >= most:
            batches.append(batch)
            batch, size = [], 0
    return [*batches, batch] if batch else batches


def mapped(work: Callable[[_Item], _Result], items: Sequence[_Item], workers: int) -> Iterator[_Result]:
    """Do some work with each item; yield what comes of it, which must be such as can be pickled, in their order.

    It is done by worker processes, where there are several items and may be some. Raises what the work raises, and
    PackError where a process ends before its time.
    """
    with contextlib.ExitStack() as stack:
        crew = _started(stack, work, items, workers) if min(workers, len(items)) > 1 else []
        yield from _answers(crew, len(items)) if crew else map(work, items)


def _started(
    stack: contextlib.ExitStack, work: Callable[[Any], Any], items: Sequence[Any], workers: int
) -> list[Second]:
    """Start worker processes, fewer where there may be no more; they end with ``stack``."""
    crew: list[Second] = []
    with contextlib.suppress(OSError):
        for _ in range(min(workers, len(items))):
            crew.append(Second(mmap.PAGESIZE, partial(_serve, work, items)))  # the least: it shares nothing
            stack.callback(crew[-1].end, at_once=True)
    return crew


def _answers(crew: Sequence[Second], count: int) -> Iterator[Any]:
    """Have ``count`` items worked on, each by whoever is free; yield what comes of them, in their order."""
    left = iter(range(count))
    answers: dict[int, bytes] = {}
    with selectors.DefaultSelector() as ready:
        for worker in crew:
            ready.register(worker.line, selectors.EVENT_READ, worker.line)
        with _talking():
            for line, number in zip([worker.line for worker in crew] * _AHEAD, left, strict=False):
                line.send(number)
        for number in range(count):
            with _talking():
                while number not in answers:
                    for key, _ in ready.select():
                        of, answer = key.data.receive()
                        answers[of] = answer
                        for following in islice(left, 1):
                            key.data.send(following)
            result, error, told = pickle.loads(answers.pop(number))
            if error is not None:
                raise error from RuntimeError(told)
            yield result


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    """Say it in words where a process ends that is talked with."""
    try:
        yield
    except OSError as error:
        raise PackError(
            "a process that reads the environment ended before its time.",
            "It may have been short of memory. Nothing was written; try again, with -j 1 in less memory.",
        ) from error


def _serve(work: Callable[[Any], Any], items: Sequence[Any], shared: memoryview, line: Line) -> None:
    """Work on the items that are asked for by their numbers."""
    gc.freeze()  # what was there before is looked at by no collection: it would be copied for that
    gc.enable()
    while True:
        number = line.receive()
        answer: tuple[Any, ...]  # what came of it, or an error and how it came
        try:
            answer = work(items[number]), None, ""
        except Exception as error:
            answer = None, error, traceback.format_exc()
        line.send((number, pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)))
