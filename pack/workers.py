"""The examination of files by several processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import resource_tracker
from types import ModuleType
from typing import Any

from pack.examine import Context, Examined, Job, examine

Progress = Callable[[int], None]

_BATCH_FILES = 256
_BATCH_BYTES = 32 << 20

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def examined(jobs: Sequence[Job], context: Context, workers: int, progress: Progress) -> Iterator[Examined]:
    """Examine all files, in worker processes where there is enough to do."""
    batches = list(_batches(jobs))
    if workers == 1 or len(batches) == 1:
        for job in jobs:
            yield examine(job, context)
            progress(job.size)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _initialize, (context,)) as pool:
        try:
            with _starting():
                results = pool.map(_examine_batch, batches)
            for batch, verdicts in zip(batches, results, strict=True):
                done = [Examined.again(job, verdict) for job, verdict in zip(batch, verdicts, strict=True)]
                yield from done
                progress(sum(each.job.size for each in done))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # "with" alone would have all the rest examined
            raise


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """Prepare for the start of worker processes.

    Signals wait meanwhile: a worker whose parent breaks off then prints a traceback. And the main module is hidden:
    workers would run it, and the script of somebody who uses the library packs.
    """
    resource_tracker.ensure_running()  # starting it, Python before 3.12 lets signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


_worker_context: Context


def _initialize(context: Context) -> None:
    """Give a worker process what is the same for all of its jobs."""
    global _worker_context
    _worker_context = context
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _examine_batch(batch: list[Job]) -> list[tuple[Any, ...]]:
    """Return what each verdict says besides its job, which the parent has: pickling it costs as much as all else."""
    return [tuple(examine(job, _worker_context)[1:]) for job in batch]
