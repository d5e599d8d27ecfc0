"""One dataclass: its checks, its dictionary, its options; and the command line that is made of them."""
import json
import math
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from pathlib import Path

import click
import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, strategies as st
from PIL import Image

from refdiff import __version__, backend, checkpoint, cli, config
from refdiff.config import check, from_dict, interval, options, setting, to_dict
from refdiff.fit import TrainingDiverged


@dataclass(frozen=True)
class Recipe:
    steps: int = setting(10, "updates of theta", "[1, inf)")
    lr: float = setting(.5, "peak learning rate", "(0, inf)", unit="1/update")
    loss: str = setting("edm", "weighting", choices=("simple", "edm"))
    channels: tuple[int, ...] = setting((16, 32), "channels per level", "[1, inf)")
    clip: float | None = setting(None, "largest norm of the gradient", "(0, inf)")
    zero_init: bool = setting(True, "last convolutions begin at zero")
    sizes: tuple = setting((4,), "sizes with attention")

    __post_init__ = check


@dataclass(frozen=True)
class Needed:
    count: int = setting(help="how many", range="[0, inf)")


@given(st.floats(allow_nan=True), st.sampled_from("[("), st.sampled_from("])"), st.floats(-5, 0), st.floats(1, 5))
def test_an_interval_has_the_ends_its_brackets_say(x, left, right, low, high):
    inside = interval(f"{left}{low}, {high}{right}")
    if x in (low, high):
        assert inside(x) == ((left == "[") if x == low else (right == "]"))
    else:
        assert inside(x) == (not math.isnan(x) and low < x < high)
    assert inside(low) == (left == "[") and inside(high) == (right == "]")


@pytest.mark.parametrize("text", ["", "0, 1", "[0 1]", "[1, 0]", "(a, b)", "[0, 1, 2]"])
def test_what_is_no_interval_is_refused_where_it_is_written(text):
    with pytest.raises(ValueError, match="interval: got"):
        interval(text)


@given(st.builds(Recipe, st.integers(1), st.floats(1e-300, 1e300), st.sampled_from(["simple", "edm"]),
                 st.lists(st.integers(1, 99), max_size=4).map(tuple), st.one_of(st.none(), st.floats(1e-3, 9.)),
                 st.booleans(), st.lists(st.integers(), max_size=3).map(tuple)))
def test_a_configuration_survives_json(recipe):
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe
    assert list(to_dict(recipe)) == [item.name for item in fields(Recipe)]


@pytest.mark.parametrize("bad, says", [
    (dict(steps=0), r"Recipe: steps is 0, wanted an integer in \[1, inf\) \(updates of theta\)"),
    (dict(steps=2.), "steps is 2.0, wanted an integer"), (dict(steps=True), "steps is True, wanted an integer"),
    (dict(steps=None), "steps is None"), (dict(lr=math.nan), r"lr is nan, wanted a number in \(0, inf\), in 1/update"),
    (dict(lr=math.inf), "lr is inf"), (dict(lr="1"), "lr is '1'"), (dict(clip=0.), "clip is 0.0, wanted .*, or None"),
    (dict(loss="edn"), "loss is 'edn', wanted simple or edm; did you mean 'edm'?"),
    (dict(channels=(16, 0)), r"channels is \(16, 0\), wanted a tuple, each an integer in \[1, inf\)"),
    (dict(channels=16), "channels is 16, wanted a tuple"), (dict(zero_init=1), "zero_init is 1, wanted true or false"),
    (dict(sizes=(.5,)), "sizes is .*each an integer")])
def test_a_value_of_another_type_or_out_of_range_is_named(bad, says):
    with pytest.raises(ValueError, match=says):
        Recipe(**bad)
    with pytest.raises(ValueError, match=says):
        from_dict(Recipe, bad)
    with pytest.raises(ValueError, match=says):
        replace(Recipe(), **bad)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="Recipe: no setting 'chanels'; did you mean 'channels'?"):
        from_dict(Recipe, {"chanels": [1]})
    with pytest.raises(ValueError, match=r"no setting 'xyz' \(there are steps, lr, "):
        from_dict(Recipe, {"xyz": 1})
    with pytest.raises(ValueError, match="Needed: count must be given"):
        from_dict(Needed, {})


