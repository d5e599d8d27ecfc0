"""All that one `refdiff bench` measures: which contenders meet on what, and the rows that come of it."""
import importlib.util
import os
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from .. import __version__, backend
from ..parallel import slices
from . import statistics
from .machine import commit, host
from .measure import AGREEMENT, CannotRun, Contender, Rounds, agree, peak_memory, time_all
from .networks import NETWORKS
from .subjects import SGEMM, subjects

EAGER = ("contiguous", "channels_last")
PARTS = ("unet64", "ddpm-cifar10", "demo", "ops", "sweep")
VISITS = 3                      # that the rounds of a row are spread over, on a host


@dataclass(frozen=True)
class Settings:
    """What is asked for: parts, numbers of threads, rounds, and which PyTorch."""

    only: tuple = PARTS
    threads: tuple = (1, 2)
    rounds: int = 15
    isa: str = "native"
    torch: bool = True
    compile: bool = True
    quick: bool = False

    def __post_init__(self):
        unknown = [name for name in self.only if name not in PARTS]
        if unknown or not self.only:
            raise ValueError(f"bench: --only is {', '.join(self.only) or 'empty'}, wanted some of {', '.join(PARTS)}")
        if not self.threads or min(self.threads) < 1 or self.rounds < 1:
            raise ValueError(f"bench: threads {self.threads} and rounds {self.rounds}, wanted numbers >= 1")
        if self.torch and importlib.util.find_spec("torch") is None:
            raise ValueError("bench: PyTorch is not installed; pip install 'refdiff[bench]', or --no-torch for "
                             "refdiff's own times")

    @property
    def device(self):
        return "cpu" if backend.name() == "numpy" else "cuda"

    @property
    def counts(self):
        """Numbers of threads; one where a device does the work."""
        return self.threads if self.device == "cpu" else (1,)

    @property
    def precisions(self):
        return ("float32",) if self.device == "cpu" else ("float32", "tf32")

    @property
    def layouts(self):
        return (EAGER + ("compile",) * (self.compile and not self.quick)) if self.torch else ()


def contender(settings, label, group, name, threads, precision="float32"):
    """The Contender of one label: "refdiff", or a layout of PyTorch."""
    side = "refdiff" if label == "refdiff" else "torch"
    extra = {"REFDIFF_BACKEND": backend.name(), "REFDIFF_MATMUL": precision} if side == "refdiff" else {
        "REFDIFF_BACKEND": "numpy", "REFDIFF_MATMUL": "float32"}
    spec = {"side": side, "layout": label, "group": group, "name": name, "threads": threads, "precision": precision,
            "device": settings.device, "batch": batch_of(settings, name)}
    return Contender(label, spec, settings.isa, extra)


def batch_of(settings, name):
    """Images per step; None for what is no network."""
    case = NETWORKS.get(name)
    return case and (case.batch if settings.device == "cpu" else case.on_device)


@contextmanager
def meeting(settings, group, name, threads, precision="float32", layouts=None):
    """All contenders of one subject, refdiff first."""
    with ExitStack() as stack:
        labels = ("refdiff", *(settings.layouts if layouts is None else layouts))
        yield [stack.enter_context(contender(settings, label, group, name, threads, precision)) for label in labels]


def compare(contenders, kind, precision, folder, say):
    """(those that can do a kind, how far their answers are apart). A compiled PyTorch that fails is left out."""
    for one in list(contenders):
        if one.label == "compile":
            try:
                one.ask("check", kind=kind, path=f"{folder}/compile.npz")
            except CannotRun as error:
                say(f"torch.compile is left out: {error}")
                contenders = [c for c in contenders if c is not one]
    return contenders, agree(contenders, kind, folder, AGREEMENT[precision])


def visits(settings):
    """The numbers of rounds of every visit. One after the other, all rounds of a row take seconds, or a minute: less
    than a neighbour of this machine stays busy. So they are spread, and other rows have theirs between.
    """
    parts = slices(settings.rounds, VISITS if settings.device == "cpu" else 1)
    return [part.stop - part.start for part in parts]


def network_rows(settings, names, threads, precision, say):
    """train and sample of some networks, the peak memory of train, and on a device what its matrix products cost alone.

    On a host all of them are prepared before the first is timed; a device has one at a time.
    """
    where = {name: {"network": name, "threads": threads, "device": settings.device, "precision": precision,
                    "batch": batch_of(settings, name)} for name in names}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        met = {name: stack.enter_context(meeting(settings, "network", name, threads, precision)) for name in names}
        pids = [one.process.pid for everyone in met.values() for one in everyone]
        kinds = [(name, kind) for name in names for kind in ("train", "sample")]
        for some in [kinds] if settings.device == "cpu" else [[one] for one in kinds]:
            works = {}
            for name, kind in some:
                those, error = compare(met[name], kind, precision, folder, say)
                works[Rounds(those, kind, pids)] = {**where[name], "disagreement": error, "kind": kind}
            yield from rows_of(works, settings, say)
    for name in names if settings.device == "cpu" and not settings.quick else ():
        try:
            mib = peak_memory(lambda label: contender(settings, label, "network", name, threads),
                              ("refdiff", *(EAGER if settings.torch else ())))
        except CannotRun as error:
            say(f"peak memory is not measured: {error}")
            continue
        yield memory_row(mib, **where[name])


