"""A file of weights, whatever its format: what its first bytes say decides, not its name."""
from pathlib import Path

from . import safetensors, torch_zip
from .tensors import ForeignError


def load(path, key=None):
    """({name: array}, {key: text}): tensors and metadata of a .safetensors file or of a torch zip checkpoint.

    key: which table of a torch checkpoint that holds several, such as "ema". Nothing in the file is executed. Raises
    ForeignError for other formats, by name, and for damaged files; OSError if the file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        raise ForeignError(f"{path}: is a folder, wanted the file of weights in it, such as "
                           "diffusion_pytorch_model.safetensors")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file, wanted one of weights: .safetensors or a torch zip checkpoint")
    with open(path, "rb") as file:
        head = file.read(512)
    if head[:4] == b"PK\x03\x04":
        return torch_zip.read(path, key)
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        raise ForeignError(f"{path}: is an HDF5 file; if refdiff wrote it, it needs no import")
    if head[257:262] == b"ustar" or head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        kind = "a tar archive" if head[257:262] == b"ustar" else "a bare pickle"
        raise ForeignError(f"{path}: is {kind}, torch's form before 1.6, which is not read; save it again with "
                           "torch >= 1.6, or as safetensors")
    if key:
        raise ForeignError(f"{path}: key {key!r} belongs to torch checkpoints; a safetensors file has one table")
    return safetensors.read(path)
