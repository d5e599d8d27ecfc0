"""Files that are whole or not there.

    with replacing(path) as partial:
        ...write the file `partial`...

The partial file lies in the same folder, is flushed to the disk and renamed over the old one: a process
killed at any moment leaves the old file or the new one. Folders are made if need be.
"""
import glob
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import h5py


@contextmanager
def replacing(path):
    """The path to write to in place of `path`; renamed to it when the block ends, removed if the block fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in glob.glob(glob.escape(str(path.parent / f".{path.name}.")) + "*.partial"):
        os.unlink(stale)                                       # left by a process that was killed while writing
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        _to_disk(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _to_disk(path.parent)                                      # the rename itself


@contextmanager
def writing(path):
    """A new HDF5 file, for h5py to fill. A disk that is full is an OSError also where HDF5 finds out on closing."""
    try:
        with h5py.File(path, "w") as file:
            yield file
    except RuntimeError as error:
        raise OSError(f"{path}: cannot be written ({error}); is the disk full?") from error


def check_writable(path):
    """Raise OSError, before the work whose result `path` will hold, unless a file can be made in its folder."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"{path}: cannot be written, {path.parent}: {error.strerror}; choose another place") from error
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, wanted the name of a file")


def write(path, content):
    """Write bytes or text as one file; returns its path."""
    with replacing(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def _to_disk(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