def test_whole_numbers_become_floats_where_floats_are_meant():
    made = from_dict(Recipe, {"lr": 1, "clip": 2})
    assert type(made.lr) is float and type(made.clip) is float and from_dict(Recipe, {"clip": None}).clip is None


def test_a_configuration_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Recipe().steps = 3


def test_a_field_that_no_option_could_hold_is_refused():
    @dataclass(frozen=True)
    class Odd:
        table: dict = setting(None)
    with pytest.raises(TypeError, match="Odd: field 'table' is a"):
        check(Odd())


# ---- options

def run(command, *arguments):
    return CliRunner().invoke(command, arguments, standalone_mode=True)


@pytest.fixture
def made():
    """A command and the list of what it was called with."""
    calls = []

    @click.command()
    @click.argument("file")
    @options(Recipe(steps=20, clip=3., sizes=(8, 4)), "recipe", leave=("clip",))
    @options(Needed)
    def train(**given):
        calls.append(given)
    return train, calls


def test_options_hand_over_the_configurations_they_spell(made):
    train, calls = made
    result = run(train, "f", "--count", "3", "--lr", "2", "--channels", "1,2,2", "--no-zero-init", "--loss", "simple")
    assert result.exit_code == 0, result.output
    want = Recipe(20, 2., "simple", (1, 2, 2), 3., False, (8, 4))
    assert calls == [dict(file="f", recipe=want, config=Needed(3))] and type(calls[0]["recipe"].lr) is float
    run(train, "f", "--count", "3", "--sizes", "")
    assert calls[1]["recipe"] == Recipe(20, clip=3., sizes=())


def test_help_states_meaning_unit_range_and_default(made):
    said = " ".join(run(made[0], "--help").output.split())
    for part in ("--steps INTEGER updates of theta; range [1, inf) [default: 20]",
                 "--lr FLOAT peak learning rate; in 1/update; range (0, inf) [default: 0.5]",
                 "--loss [simple|edm]", "--channels INT,... channels per level", "[default: 16,32]", "[default: 8,4]",
                 "--zero-init / --no-zero-init", "[required]"):
        assert part in said, said
    assert "--clip" not in said
    assert said.index("--steps") < said.index("--lr") < said.index("--sizes") < said.index("--count")


@pytest.mark.parametrize("arguments, says", [
    (["--count", "3", "--step", "4"], "--steps"), (["--count", "3", "--chanels", "4"], "--channels"),
    (["--count", "-1"], "Needed: count is -1, wanted an integer in [0, inf) (how many)"),
    (["--count", "3", "--lr", "nan"], "lr is nan"), (["--count", "3", "--channels", "1,x"], "separated by commas"),
    (["--count", "3", "--loss", "l2"], "is not one of"), ([], "Missing option '--count'")])
def test_a_wrong_option_is_refused_with_status_2_and_the_reason(made, arguments, says):
    result = run(made[0], "f", *arguments)
    assert result.exit_code == 2 and says in result.output and not made[1], result.output


def test_two_options_of_one_name_are_refused_when_the_command_is_made():
    with pytest.raises(ValueError, match="this command already has steps, lr"):
        options(Recipe)(options(Recipe, "other")(lambda **given: None))


# ---- the command line

@pytest.fixture
def failing():
    """A subcommand that raises what it is given, taken away again after the test."""
    @cli.command
    def fail_with():
        raise failing.error
    yield lambda error, *options: (setattr(failing, "error", error), run(cli.main, *options, "fail-with"))[1]
    del cli.main.commands["fail-with"]


@pytest.mark.parametrize("error", [ValueError("x is 3, wanted 4"), OSError("disk full"), backend.BackendError("no GPU"),
                                   checkpoint.CheckpointError("damaged"), TrainingDiverged("loss is nan at step 7")])
def test_a_refusal_is_one_line_with_status_2_and_debug_shows_where(failing, error):
    result = failing(error)
    assert result.exit_code == 2 and result.output == f"Error: {error}\n"
    assert failing(error, "--debug").exception is error


def test_a_bug_is_not_dressed_up_as_a_refusal(failing):
    assert isinstance(failing(ZeroDivisionError("bug")).exception, ZeroDivisionError)


