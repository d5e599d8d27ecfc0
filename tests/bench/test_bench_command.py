"""What a run says: turns, statistics, bars, rows, pictures, and what is refused."""
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from refdiff import __version__
from refdiff.bench import bars, child, machine, measure, pictures, run, statistics, subjects, table
from refdiff.bench.task import Task
from refdiff.cli import main


class Timed:
    """A contender that says how long its steps take, and notes who was asked for what."""

    def __init__(self, label, name="this", asked=None, seconds=lambda: 1.0):
        self.label, self.spec, self.seconds = label, {"name": name}, seconds
        self.process, self.asked = SimpleNamespace(pid=0), [] if asked is None else asked

    def ask(self, do, kind, repeat, lead):
        assert do == "time"
        self.asked.append((self.spec["name"], self.label, kind, repeat, lead))
        return {"seconds": self.seconds()}


@pytest.mark.parametrize("slow,repeat", [(0.2, {"a": 3, "b": 1}), (0.05, {"a": 3, "b": 1}), (0.04, {"a": 3, "b": 2})])
def test_contenders_take_turns_short_steps_are_repeated_and_all_are_treated_alike(slow, repeat):
    asked, costs = [], iter([0.02, 0.01])                       # of a: its warm-up says 0.02
    those = [Timed("a", asked=asked, seconds=lambda: next(costs, 0.03)), Timed("b", asked=asked, seconds=lambda: slow)]
    work = measure.Rounds(those, "kind")
    work.measure(1)
    turn = [("this", label, "kind", repeat[label], measure.LEAD) for label in "ab"]     # a's are short: both lead
    warmup = [("this", label, "kind", 1, measure.LEAD) for label in "ab"]
    assert asked == warmup + turn and work.seconds == {"a": [0.01], "b": [slow]}
    work.measure(2)                                             # a's 0.03 does not change how often
    assert asked[4:] == warmup + turn * 2 and work.seconds == {"a": [0.01, 0.03, 0.03], "b": [slow] * 3}


def test_long_steps_are_measured_one_at_a_time():
    asked = []
    seconds = measure.time_all([Timed("a", asked=asked, seconds=lambda: 0.05)], "kind", 2)
    assert seconds == {"a": [0.05, 0.05]}
    assert asked == [("this", "a", "kind", 1, lead) for lead in (measure.LEAD, 0, 0)]


@pytest.mark.parametrize("lead,steps", [(0, 0), (0.1, 1), (0.5, 1), (0.6, 2), (1.0, 2)])
def test_steps_that_lead_are_not_counted(monkeypatch, lead, steps):
    now, taken = [0.0], iter([0.5] * steps + [0.25, 0.25, 0.75, 0.75])

    def step():
        done.append(len(done))
        now[0] += next(taken)

    done, one = [], object.__new__(child.Child)
    one.tasks = {"this": Task(step, dict)}
    monkeypatch.setattr(child.time, "perf_counter", lambda: now[0])
    assert one.time("this", 4, lead) == {"seconds": 0.5}
    assert len(done) == 4 + steps


def meetings(monkeypatch, asked):
    """Contenders as Timed, that agree; every step takes one second more than the one before."""
    count = iter(range(1, 10 ** 6))

    @contextmanager
    def meeting(settings, group, name, *args, **options):
        yield [Timed(label, name, asked, lambda: next(count)) for label in ("refdiff", "contiguous")]

    for name, fake in (("meeting", meeting), ("agree", lambda those, kind, *args: asked.append(kind) or 1e-6)):
        monkeypatch.setattr(run, name, fake)


def counted(asked):
    """(what, how often) refdiff was asked one after the other; single words are comparisons."""
    found = []
    for one in asked:
        what = one if isinstance(one, str) else (one[0], one[2]) if one[1] == "refdiff" else None
        if what and found and found[-1][0] == what:
            found[-1][1] += 1
        elif what:
            found.append([what, 1])
    return [tuple(one) for one in found]


