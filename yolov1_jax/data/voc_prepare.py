"""Prepares Pascal VOC for `tfds.data_source`, without TensorFlow.

It is written as array_record where tensorflow_datasets itself would write it, so that plain
`tfds.data_source("voc/2012", ...)` reads it.
"""

import contextlib
import fcntl
import io
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from tensorflow_datasets.object_detection import voc as tfds_voc

from yolov1_jax.data.voc_archives import Archive, archives_of, fetch
from yolov1_jax.data.voc_builder import ArchiveVoc
from yolov1_jax.errors import UserError

YEARS = tuple(config.name for config in tfds_voc.Voc.BUILDER_CONFIGS)


def prepare_voc(years: Sequence[str], data_dir: str | os.PathLike[str] | None = None) -> None:
    """Prepares the given years in `data_dir` where that has not been done yet.

    The archives come from `<data_dir>/downloads/manual`, where missing ones are downloaded to.
    They stay there, and may be deleted afterwards. VOC2012test.tar, which has no annotations, is
    not asked for; where it is present, the split "test" of 2012 is prepared with the others.

    Interrupted at any point, it starts again where it was: with the partial download, or with the
    writing. It may be called by any number of processes: one does the work, the others wait.

    Args:
      years: of "2007" and "2012".
      data_dir: tensorflow_datasets' data folder; None is its default (`~/tensorflow_datasets` or
        the environment variable TFDS_DATA_DIR).

    Raises:
      UserError: an unknown year, an archive that is missing or is not the official one, a folder
        that cannot be written to, or too little space on the disk.
    """
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    for year in years:
        if year not in YEARS:
            raise UserError(f"expected a VOC year of {', '.join(YEARS)}, found {year!r}")
        builder = open_builder(year, data_dir)
        target = pathlib.Path(builder.data_dir)
        if _is_prepared(target):
            continue
        root = pathlib.Path(builder.data_dir_root)
        manual = root / "downloads" / "manual"
        try:
            manual.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            lock = (root / "downloads" / f"voc-{year}.lock").open("w")
        except OSError as error:
            raise UserError(
                f"cannot prepare voc/{year} in {root}: {error}; give a folder that can be written "
                "to, or one where it is prepared"
            ) from error
        with lock, _only_one_process(lock, f"voc/{year}", console):
            if not _is_prepared(target):
                _prepare(year, root, target, manual, console)


def open_builder(year: str, data_dir: str | os.PathLike[str] | None = None) -> Any:
    """tensorflow_datasets' own builder of a year; it prepares nothing."""
    if data_dir is not None and "://" in os.fspath(data_dir):
        raise UserError(f"expected a folder on this machine as VOC's data folder, found {data_dir}")
    directory = None if data_dir is None else pathlib.Path(data_dir).expanduser().absolute()
    try:
        return tfds.builder(f"voc/{year}", data_dir=directory)
    except Exception as error:  # of many kinds, such as a JSON file of its that is broken
        raise UserError(
            f"cannot open voc/{year} in {directory or 'the default data folder'}: "
            f"{one_line(error)}; delete its folder there to have it prepared again"
        ) from error


def one_line(error: Exception) -> str:
    """The message of an exception of tensorflow_datasets, which may fill a page."""
    return " ".join(str(error).split())[:500]


def _is_prepared(target: pathlib.Path) -> bool:
    return (target / "dataset_info.json").exists()  # the folder is renamed to this when complete


@contextlib.contextmanager
def _only_one_process(lock: Any, name: str, console: Console) -> Iterator[None]:
    """Waits for other processes; the system frees the lock of one that was killed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        console.print(f"Waiting for another process that prepares {name}")
        fcntl.flock(lock, fcntl.LOCK_EX)
    yield


def _prepare(
    year: str, root: pathlib.Path, target: pathlib.Path, manual: pathlib.Path, console: Console
) -> None:
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target}: expected a complete data set, found a part of one; delete it")
    archives = archives_of(year)
    if year == "2012" and not (manual / archives["test"].filename).exists():
        del archives["test"]
    _check_disk_space(year, root, list(archives.values()), manual)
    paths = {part: fetch(archive, manual, console) for part, archive in archives.items()}

    console.print(f"Preparing voc/{year} in {root}")
    # A folder of our own: what a killed process has left in it can be deleted safely, and the
    # data set appears under its name in one step.
    staging = root / "downloads" / f"voc-{year}-staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    builder = ArchiveVoc(config=year, data_dir=staging, file_format="array_record")
    builder.archives = paths
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        builder.track = lambda ids, split: progress.track(ids, description=f"Writing {split}")
        with _silent_tfds():
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    shutil.copytree(staging / "voc" / ".config", root / "voc" / ".config", dirs_exist_ok=True)
    pathlib.Path(builder.data_dir).rename(target)
    shutil.rmtree(staging)


def _check_disk_space(
    year: str, root: pathlib.Path, archives: list[Archive], manual: pathlib.Path
) -> None:
    # What is written is about as large as the archives: nearly all of both is JPEG files.
    missing = [a for a in archives if not (manual / a.filename).exists()]
    needed = sum(a.size for a in archives) + sum(a.size for a in missing)
    free = shutil.disk_usage(root).free
    if free < needed:
        raise UserError(
            f"preparing voc/{year} needs about {needed / 1e9:.1f} GB in {root}, found "
            f"{free / 1e9:.1f} GB free: free some space, or give another data folder"
        )


@contextlib.contextmanager
def _silent_tfds() -> Iterator[None]:
    """Without tensorflow_datasets' bars and its notes on stdout, which name the staging folder."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
