"""Whether a run may begin or go on: its data and configuration are those of the checkpoint, or it is refused."""
import hashlib

import numpy as np

from .checkpoint import CheckpointError


def fingerprint(dataset):
    """A digest of images and labels: a run resumes on the data it began with, or not at all."""
    digest = hashlib.blake2b(np.ascontiguousarray(dataset.images).data, digest_size=16)
    if dataset.labels is not None:
        digest.update(np.ascontiguousarray(dataset.labels).data)
    return digest.hexdigest()


def check_new(path):
    """Refuse to write over another run's checkpoint."""
    if path.exists():
        raise FileExistsError(f"{path} exists; go on with --resume (resume=True), or choose another --out")


def check_same(wanted, got, path):
    """Raise CheckpointError that lists every setting in which a resumed run differs from the one in the file."""
    def flat(tree, prefix=""):
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from flat(value, f"{prefix}{key}.")
            else:
                yield prefix + key, list(value) if isinstance(value, tuple) else value
    wanted, got = dict(flat(wanted)), dict(flat(got))
    free = ("data.source", "train.save_every", "distil.save_every")
    other = [f"{k} is {got.get(k)!r} in the file, {wanted.get(k)!r} now" for k in sorted(wanted.keys() | got.keys())
             if wanted.get(k) != got.get(k) and k not in free]
    if other:
        raise CheckpointError(f"{path} cannot be resumed under another configuration: {'; '.join(other)}")