def test_version_help_and_the_nearest_command():
    assert run(cli.main, "--version").output == f"refdiff, version {__version__}\n"
    for name in [None, *cli.main.commands]:
        result = run(cli.main, *([name] if name else []), "--help")
        assert result.exit_code == 0 and result.output.startswith("Usage: ")
    for arguments, near in ((["infoo"], "info"), (["--bakend", "numpy"], "--backend"),
                            (["info", "--bckend"], "--backend")):
        result = run(cli.main, *arguments)
        assert result.exit_code == 2 and "Did you mean" in result.output and near in result.output, result.output


@pytest.mark.parametrize("place", ["before", "after"])
def test_backend_is_chosen_before_or_after_the_command(place, tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(backend, "use", chosen.append)
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8)))
    arguments = ["info", str(tmp_path / "x.npy")]
    option = ["--backend", backend.NAMES[1]]
    result = run(cli.main, *(option + arguments if place == "before" else arguments + option))
    assert result.exit_code == 0 and chosen == [backend.NAMES[1]], result.output
    assert run(cli.main, "--backend", "torch", *arguments).exit_code == 2


def test_info_tells_what_is_in_every_kind_of_file(tmp_path):
    def info(name):
        result = run(cli.main, "info", str(tmp_path / name))
        assert result.exit_code == 0, result.output
        return result.output
    theta = np.zeros(25, np.float32)
    checkpoint.save_checkpoint(tmp_path / "c.h5", checkpoint.Checkpoint(
        "training", {"train": {"lr": .1}, "network": {"name": "unet", "multipliers": [1, 2]}},
        [("w", (5, 4)), ("b", (5,))], {"theta": theta}, 1234, 9, {"loss": np.array([2., .25])}))
    said = info("c.h5")
    for part in ("\nkind        training\n", "\nparameters  25 in 2 arrays, float32\n", "\nstep        1,234\n",
                 "\nseed        9\n", "\nlast loss   0.25\n",
                 "\n  network\n    name         unet\n    multipliers  [1, 2]\n",
                 "\narrays\n  history/loss   float64 (2,)\n  vectors/theta  float32 (25,)\n"):
        assert part in said, said
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"] = np.zeros((5, 8, 8), np.uint8)
        file.attrs.update(title="Digits", classes=["a", "b"])
    assert info("data.h5").splitlines()[1:] == ["classes  a, b", "title    Digits", "arrays",
                                                "  images  uint8 (5, 8, 8)"]
    np.savez(tmp_path / "x.npz", images=np.arange(128, dtype=np.uint8).reshape(2, 8, 8), labels=np.array([3, 3]))
    said = info("x.npz")
    assert "uint8 (2, 8, 8)" in said and "0 to 127" in said and "(2,), 1 different" in said
    Image.new("L", (30, 20)).save(tmp_path / "grid.png")
    assert "PNG L, 30 x 20 pixels" in info("grid.png")


def test_info_refuses_what_it_cannot_read_in_one_line(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04K\x01.")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    for name, says in ("nowhere.h5", "no such file"), ("broken.png", "cannot be read"), ("x.pkl", "pickle"), \
            ("cut.h5", "damaged"):
        result = run(cli.main, "info", str(tmp_path / name))
        assert result.exit_code == 2 and says in result.output and result.output.count("\n") == 1, result.output


def test_the_installed_entry_point_is_this_module():
    """setup.cfg names refdiff.cli:main; python -m refdiff.cli is the same without an installation."""
    root = Path(cli.__file__).resolve().parents[1]
    assert "refdiff = refdiff.cli:main" in (root / "setup.cfg").read_text()
    done = subprocess.run([sys.executable, "-m", "refdiff.cli", "info", "nowhere.h5"], cwd=root, text=True,
                          capture_output=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    assert done.returncode == 2 and done.stderr.startswith("Error: nowhere.h5: no such file") and not done.stdout


def test_every_configuration_of_refdiff_can_be_an_option_and_be_stored():
    from refdiff.denoiser import DenoiserConfig
    from refdiff.distill.consistency import ConsistencyConfig
    from refdiff.models import NETWORKS
    from refdiff.fit import TrainConfig
    for cls in [TrainConfig, DenoiserConfig, ConsistencyConfig] + [pair[1] for pair in NETWORKS.values()]:
        assert from_dict(cls, json.loads(json.dumps(to_dict(cls())))) == cls()
        got = []
        result = run(click.command()(config.options(cls)(lambda config: got.append(config))))
        assert result.exit_code == 0 and got == [cls()], result.output