def test_the_rounds_of_every_point_are_spread_over_visits(monkeypatch):
    asked, said = [], []
    meetings(monkeypatch, asked)
    rows = list(run.subject_rows(run.Settings(rounds=7, torch=False, quick=True), "sweep", 2, 100.0, said.append))
    kinds = [f"{s.label}: both" for s in subjects.subjects("sweep", quick=True)]
    assert counted(asked) == [(kind, 1) for kind in kinds] + [
        (("sweep", kind), 1 + rounds) for rounds in (2, 2, 3) for kind in kinds]
    assert [row["rounds"] for row in rows] == [7] * len(kinds) == [7] * 4 and len(said) == 3
    assert all(row["gflops"] > 0 and row["of_peak"] > 0 and row["disagreement"] == 1e-6 for row in rows)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_networks_are_prepared_first_and_visited_in_turn_on_a_host(monkeypatch, device):
    asked = []
    meetings(monkeypatch, asked)
    monkeypatch.setattr(run, "peak_memory", lambda *args: {"refdiff": 2.0, "contiguous": 3.0})
    monkeypatch.setattr(run.Settings, "device", device)
    rows = list(run.rows_at(run.Settings(only=("demo", "unet64"), rounds=7, torch=False), 2, 100.0, str))
    every = [(name, kind) for name in ("unet64", "demo") for kind in ("train", "sample")]
    if device == "cpu":
        assert counted(asked) == [("train", 1), ("sample", 1)] * 2 + [
            (one, 1 + rounds) for rounds in (2, 2, 3) for one in every]
        assert [(row["network"], row["kind"]) for row in rows] == every + [("unet64", "memory"), ("demo", "memory")]
    else:
        alone = [[(kind, 1), ((name, kind), 1 + 7), ((name, f"gemms {kind}"), 1 + 5)] for name, kind in every]
        assert counted(asked) == sum(alone[:2] * 2 + alone[2:] * 2, [])              # of a network, float32, then tf32
        assert len(rows) == 8 and all(row["gemm_share"] > 1 for row in rows)
    assert all(row["rounds"] == 7 and list(row["torch_all_s"]) == ["contiguous"] for row in rows if "rounds" in row)


def test_a_compiled_pytorch_that_fails_is_left_out_of_that_kind_alone(monkeypatch):
    class Failing(Timed):
        def ask(self, do, kind, **request):
            if do == "check" and kind == "train":
                raise measure.CannotRun("no compiler")
            return {} if do == "check" else super().ask(do, kind, **request)

    @contextmanager
    def meeting(*args):
        yield [Failing("refdiff") if label == "refdiff" else Failing(label) for label in ("refdiff", "compile")]

    said = []
    for name, fake in (("meeting", meeting), ("agree", lambda *args: 1e-6)):
        monkeypatch.setattr(run, name, fake)
    rows = run.network_rows(run.Settings(rounds=1, torch=False, quick=True), ["demo"], 1, "float32", said.append)
    assert [list(row["torch_all_s"]) for row in rows] == [[], ["compile"]]
    assert said == ["torch.compile is left out: no compiler"]


@pytest.mark.parametrize("group,device,kept", [("network", "cpu", 2), ("network", "cuda", 1), ("ops", "cpu", 1)])
def test_a_contender_keeps_both_tasks_of_a_network_on_the_host_alone(group, device, kept):
    made, one = [], object.__new__(child.Child)
    one.spec, one.tasks = {"group": group, "device": device}, {}
    one.side = SimpleNamespace(task=lambda kind: made.append(kind) or Task(kind, dict))
    for kind in ("train", "sample", "sample", "train"):
        assert one.at(kind).step == kind
    assert made == ["train", "sample", "train"][:4 - kept] and len(one.tasks) == kept


