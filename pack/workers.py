"""The examination of files by several processes."""

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
from typing import Any

from installer_stub.beside import Line, Second
from installer_stub.errors import PackError
from pack.examine import Context, Examined, Job, examine

Progress = Callable[[int], None]

_BATCH_FILES = 256
_BATCH_BYTES = 32 << 20
_AHEAD = 2  # batches that a worker is given, so that it need not wait for the next


def examined(jobs: Sequence[Job], context: Context, workers: int, progress: Progress) -> Iterator[Examined]:
    """Examine all files, in worker processes where there is enough to do and there may be some.

    Raises PackError where one of them ends before its time.
    """
    batches = list(_batches(jobs))
    with contextlib.ExitStack() as stack:
        crew = _started(stack, batches, context, workers) if min(workers, len(batches)) > 1 else []
        if not crew:
            for job in jobs:
                yield examine(job, context)
                progress(job.size)
            return
        for batch, verdicts in zip(batches, _answers(crew, len(batches)), strict=True):
            yield from map(Examined.again, batch, verdicts)
            progress(sum(job.size for job in batch))


def _batches(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    batch: list[Job] = []
    size = 0
    for job in jobs:
        batch.append(job)
        size += job.size
        if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _started(
    stack: contextlib.ExitStack, batches: Sequence[Sequence[Job]], context: Context, workers: int
) -> list[Second]:
    """Start worker processes, fewer where there may be no more; they end with ``stack``."""
    crew: list[Second] = []
    with contextlib.suppress(OSError):
        for _ in range(min(workers, len(batches))):
            crew.append(Second(mmap.PAGESIZE, partial(_serve, batches, context)))  # the least: it shares nothing
            stack.callback(crew[-1].end, at_once=True)
    return crew


def _answers(crew: Sequence[Second], count: int) -> Iterator[list[tuple[Any, ...]]]:
    """Have ``count`` batches examined, each by whoever is free; yield what is said of them, in their order."""
    left = iter(range(count))
    answers: dict[int, bytes] = {}
    try:
        with selectors.DefaultSelector() as ready:
            for worker in crew:
                ready.register(worker.line, selectors.EVENT_READ, worker.line)
            for line, number in zip([worker.line for worker in crew] * _AHEAD, left, strict=False):
                line.send(number)
            for number in range(count):
                while number not in answers:
                    for key, _ in ready.select():
                        of, answer = key.data.receive()
                        answers[of] = answer
                        for following in islice(left, 1):
                            key.data.send(following)
                verdicts, error, told = pickle.loads(answers.pop(number))
                if error is not None:
                    raise error from RuntimeError(told)
                yield verdicts
    except OSError as error:
        raise PackError(
            "a process that reads the environment ended before its time.",
            "It may have been short of memory. Nothing was written; try again, with -j 1 in less memory.",
        ) from error


def _serve(batches: Sequence[Sequence[Job]], context: Context, shared: memoryview, line: Line) -> None:
    """Examine the batches that are asked for by their numbers."""
    gc.freeze()  # what was there before is looked at by no collection: it would be copied for that
    gc.enable()
    while True:
        number = line.receive()
        answer: tuple[Any, ...]  # verdicts without their jobs, or an error and how it came
        try:
            answer = [tuple(examine(job, context)[1:]) for job in batches[number]], None, ""
        except Exception as error:
            answer = None, error, traceback.format_exc()
        line.send((number, pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)))
