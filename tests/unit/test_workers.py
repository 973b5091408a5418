"""Files are examined by several processes as by one, and what goes wrong in one of them is told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from installer_stub.errors import EnvironmentUnfit, PackError
from pack import workers
from pack.examine import Context, Examined, Job

FILES = 700  # of which a worker takes 256 at once


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    for number in range(FILES):
        (tmp_path / f"f{number:03}").write_bytes(b"%d of %b" % (number, os.fsencode(tmp_path)))
    return tmp_path


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the processes that are started."""
    processes: list[int] = []
    real = os.fork

    def noted() -> int:
        process = real()
        processes.append(process)
        return process

    monkeypatch.setattr(os, "fork", noted)
    return processes


def are_gone(processes: list[int]) -> bool:
    return not any(Path(f"/proc/{process}").exists() for process in processes)


def begun(prefix: Path, processes: int, counts: list[int]) -> Iterator[Examined]:
    jobs = [Job(path.name.encode(), path.stat().st_size, 0) for path in sorted(prefix.iterdir())]
    root = os.fsencode(prefix)
    return workers.examined(jobs, Context(root, (root,)), processes, counts.append)


def examined(prefix: Path, processes: int, counts: list[int] | None = None) -> list[Examined]:
    return list(begun(prefix, processes, counts if counts is not None else []))


@pytest.mark.parametrize("processes", [2, 3, 16])
def test_several_find_what_one_finds(prefix: Path, processes: int) -> None:
    counts: list[int] = []
    alone = examined(prefix, 1)
    assert [len(verdict.references) for verdict in alone] == [1] * FILES
    assert examined(prefix, processes, counts) == alone
    assert sum(counts) == sum(path.stat().st_size for path in prefix.iterdir())


def test_where_there_may_be_no_more_processes_one_does_it(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise BlockingIOError("no more processes")

    alone = examined(prefix, 1)
    monkeypatch.setattr(os, "fork", refused)
    assert examined(prefix, 2) == alone


def test_an_error_of_one_is_an_error_of_all(prefix: Path, forked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(job: Job, context: Context) -> Examined:
        raise EnvironmentUnfit(f"{job.path!r} is damaged", "Mend it.")

    monkeypatch.setattr(workers, "examine", damaged)
    with pytest.raises(EnvironmentUnfit, match=r"f000.*damaged") as error:
        examined(prefix, 2)
    assert error.value.tip == "Mend it."
    assert "in damaged" in str(error.value.__cause__)
    assert len(forked) == 2
    assert are_gone(forked)


def test_an_error_of_the_system_is_not_taken_for_the_end_of_a_process() -> None:
    def work(name: str) -> bytes:
        return Path(name).read_bytes()

    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(workers.mapped(work, ["/dev/null", "/nowhere", "/dev/null"], 2))


def test_what_comes_is_in_the_order_of_the_items() -> None:
    def work(number: int) -> tuple[int, int]:
        time.sleep(0.05 if number % 3 == 0 else 0)
        return number, os.getpid()

    came = list(workers.mapped(work, range(12), 3))
    assert [number for number, _ in came] == list(range(12))
    assert os.getpid() not in {process for _, process in came}
    assert len({process for _, process in came}) > 1


def test_one_that_is_killed_is_missed(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(job: Job, context: Context) -> Examined:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    monkeypatch.setattr(workers, "examine", killed)
    with pytest.raises(PackError, match="ended before its time"):
        examined(prefix, 2)


def test_none_is_left_where_nobody_wants_the_rest(prefix: Path, forked: list[int]) -> None:
    found = begun(prefix, 2, [])
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert len(forked) == 2
    assert are_gone(forked)