def test_median_and_spread_of_known_numbers():
    assert statistics.median([5.0, 1.0, 2.0]) == 2 and statistics.spread([1.0] * 7) == 0
    assert statistics.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((4 - 2) / 3)


def test_a_ratio_is_that_of_the_best_eager_layout_whatever_the_compiled_one_does():
    row = statistics.row({"refdiff": [2.0, 2.0, 2.0], "contiguous": [4.0, 4.0, 9.0], "channels_last": [3.0, 2.5, 3.0],
                          "compile": [1.0, 1.0, 1.0]}, network="n")
    assert (row["ratio"], row["torch_layout"], row["torch_s"], row["refdiff_s"]) == (1.5, "channels_last", 3.0, 2.0)
    assert row["torch_all_s"] == {"contiguous": 4.0, "channels_last": 3.0, "compile": 1.0}
    assert row["spread"] == pytest.approx(0.25 / 3) and row["rounds"] == 3
    alone = statistics.row({"refdiff": [2.0, 4.0]})
    assert alone["refdiff_s"] == 3 and alone["ratio"] is None and alone["torch_s"] is None


def test_disagreement_names_the_worst_array_and_forgives_what_is_zero_but_for_rounding():
    rng = np.random.default_rng(0)
    theirs = {"w": rng.standard_normal((30, 40)), "b": 1e-9 * rng.standard_normal(7)}
    ours = {"w": theirs["w"] * (1 + 3e-5), "b": -theirs["b"]}
    error, name = statistics.disagreement(ours, theirs)
    assert name == "w" and error == pytest.approx(3e-5, rel=0.02)
    ours["b"] = theirs["b"] + 1e-3
    assert statistics.disagreement(ours, theirs)[1] == "b"
    assert statistics.disagreement({"w": theirs["w"]}, theirs) == (np.inf, "b")
    assert statistics.disagreement({**theirs, "w": theirs["w"][:1]}, theirs) == (np.inf, "w")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_what_is_not_finite_disagrees_in_any_array_of_either_side(where, bad):
    """max() keeps its first argument where a later one is NaN."""
    right = {name: np.full(3, i + 1.0) for i, name in enumerate("cab")}
    wrong = {name: np.array([1, bad, 2]) if i == where else b for i, (name, b) in enumerate(right.items())}
    for pair in ((wrong, right), (right, wrong), (wrong, wrong)):
        assert statistics.disagreement(*pair) == (np.inf, "cab"[where])


class Answering:
    """A contender that answers with given arrays."""

    def __init__(self, label, **arrays):
        self.label, self.arrays = label, arrays

    def ask(self, do, kind, path):
        np.savez(path, **self.arrays)


def test_nothing_is_timed_before_the_gradients_agree(tmp_path):
    g = np.random.default_rng(0).standard_normal(50)
    assert measure.agree([Answering("refdiff", g=g), Answering("contiguous", g=g * (1 + 5e-5))], "train",
                         tmp_path) == pytest.approx(5e-5, rel=0.02)
    with pytest.raises(measure.Disagreement, match=r"contiguous\) differ by 0.00019\d* in conv.w|0.0002 in conv.w"):
        measure.agree([Answering("refdiff", **{"conv.w": g}), Answering("contiguous", **{"conv.w": g * 1.0002})],
                      "train", tmp_path)
    with pytest.raises(measure.Disagreement):
        measure.agree([Answering("refdiff", g=g), Answering("contiguous", g=g * np.nan)], "train", tmp_path)


def fake(network="unet64", kind="train", threads=1, ratio=1.5, **more):
    return {"network": network, "kind": kind, "threads": threads, "device": "cpu", "precision": "float32",
            "ratio": ratio, "spread": 0.04, "refdiff_s": 1.0, "torch_s": ratio, "torch_layout": "contiguous",
            "torch_all_s": {}, **more}


