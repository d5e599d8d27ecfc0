"""What is promised of the rows, and whether they keep it.

Ratios are PyTorch's best eager layout over refdiff, of the same run and in float32; of memory, PyTorch's peak over
refdiff's. What was not measured is said to be so, and is neither kept nor broken.
"""
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """ratio >= least, of the row of a network, a kind and a number of threads (0: any); device: on a GPU."""

    network: str
    kind: str
    threads: int
    least: float
    device: bool = False
    precision: str = "float32"
    of: str = "ratio"

    @property
    def claim(self):
        at = "on a device, " + self.precision if self.device else f"{self.threads or 'any'} thread" + "s" * (
            self.threads != 1)
        what = {"ratio": self.kind, "gemm_share": f"{self.kind}: its GEMMs alone, share of its time"}[self.of]
        return f"{self.network}: {what}, {at}"


BARS = tuple(
    [Bar("unet64", "train", 1, 1.4), Bar("unet64", "train", 2, 1.5), Bar("unet64", "sample", 1, 1.1),
     Bar("unet64", "sample", 2, 1.1), Bar("ddpm-cifar10", "train", 1, 1.5), Bar("ddpm-cifar10", "train", 2, 1.5),
     Bar("demo", "train", 1, 1.0), Bar("demo", "train", 2, 1.0)]
    + [Bar(network, "memory", threads, 1.0) for network in ("unet64", "ddpm-cifar10", "demo") for threads in (1, 2)]
    + [Bar("sweep", "sweep", 1, 0.7), Bar("sweep", "sweep", 2, 0.7)]
    + [Bar("ddpm-cifar10", kind, 0, least, True, precision, of) for kind in ("train", "sample")
       for precision in ("float32", "tf32") for least, of in ((0.8, "ratio"), (0.6, "gemm_share"))])


def verdicts(rows, bars=BARS):
    """[{claim, value, limit, verdict}] with verdict "met", "missed" or "not measured"; of several rows the lowest."""
    found = []
    for bar in bars:
        values = [row[bar.of] for row in rows
                  if (row["network"], row["kind"]) == (bar.network, bar.kind) and row.get(bar.of) is not None
                  and bar.threads in (0, row["threads"]) and bar.device == (row["device"] != "cpu")
                  and row["precision"] == bar.precision]
        value = min(values, default=None)
        verdict = "not measured" if value is None else "met" if value >= bar.least else "missed"
        found.append({"claim": bar.claim, "value": value, "limit": bar.least, "verdict": verdict})
    return found
