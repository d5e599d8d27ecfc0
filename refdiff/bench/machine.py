"""The environment of the contenders, and what they ran on."""
import os
import platform
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# What makes a library choose other kernels than the processor's best.
KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",
           "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "MKL_CBWR")
AVX2 = {"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
ISAS = ("native", "avx2", "asis")


def environment(isa, threads, base=None):
    """The variables of a contender's process.

    native: nothing pinned, each library picks its best kernels; avx2: every library held to AVX2; asis: untouched,
    but for the numbers of threads, which are part of what is measured.
    refdiff's threads are Python's, with one BLAS thread each; `threads` is for PyTorch's, and 1 for refdiff's process.
    """
    if isa not in ISAS:
        raise ValueError(f"bench: isa is {isa!r}, wanted one of {', '.join(ISAS)}")
    env = dict(os.environ if base is None else base)
    if isa != "asis":
        env = {name: value for name, value in env.items() if name not in KERNELS}
    env.update({name: str(threads) for name in THREADS}, **(AVX2 if isa == "avx2" else {}))
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
    return env


def processor():
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def host():
    """The machine, without the libraries."""
    return {"cpu": processor(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version()}


def commit(folder=ROOT / "refdiff"):
    """The git commit of a folder, "+changes" behind it where its files differ; None where git does not know them."""
    def git(*words):
        return subprocess.run(["git", "--no-optional-locks", "-C", str(folder), *words], capture_output=True, text=True,
                              check=True).stdout.strip()
    try:
        git("ls-files", "--error-unmatch", "__init__.py")           # an installed copy may lie in another's checkout
        return git("rev-parse", "HEAD") + "+changes" * bool(git("status", "--porcelain", "."))
    except (OSError, subprocess.CalledProcessError):
        return None


def about_numpy():
    """{numpy, blas}: versions, and which kernels the BLAS chose, as threadpoolctl reads them."""
    import numpy
    import threadpoolctl
    libraries = [lib for lib in threadpoolctl.threadpool_info() if lib.get("user_api") == "blas"]
    own = [lib for lib in libraries if "numpy" in lib["filepath"]] or libraries     # SciPy's wheel brings another
    blas = [f"{lib.get('internal_api')} {lib.get('version')}, {lib.get('architecture') or 'kernels not told'}"
            for lib in own]
    return {"numpy": numpy.__version__, "blas": "; ".join(blas) or "not told"}


def about_torch():
    """{torch, torch_capability, torch_blas}, and the device where there is one."""
    import torch
    said = torch.__config__.show().splitlines()
    libraries = [line.strip(" -") for line in said if "Math Kernel Library" in line or "MKL-DNN" in line]
    device = {"device": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {**device, "torch": torch.__version__, "torch_capability": torch.backends.cpu.get_cpu_capability(),
            "torch_blas": "; ".join(libraries)}


# ---- who else computes

class Others:
    """How many cores programs other than these processes, and those they forked, use from now on."""

    def __init__(self, pids):
        self.pids = pids
        self.start = self._now()

    def cores(self):
        """Their mean number since the start, or None where /proc does not tell."""
        now = self._now()
        if now is None or self.start is None or now[0] <= self.start[0]:
            return None
        wall, busy, own = (b - a for a, b in zip(self.start, now))
        return max(0.0, (busy - own) / wall)

    def _now(self):
        """(seconds, of processors at work, of our processes at work)."""
        try:
            tick = os.sysconf("SC_CLK_TCK")
            user, nice, system, _, _, irq, softirq, steal = map(
                int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
            own = 0
            for pid in {p for known in self.pids for p in (known, *_children(known))}:
                own += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
            return time.monotonic(), (user + nice + system + irq + softirq + steal) / tick, own / tick
        except (OSError, ValueError):
            return None


# ---- memory

class Memory:
    """What this process and those it forked hold from now on, by /proc; OSError where that does not tell.

    added(): MiB at their peaks over what was resident at the start. What they share counts once, in this process, and
    what another process had from this one when it was forked does not; watch() is to follow the forks.
    """

    def __init__(self):
        self.start = {}
        self._from(os.getpid())

    def watch(self):
        """Follow the processes that were forked by now too."""
        for pid in _children(os.getpid()):
            if pid not in self.start:
                self._from(pid)

    def _from(self, pid):
        self.start[pid] = _status(pid)
        try:
            Path(f"/proc/{pid}/clear_refs").write_text("5")             # the peak starts anew
        except OSError:
            pass                                                        # else importing may have been the peak

    def added(self):
        found = 0
        for pid, before in self.start.items():
            now = _status(pid)
            shared = 0 if pid == os.getpid() else now["RssShmem"] - before["RssShmem"]
            found += now["VmHWM"] - before["VmRSS"] - shared
        return found / 1024


def _status(pid):
    """{name: KiB} of a process."""
    lines = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(value.split()[0]) for name, value in lines if value.strip().endswith("kB")}


def _children(pid):
    """The processes that a process started."""
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()]