def test_bars_are_met_missed_or_not_measured():
    rows = [fake(ratio=1.4), fake(threads=2, ratio=1.49), fake("sweep", "sweep", ratio=0.9),
            fake("sweep", "sweep", ratio=0.69), fake(kind="sample", ratio=None),
            fake("ddpm-cifar10", ratio=0.81, device="cuda", precision="tf32", gemm_share=0.5)]
    found = {bar["claim"]: bar for bar in bars.verdicts(rows)}
    said = {claim: bar["verdict"] for claim, bar in found.items() if bar["verdict"] != "not measured"}
    assert said == {"unet64: train, 1 thread": "met", "unet64: train, 2 threads": "missed",
                    "sweep: sweep, 1 thread": "missed", "ddpm-cifar10: train, on a device, tf32": "met",
                    "ddpm-cifar10: train: its GEMMs alone, share of its time, on a device, tf32": "missed"}
    assert found["sweep: sweep, 1 thread"]["value"] == 0.69 and len(found) == len(bars.BARS)
    assert found["ddpm-cifar10: train, 1 thread"]["verdict"] == "not measured"


def test_the_environment_of_a_contender_pins_what_was_asked_for():
    base = {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_L2_SIZE": "512", "PATH": "/bin", "PYTHONPATH": "/mine"}
    native, avx2, asis = (machine.environment(isa, 2, base) for isa in machine.ISAS)
    assert "OPENBLAS_CORETYPE" not in native and "OPENBLAS_L2_SIZE" not in native and native["PATH"] == "/bin"
    assert avx2["OPENBLAS_CORETYPE"] == "Haswell" and avx2["ATEN_CPU_CAPABILITY"] == "avx2"
    assert asis["OPENBLAS_CORETYPE"] == "Nehalem" and base["PYTHONPATH"] == "/mine"
    for env in (native, avx2, asis):
        assert env["OMP_NUM_THREADS"] == env["OPENBLAS_NUM_THREADS"] == "2"
        assert env["PYTHONPATH"].split(os.pathsep)[1:] == ["/mine"]


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="no /proc of Linux")
def test_what_others_compute_is_seen_and_what_we_and_our_forks_compute_is_not_counted():
    nobody_is_us, we = machine.Others([]), machine.Others([os.getpid()])
    with subprocess.Popen([sys.executable, "-c", "while 1: pass"]) as busy:
        time.sleep(1)
        seen = nobody_is_us.cores() - we.cores()
        busy.kill()
    assert 0.15 < seen < 2                                      # a core, or what of it a loaded machine leaves


