"""Files that are whole or not there.

    with replacing(path) as partial:
        ...write the file `partial`...

The partial file lies in the same folder, is flushed to the disk and renamed over the old one: a process
killed at any moment leaves the old file or the new one. Folders are made if need be.
"""
import glob
import os
from contextlib import contextmanager
from pathlib import Path


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
