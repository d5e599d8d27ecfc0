"""What all foreign files hold: tensors by name; and the error that says what is wrong with one."""
import numpy as np


class ForeignError(ValueError):
    """A file of another library that cannot be used: damaged, of another form, or asking for code to be run."""


def widen_bfloat16(bits):
    """The float32 numbers whose upper halves are these uint16: bfloat16 is float32 cut after 16 bits, so none is lost.
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)
