"""Runs a chain of grain datasets in threads or worker processes, and ends them again."""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker

import cv2
import grain
import numpy as np
from absl import flags

Batch = dict[str, np.ndarray]


class Batches(Iterator[Batch], contextlib.AbstractContextManager):
    """An iterator over the batches of a grain dataset, to be closed by a `with` statement.

    It starts at once and stays a batch ahead.

    Args:
      dataset: of dicts of arrays, endless: at an end, grain keeps a batch of each worker alive, and
        its shared memory would remain after the exit of the interpreter.
      num_workers: as for `train_batches`; at most one for each CPU is started.
      num_batches: to stop after.
    """

    def __init__(
        self, dataset: grain.MapDataset, num_workers: int, num_batches: float = math.inf
    ) -> None:
        num_workers = min(num_workers, os.cpu_count() or 1)
        threads = 1 if num_workers else min(8, os.cpu_count() or 1)  # each makes a whole batch
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        batches = dataset.to_iter_dataset(options)
        if num_workers:
            flags.FLAGS.mark_as_parsed()  # grain reads flags of its own
            batches = batches.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2),
                worker_init_fn=_start_worker,
            )
            resource_tracker.ensure_running()  # its start would let the signals through again
        # Ctrl-C and schedulers signal all processes of a job, and the run still needs batches then,
        # to reach a step at which it can save. So the signals are blocked in this thread while it
        # starts the reader: the reader inherits that, and the workers from the reader.
        self._reader = ThreadPoolExecutor(1, "batches")
        with _signals_blocked():
            self._iterators = [self._reader.submit(iter, batches).result()]
        self._next = self._reader.submit(_read, self._iterators)
        self._num_left = num_batches
        # Also runs at the exit of the interpreter, while the modules that it needs still exist.
        self._close = weakref.finalize(self, _end, self._reader, self._iterators)

    def __next__(self) -> Batch:
        if self._num_left == 0:
            raise StopIteration
        batch = self._next.result()
        self._num_left -= 1
        if self._num_left > 0:
            self._next = self._reader.submit(_read, self._iterators)
        return batch

    def __exit__(self, *error: object) -> None:
        """Ends threads and worker processes."""
        self._close()


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _read(iterators: list[grain.DatasetIterator]) -> Batch:
    # Arrays of workers lie in shared memory, which the loader frees: copied.
    return {name: np.array(array) for name, array in next(iterators[0]).items()}


def _end(reader: ThreadPoolExecutor, iterators: list[grain.DatasetIterator]) -> None:
    reader.shutdown(cancel_futures=True)
    # Deleted here too: an iterator of grain closes itself again when it is deleted, which at the
    # exit of the interpreter may be too late.
    while iterators:
        iterators.pop().close()


def _start_worker(worker_index: int, worker_count: int) -> None:
    # One thread per worker. Not in the process of the run: OpenCV can crash if the number of its
    # threads is changed while another thread uses it.
    cv2.setNumThreads(0)
    parent = multiprocessing.parent_process()

    def exit_with_parent() -> None:  # or a run that is ended by SIGKILL would leave it behind
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
