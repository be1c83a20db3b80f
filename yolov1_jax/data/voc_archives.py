"""The official VOC archives: where they come from, downloading them, and their checksums.

Address, size and sha256 of each archive are those that tensorflow_datasets has registered for its
`voc` builder. An archive is looked for in tensorflow_datasets' folder for manual downloads, under
its official file name; a missing one is downloaded into it. Archives are only ever read.
"""

import dataclasses
import hashlib
import http.client
import pathlib
import urllib.request
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from tensorflow_datasets.object_detection import voc as tfds_voc

from yolov1_jax.errors import UserError

_CHUNK = 1 << 20  # bytes
_TIMEOUT = 60  # seconds without a byte


@dataclasses.dataclass(frozen=True)
class Archive:
    """What is known of an archive before it is there."""

    filename: str
    url: str
    size: int  # bytes
    sha256: str  # hexadecimal

    def __str__(self) -> str:
        return f"{self.filename} ({self.size} bytes, sha256 {self.sha256})"


def archives_of(year: str) -> dict[str, Archive]:
    """The archives of "2007" or "2012" by what is in them: "trainval" and "test"."""
    by_filename = {
        info.filename: Archive(info.filename, url, int(info.size), info.checksum)
        for url, info in tfds_voc.Voc.url_infos.items()
    }
    config = next(c for c in tfds_voc.Voc.BUILDER_CONFIGS if c.name == year)
    return {part: by_filename[filename] for part, filename in config.filenames.items()}


def fetch(archive: Archive, folder: pathlib.Path, console: Console) -> pathlib.Path:
    """The archive in `folder`, downloaded if it is not there yet, with its checksum verified.

    An interrupted download is continued: its bytes are in `<filename>.part`.

    Raises:
      UserError: the archive cannot be downloaded, or it is not the official one.
    """
    path = folder / archive.filename
    if path.exists():
        fault = _fault(archive, path, console)
        if fault:
            raise UserError(
                f"{path}: {fault}; delete it to have it downloaded again, or put the official "
                "archive in its place"
            )
        return path
    part = folder / f"{archive.filename}.part"
    _download(archive, part, console)
    fault = _fault(archive, part, console)
    if fault:
        part.unlink()  # continuing it could not mend it
        raise UserError(
            f"download of {archive.url}: {fault}; run again to retry, or put the official archive "
            f"into {folder}"
        )
    return part.rename(path)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


def _fault(archive: Archive, path: pathlib.Path, console: Console) -> str:
    """What is wrong with the file, or ""."""
    size = path.stat().st_size
    if size != archive.size:
        return f"expected {archive.size} bytes, found {size}"
    digest = hashlib.sha256()
    with path.open("rb") as file, _progress(console) as progress:
        task = progress.add_task(f"Verifying {archive.filename}", total=size)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            progress.advance(task, len(chunk))
    if digest.hexdigest() != archive.sha256:
        return f"expected sha256 {archive.sha256}, found {digest.hexdigest()}"
    return ""


def _download(archive: Archive, part: pathlib.Path, console: Console) -> None:
    """Completes `part`. After a broken connection it goes on, as long as each one brings bytes."""
    if _size(part) > archive.size:
        part.unlink()
    console.print(f"Downloading {archive.url} ({archive.size / 1e6:.0f} MB) to {part.parent}")
    with _progress(console) as progress:
        task = progress.add_task(archive.filename, total=archive.size)
        while (start := _size(part)) < archive.size:
            reason = "the server closed the connection"
            try:
                for size in _receive(archive.url, part, start, archive.size):
                    progress.update(task, completed=size)
            except (OSError, http.client.HTTPException) as error:
                reason = str(error) or type(error).__name__
            if _size(part) <= start:
                raise UserError(
                    f"{archive} is not in {part.parent} and could not be downloaded from "
                    f"{archive.url}: {reason}; put it there, or run again to continue the download"
                )


def _receive(url: str, part: pathlib.Path, start: int, end: int) -> Iterator[int]:
    """One connection: appends to `part` from byte `start` and yields its size as it grows.

    It stops after byte `end`, in case the server sends something else that never does.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        size = start if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        with part.open("ab") as file:
            file.truncate(size)  # a server that cannot continue sends all of it again
            while size <= end and (chunk := response.read(_CHUNK)):
                file.write(chunk)
                size += len(chunk)
                yield size


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.exists() else 0
