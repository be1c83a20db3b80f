"""Runs a chain of grain datasets in threads or worker processes, and ends them again."""

import multiprocessing
import os
import signal
import threading
import weakref
from types import TracebackType
from typing import Self

import cv2
import grain
import numpy as np
from absl import flags

Batch = dict[str, np.ndarray]

_MAX_THREADS = 8  # without workers; each works on a batch of its own


class Batches:
    """An iterator over the batches of a grain dataset. Close it, best by a `with` statement."""

    def __init__(self, dataset: grain.MapDataset, num_workers: int) -> None:
        # Parallel are the images here; OpenCV's own threads would only get in the way.
        cv2.setNumThreads(0)
        self._in_workers = num_workers > 0
        if self._in_workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # grain asks for them; in a notebook nobody parsed any
            batches = dataset.to_iter_dataset(
                grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
            ).mp_prefetch(
                grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2),
                worker_init_fn=_start_worker,
            )
        else:
            threads = min(_MAX_THREADS, os.cpu_count() or 1)
            batches = dataset.to_iter_dataset(
                grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
            )
        iterator = iter(batches)
        self._iterator = iterator
        # Also run at the exit of the interpreter, while the modules that closing needs still exist.
        self._close = weakref.finalize(self, iterator.close)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        batch = next(self._iterator)
        if self._in_workers:
            # Out of shared memory, which lives and dies with the loader.
            batch = {name: np.array(array) for name, array in batch.items()}
        return batch

    def close(self) -> None:
        """Ends threads and worker processes; `next` must not be called any more."""
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


def _start_worker(worker_index: int, worker_count: int) -> None:
    """Prepares a worker process. It lives exactly as long as the process that feeds on it."""
    del worker_index, worker_count
    cv2.setNumThreads(0)
    # Ctrl-C and schedulers signal all processes of a job. The run still needs its batches then, to
    # come to a step at which it can save.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    """Else a run ended by SIGKILL would leave its workers behind, waiting."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
