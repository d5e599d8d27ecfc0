"""Rows, bars and the machine as lines of text."""

HEAD = ("network", "what", "threads", "refdiff", "PyTorch", "its best layout", "ratio", "spread", "compiled", "GFLOP/s")


def time_of(seconds):
    """Seconds in a unit that leaves three figures to read."""
    if seconds is None:
        return "-"
    written = float(f"{seconds:.3g}")                   # 999.6 us are written as 1 ms
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if written >= size:
            return f"{seconds / size:.3g} {unit}" if written < 100 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def cells(row):
    """A row as HEAD names it."""
    what = row["kind"] if "op" not in row else f"{row['op']}, {row['direction']}"
    if row["precision"] != "float32":
        what += f", {row['precision']}"
    ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
    if row["kind"] == "memory":
        mib = [("-" if row[side] is None else f"{row[side]:.0f} MiB") for side in ("refdiff_mib", "torch_mib")]
        return (row["network"], "peak memory, train", str(row["threads"]), *mib, row["torch_layout"] or "-", ratio, "",
                "", "")
    rate = f"{row['gflops']:.0f} ({100 * row['of_peak']:.0f} %)" if "gflops" in row else ""
    return (row["network"], what, str(row["threads"]), time_of(row["refdiff_s"]), time_of(row["torch_s"]),
            row["torch_layout"] or "-", ratio, f"{100 * row['spread']:.0f} %",
            time_of(row["torch_all_s"]["compile"]) if "compile" in row["torch_all_s"] else "", rate)


def line(row):
    """One row on its own, for those who wait."""
    return "  ".join(filter(None, cells(row)))


def table(rows):
    """All rows under HEAD."""
    from ..verify import columns
    return columns([HEAD, *map(cells, rows)]) if rows else ["nothing was measured"]


def machine_lines(machine):
    """What it ran on: processor, libraries, kernels, sgemm."""
    peaks = [f"{threads} thread{'s' * (threads != '1')}: " + ", ".join(f"{side} {value:.0f}" for side, value in
                                                                      peak.items())
             for threads, peak in machine["sgemm_gflops"].items()]
    torch = [f"PyTorch {machine['torch']}, {machine['torch_capability']}, {machine['torch_blas']}"
             for _ in range("torch" in machine)]
    device = f"{machine['device']}; " if "device" in machine else ""
    return [f"{device}{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}",
            f"NumPy {machine['numpy']}, {machine['blas']}", *torch, f"kernels: {machine['isa']}",
            f"sgemm peak, GFLOP/s: {'; '.join(peaks)}"]


def warning(rows, limit=0.1):
    """A line where other programs computed too, as a list: threads that wait for one another suffer most."""
    busy = [row["others"] for row in rows if row.get("others") is not None]
    return [f"Other programs used up to {max(busy):.1f} cores, {sum(busy) / len(busy):.1f} in the mean, while this was "
            "measured: repeat it on an idle machine"] if busy and max(busy) > limit else []


def bar_lines(bars):
    """met, MISSED or not measured, the value and the limit of every bar."""
    said = {"met": "met", "missed": "MISSED", "not measured": "not measured"}
    return [f"{said[bar['verdict']]:<12} {'' if bar['value'] is None else format(bar['value'], '.2f'):>6} "
            f">= {bar['limit']:g}  {bar['claim']}" for bar in bars]