def rows_of(works, settings, say):
    """The rows of works, {Rounds: what its row says}: every visit gives each of them some rounds."""
    every = visits(settings)
    for visit, rounds in enumerate(every):
        if len(every) > 1:
            say(f"visit {visit + 1} of {len(every)}")
        for work, what in works.items():
            work.measure(rounds)
            if visit + 1 == len(every):
                row = statistics.row(work.seconds, others=work.cores(), **what)
                yield row if settings.device == "cpu" else with_gemms(row, work, settings)


def with_gemms(row, work, settings):
    """The row with the seconds of the network's matrix products alone, and their share."""
    gemms = time_all([work.contenders["refdiff"]], f"gemms {work.kind}", min(5, settings.rounds))["refdiff"]
    row["gemms_s"] = statistics.median(gemms)
    row["gemm_share"] = row["gemms_s"] / row["refdiff_s"]
    return row


def memory_row(mib, **where):
    """A row of kind "memory": MiB that training adds at its peak; PyTorch's lower layout counts."""
    best = min((label for label in mib if label != "refdiff"), key=mib.get, default=None)
    return {**where, "kind": "memory", "refdiff_mib": mib["refdiff"], "torch_mib": mib.get(best), "torch_layout": best,
            "ratio": mib[best] / mib["refdiff"] if best else None}


def machine(settings, say):
    """The machine block: host, libraries, and both sides' sgemm peaks at every number of threads."""
    found = {**host(), "isa": settings.isa, "sgemm_gflops": {}}
    for threads in settings.counts:
        with meeting(settings, "ops", "sgemm", threads, layouts=EAGER[:1] * settings.torch) as everyone:
            for one in everyone:
                found.update(one.ask("about"))
            seconds = time_all(everyone, "sgemm", max(5, settings.rounds))
            one = 2 * SGEMM[settings.device] ** 3                # a product in all of PyTorch, and per thread of ours
            found["sgemm_gflops"][str(threads)] = {
                side: one * (threads if side == "refdiff" else 1) / min(s) / 1e9
                for side, s in zip(("refdiff", "torch"), seconds.values())}
    return found


def bench(settings, say=lambda line: None, save=lambda results: None):
    """{refdiff, commit, machine, settings, rows}: everything, by number of threads; save(results) after every row."""
    results = {"refdiff": __version__, "commit": commit(), "machine": machine(settings, say), "rows": [],
               "settings": {"only": settings.only, "threads": settings.threads, "rounds": settings.rounds,
                            "isa": settings.isa, "quick": settings.quick, "device": settings.device,
                            "torch": settings.torch, "compile": "compile" in settings.layouts,
                            "environment": {name: value for name, value in os.environ.items()
                                            if name.startswith("REFDIFF_")}}}
    for threads in settings.counts:
        peak = max(results["machine"]["sgemm_gflops"].get(str(threads), {"": None}).values())
        for row in rows_at(settings, threads, peak, say):
            results["rows"].append(row)
            say(row)
            save(results)
    return results


def rows_at(settings, threads, peak, say):
    """All rows of a number of threads, in the order of PARTS."""
    names = [name for name in PARTS if name in NETWORKS and name in settings.only]
    for some in [names] if settings.device == "cpu" else [[name] for name in names]:
        for precision in settings.precisions:
            yield from network_rows(settings, some, threads, precision, say)
    for part in ("ops", "sweep") if settings.device == "cpu" else ():
        if part in settings.only:
            yield from subject_rows(settings, part, threads, peak, say)


def subject_rows(settings, part, threads, peak, say):
    """Rows of single operations, or of the sweep: many small subjects, one meeting for all of them."""
    where = {"threads": threads, "device": settings.device, "precision": "float32"}
    every = [(subject, direction) for subject in subjects(part, settings.quick) for direction in subject.directions]
    with meeting(settings, "ops", part, threads, layouts=EAGER if settings.torch else ()) as everyone, \
            tempfile.TemporaryDirectory() as folder:
        works = {}
        for subject, direction in every:
            work = Rounds(everyone, f"{subject.label}: {direction}")
            works[work] = {"disagreement": agree(everyone, work.kind, folder), "network": subject.network,
                           "kind": subject.kind, "op": subject.name, "direction": direction, **subject.facts, **where}
        for row, (subject, direction) in zip(rows_of(works, settings, say), every):
            yield with_work(row, subject.flops(direction), peak)


def with_work(row, work, peak):
    """The row with its GFLOP/s, where its operations are counted."""
    if work:
        row["gflops"], row["of_peak"] = work / row["refdiff_s"] / 1e9, work / row["refdiff_s"] / 1e9 / peak
        if row["torch_s"]:
            row["torch_gflops"] = work / row["torch_s"] / 1e9
    return row