MEASURED = """
import mmap, os, sys
import numpy as np
from refdiff.bench.machine import Memory
shared = np.frombuffer(mmap.mmap(-1, 40 << 20), np.uint8)
go, done = os.pipe(), os.pipe()
if not os.fork():
    os.read(go[0], 1)
    shared[:] = 1
    np.ones(4 << 20)                                            # 32 MiB of its own
    os.write(done[1], b"1"), os.read(go[0], 1), os._exit(0)
memory = Memory()
memory.watch()
for _ in range(2):
    np.ones(8 << 20)                                            # 64 MiB, twice in turn
shared[:] = 2
os.write(go[1], b"1"), os.read(done[0], 1)
print(memory.added())
os.write(go[1], b"1")
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="no /proc of Linux")
def test_the_peak_of_memory_is_what_was_touched_and_shared_memory_counts_once():
    """64 MiB at one time, then 40 shared; beside them 32 of another process, and some for either interpreter."""
    ran = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True,
                         env=machine.environment("asis", 1), timeout=60)
    assert 64 + 32 - 4 <= float(ran.stdout) <= 64 + 32 + 24, ran


@pytest.mark.parametrize("args, said", [
    (["--only", "unet65"], "wanted some of unet64, ddpm-cifar10, demo, ops, sweep"), (["--only", ""], "empty"),
    (["--threads", "0"], "numbers >= 1"), (["--rounds", "0"], "rounds"), (["--isa", "sse"], "avx2"),
    (["--chart", "x.jpg"], "ends in .png"), (["--threads", "x"], "int values")])
def test_mistakes_are_answered_before_anything_is_measured(args, said, monkeypatch):
    monkeypatch.setattr("refdiff.bench.command.run_bench", None)
    result = CliRunner().invoke(main, ["bench", "--no-torch", *args])
    assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output, result.output


@pytest.mark.parametrize("torch, only, device, picture, said", [
    (False, "unet64,sweep", "cpu", "--chart", "wanted PyTorch, and --only with one of unet64, ddpm-cifar10, demo"),
    (True, "ops,sweep", "cpu", "--chart", "wanted PyTorch, and --only with one of unet64"),
    (False, "sweep", "cpu", "--heatmap", "wanted PyTorch, and --only with one of sweep"),
    (True, "unet64,ops", "cpu", "--heatmap", "with one of sweep"), (True, "sweep", "cuda", "--heatmap", "the host"),
    (True, "demo,ops", "cpu", "--chart", None), (True, "sweep", "cpu", "--heatmap", None)])
def test_pictures_that_would_be_empty_are_refused_before_anything_is_measured(
        torch, only, device, picture, said, tmp_path, monkeypatch):
    monkeypatch.setattr("refdiff.bench.run.importlib.util.find_spec", lambda name: "there")
    monkeypatch.setattr(run.Settings, "device", device)
    monkeypatch.setattr("refdiff.bench.command.run_bench", lambda *args: 1 / 0)
    result = CliRunner().invoke(main, ["bench", "--only", only, picture, str(tmp_path / "x.png"),
                                       *["--no-torch"] * (not torch)])
    if said is None:
        assert isinstance(result.exception, ZeroDivisionError), result.output       # it begins to measure
    else:
        assert result.exit_code == 2 and said in result.output and picture in result.output, result.output


def test_without_pytorch_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("refdiff.bench.run.importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["bench"])
    assert result.exit_code == 2 and "refdiff[bench]" in result.output and "--no-torch" in result.output
    assert len(result.output.strip().splitlines()) == 1


ROW = {"network": str, "kind": str, "threads": int, "refdiff_s": float, "torch_s": (float, type(None)),
       "torch_layout": (str, type(None)), "ratio": (float, type(None)), "spread": float, "device": str,
       "precision": str, "rounds": int, "disagreement": float}


def test_a_run_without_pytorch_leaves_rows_of_refdiff_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("refdiff.bench.run.commit", lambda: "c0ffee")
    target = tmp_path / "rows.json"
    result = CliRunner().invoke(main, ["bench", "--no-torch", "--only", "demo", "--threads", "1", "--rounds", "1",
                                       "--json", str(target), "--check"])
    assert result.exit_code == 0, result.output                 # nothing is compared, so no bar is missed
    told = json.loads(target.read_text())
    assert [row["kind"] for row in told["rows"]] in (["train", "sample", "memory"], ["train", "sample"])
    for row in told["rows"]:
        for name, kind in ROW.items():
            assert row["kind"] == "memory" or isinstance(row[name], kind), (name, row)
        assert row["ratio"] is None and row["network"] == "demo" and row["threads"] == 1 and row["batch"] == 128
    assert told["machine"]["sgemm_gflops"]["1"]["refdiff"] > 1 and told["machine"]["numpy"] == np.__version__
    assert {bar["verdict"] for bar in told["bars"]} == {"not measured"}
    assert told["refdiff"] == __version__ and told["commit"] == "c0ffee"
    assert told["settings"]["torch"] is False and told["settings"]["compile"] is False


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_a_commit_is_that_of_the_source_and_says_whether_it_was_changed(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e@example.org", *words],
                       check=True)

    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "__init__.py").write_text("")
    assert machine.commit(tmp_path / "package") is None
    git("init", "-q")
    git("add", "package")
    git("commit", "-q", "-m", "first")
    found = machine.commit(tmp_path / "package")
    assert re.fullmatch("[0-9a-f]{40,64}", found)
    assert machine.commit(tmp_path / "installed") is None           # in the checkout, and no part of it
    (tmp_path / "package" / "__init__.py").write_text("changed = 1")
    assert machine.commit(tmp_path / "package") == found + "+changes"
    monkeypatch.setenv("PATH", "")
    assert machine.commit(tmp_path / "package") is None


def test_a_missed_bar_is_exit_status_1_only_when_checked(monkeypatch):
    results = {"machine": {**machine.host(), **machine.about_numpy(), "isa": "native", "sgemm_gflops": {"1": {}}},
               "settings": {"rounds": 3}, "rows": [fake(ratio=0.5)]}
    monkeypatch.setattr("refdiff.bench.command.run_bench", lambda *args: dict(results))
    for args, status in (([], 0), (["--check"], 1)):
        result = CliRunner().invoke(main, ["bench", "--no-torch", *args])
        assert result.exit_code == status and "MISSED" in result.output, result.output


def test_pictures_are_drawn_of_what_was_compared_and_refused_of_nothing():
    about = {**machine.host(), **machine.about_numpy(), "isa": "native", "sgemm_gflops": {}}
    rows = [fake(threads=t, kind=k, ratio=r) for t, k, r in ((1, "train", 1.5), (2, "train", 0.8), (1, "memory", 1.2))]
    rows += [fake("sweep", "sweep", ratio=c / s, channels=c, size=s) for c in (16, 32) for s in (8, 32)]
    results = {"machine": about, "settings": {"rounds": 3}, "rows": rows}
    for draw in (pictures.ratio_chart, pictures.heat_map):
        assert draw(None, results).startswith(b"\x89PNG") and draw(None, results) == draw(None, results)
        with pytest.raises(ValueError, match="nothing to draw"):
            draw(None, {**results, "rows": []})


def test_times_are_written_with_three_figures():
    assert [table.time_of(s) for s in (None, 1234.5, 123.4, 99.96, 1.234, 0.9996, 0.9994, 0.1234, 1.5e-3, 999.6e-6,
                                       999.4e-6, 2.5e-5, 0.0)] == [
        "-", "1234 s", "123 s", "100 s", "1.23 s", "1 s", "999 ms", "123 ms", "1.5 ms", "1 ms", "999 us", "25 us",
        "0 us"]


def test_every_subject_has_a_name_of_its_own_and_the_sweep_covers_its_range():
    names = [s.label for s in [*subjects.subjects("ops"), *subjects.subjects("sweep")]]
    assert len(set(names)) == len(names)
    points = {(s.facts["channels"], s.facts["size"]) for s in subjects.sweep()}
    assert points == {(c, s) for c in (16, 32, 64, 128, 256) for s in (8, 16, 32, 64)}
    for subject in subjects.subjects("ops", quick=True):
        assert subjects.find(f"{subject.label}: forward") == (subject, "forward")
    conv = next(s for s in subjects.UNET64 if s.name == "conv 3x3 64->64, 32x32")
    assert conv.flops("forward") == 2 * 32 * 32 * 32 * 9 * 64 * 64 and conv.flops("backward") == 2 * conv.flops(
        "forward")


def test_a_process_that_dies_or_refuses_says_why():
    with run.contender(run.Settings(only=("demo",), torch=False), "refdiff", "network", "demo", 1) as one:
        with pytest.raises(measure.CannotRun, match="refdiff of demo: KeyError"):
            one.ask("time", kind="fly", repeat=1, lead=0)
        assert one.ask("time", kind="sample", repeat=1, lead=0.01)["seconds"] > 0
        one.process.kill()
        with pytest.raises(measure.CannotRun, match=r"^refdiff of demo: its process ended \(by signal 9(; .*)?\)$"):
            one.ask("about")
