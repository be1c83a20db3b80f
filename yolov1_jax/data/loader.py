"""Runs a chain of grain datasets in threads or worker processes, and ends them again."""

import multiprocessing
import os
import signal
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Self

import cv2
import grain
import numpy as np
from absl import flags

Batch = dict[str, np.ndarray]

_MAX_THREADS = 8  # without workers; each works on a batch of its own
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Batches:
    """An iterator over the batches of a grain dataset. Close it, best by a `with` statement.

    It starts at once and stays a batch ahead.

    Args:
      dataset: of dicts of arrays; endless. (At an end, grain's exceptions and frames would hold
        each other, and with them a batch of each worker, whose shared memory would stay behind at
        the exit of the interpreter.)
      num_workers: processes that make the batches; 0: threads of this process.
      num_batches: to stop after; None never stops.
    """

    def __init__(
        self, dataset: grain.MapDataset, num_workers: int, num_batches: int | None = None
    ) -> None:
        if num_workers > 0:
            batches = _in_workers(dataset, num_workers)
            resource_tracker.ensure_running()  # its start would let the signals through again
        else:
            batches = _in_threads(dataset)
        # Ctrl-C and schedulers signal all processes of a job, and the run still needs batches then,
        # to come to a step at which it can save. Workers ignore the signals; so that they do not
        # fall before they can say so, they inherit from this thread that signals are held back.
        self._reader = ThreadPoolExecutor(1, "batches")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            iterators = [self._reader.submit(iter, batches).result()]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._iterators = iterators  # empty once closed
        self._next = self._reader.submit(_read, iterators)
        self._num_left = num_batches
        # Also run at the exit of the interpreter, while the modules that closing needs still exist.
        self._close = weakref.finalize(self, _end, self._reader, iterators)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if not self._iterators:
            raise ValueError("these batches are closed")
        if self._num_left == 0:
            raise StopIteration
        batch = self._next.result()
        if self._num_left is not None:
            self._num_left -= 1
        if self._num_left != 0:
            self._next = self._reader.submit(_read, self._iterators)
        return batch

    def close(self) -> None:
        """Ends threads and worker processes. May be called twice."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _in_threads(dataset: grain.MapDataset) -> grain.IterDataset:
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    return dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    )


def _in_workers(dataset: grain.MapDataset, num_workers: int) -> grain.IterDataset:
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain asks for them; in a notebook nobody has parsed any
    return dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    ).mp_prefetch(
        grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2),
        worker_init_fn=_start_worker,
    )


def _read(iterators: list[grain.DatasetIterator]) -> Batch:
    batch = next(iterators[0])
    # Arrays of workers lie in shared memory, which lives and dies with the loader: copied.
    return {
        name: array if type(array) is np.ndarray else np.array(array)
        for name, array in batch.items()
    }


def _end(reader: ThreadPoolExecutor, iterators: list[grain.DatasetIterator]) -> None:
    reader.shutdown(cancel_futures=True)
    # Forgotten too, because an iterator of grain closes itself again when it is deleted, which at
    # the exit of the interpreter may be too late.
    while iterators:
        iterators.pop().close()


def _start_worker(worker_index: int, worker_count: int) -> None:
    """Prepares a worker process. It lives exactly as long as the process that feeds on it."""
    del worker_index, worker_count
    # One thread per worker. Not in the process of the run: OpenCV can crash where the number of its
    # threads is changed while another thread is at work in it.
    cv2.setNumThreads(0)
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Else a run ended by SIGKILL would leave its workers behind, waiting."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
