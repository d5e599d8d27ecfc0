"""Records of functions: what is replayed and what is refused, on a made device; tests/gpu has a real one."""
import contextlib
import types

import numpy as np
import pytest

from refdiff import backend
from refdiff.cuda.graph import GraphError, Record
from refdiff.denoiser import Denoiser, DenoiserConfig
from refdiff.losses import denoising_loss
from refdiff.models import UNet, UNetConfig
from refdiff.models.recorded import Recorded
from refdiff.rng import Key


class FakeStream:
    """A stream whose capture is the function's last call, run again at every launch into the arrays it returned."""

    capturing = False

    def __init__(self, xp, non_blocking=False):
        self.xp = xp

    def __enter__(self):
        self.before, self.xp.current = self.xp.current, self

    def __exit__(self, *error):
        self.xp.current = self.before

    def synchronize(self):
        pass

    def is_capturing(self):
        return self.capturing

    def begin_capture(self):
        self.capturing = True

    def end_capture(self):
        self.capturing = False
        function, arrays, results = self.xp.last

        def launch():
            for old, new in zip(results, leaves(function(*arrays))):
                old[...] = new
            self.xp.launches += 1
        return types.SimpleNamespace(launch=launch)


def leaves(tree):
    if isinstance(tree, (tuple, list)):
        return [a for branch in tree for a in leaves(branch)]
    return [tree] if isinstance(tree, np.ndarray) else []


class FakeDevice:
    """NumPy with streams."""

    def __init__(self):
        self.current, self.launches, self.last = None, 0, None
        self.current = FakeStream(self)
        self.cuda = types.SimpleNamespace(
            Stream=lambda non_blocking: FakeStream(self), MemoryPool=lambda: types.SimpleNamespace(malloc=None),
            using_allocator=lambda malloc: contextlib.nullcontext(), get_current_stream=lambda: self.current)

    def record(self, function, arrays):
        def traced(*arrays):
            result = function(*arrays)
            self.last = function, arrays, leaves(result)
            return result
        return Record(self, traced, arrays)


def test_a_record_gives_the_functions_numbers_for_other_values():
    xp = FakeDevice()
    x, y = np.arange(6.0).reshape(2, 3), np.ones((2, 3))
    record = xp.record(lambda x, y: (x * x + y, "kept"), (x, y))
    assert xp.launches == 1                                                     # the check
    np.testing.assert_array_equal(record.launch(3 * x, y)[0], 9 * x * x + 1)
    assert xp.launches == 2 and record.result[1] == "kept"
    np.testing.assert_array_equal(x, np.arange(6.0).reshape(2, 3))


def test_a_function_that_is_none_of_its_arguments_is_refused():
    xp, drawn = FakeDevice(), np.random.default_rng(0)
    with pytest.raises(GraphError, match="takes something from the host"):
        xp.record(lambda x: x * drawn.random(), (np.ones(3),))


def test_a_function_that_cannot_be_recorded_is_refused_with_the_reason():
    xp = FakeDevice()

    def reads_back(x):
        if xp.current.capturing:
            raise RuntimeError("operation not permitted when stream is capturing")
        return x
    with pytest.raises(GraphError, match="could not be recorded: operation not permitted .* run it without a graph"):
        xp.record(reads_back, (np.ones(3),))
    assert not xp.current.capturing


CONFIG = UNetConfig(image_size=8, in_channels=1, out_channels=1, channels=8, multipliers=(1, 2), blocks=1,
                    attention=(4,), heads=2, groups=4, classes=3, dropout=0.2, zero_init=False)


@pytest.fixture
def recording(monkeypatch):
    xp = FakeDevice()
    monkeypatch.setattr(backend, "record", xp.record)
    return xp


def test_training_by_records_gives_the_networks_losses_and_gradients(recording):
    key, found = Key(5), {}
    for name, network in (("plain", UNet(CONFIG)), ("recorded", Recorded(UNet(CONFIG)))):
        denoiser = Denoiser(network, DenoiserConfig(prediction="F", process="edm"))
        theta = denoiser.network.layout.init(Key(0), np.float64)
        grad, steps = theta.zeros_like(), []
        for step in range(3):
            k = key.fold("step", step)
            x0 = k.fold("x0").normal((4, 8, 8, 1))
            batch = (x0, denoiser.draw_levels(k.fold("level"), 4), k.fold("eps").normal(x0.shape),
                     np.array([0, step, 2, 3]), denoiser.network.masks(k.fold("masks"), 4, np.float64))
            grad.flat[...] = 0
            loss = denoising_loss(denoiser, theta, *batch, grad=grad)
            steps.append((loss, grad.flat.copy()))
            theta.flat[...] -= 0.01 * grad.flat                                 # where it lies: records see it
        found[name] = steps
    assert recording.launches == 2 + 2 * 3                                       # forward and backward, check and steps
    for (loss, grad), (want_loss, want_grad) in zip(found["recorded"], found["plain"]):
        assert loss == want_loss
        np.testing.assert_array_equal(grad, want_grad)


def test_graphs_are_off_unless_asked_for_and_only_for_a_device(monkeypatch):
    config = DenoiserConfig(prediction="F", process="edm")
    assert type(Denoiser(UNet(CONFIG), config).network) is UNet
    monkeypatch.setenv("REFDIFF_GRAPHS", "1")
    assert type(Denoiser(UNet(CONFIG), config).network) is UNet                 # on the host
    monkeypatch.setitem(backend._DEVICES, np, object())
    made = Denoiser(UNet(CONFIG), config)
    assert type(made.network) is Recorded and type(Denoiser(made.network, config).network.network) is UNet
    assert made.network.config == CONFIG


def test_there_is_nothing_to_record_on_the_host():
    with pytest.raises(backend.BackendError, match="record: the arrays are on numpy, which has no graphs"):
        backend.record(lambda x: x, (np.ones(3),))


def test_a_backward_whose_forward_was_written_over_is_refused(recording):
    network = Recorded(UNet(CONFIG))
    theta = network.layout.init(Key(0), np.float64)
    x, c_noise, labels = np.ones((2, 8, 8, 1)), np.ones(2), np.array([0, 1])
    F, saved = network.forward(theta, x, c_noise, labels)
    network.forward(theta, 2 * x, c_noise, labels)
    with pytest.raises(GraphError, match="a backward after another forward of the same shape"):
        network.backward(saved, F, theta.zeros_like())
    np.testing.assert_array_equal(network.forward(theta, x, c_noise, labels)[0],
                                  UNet(CONFIG).forward(theta, x, c_noise, labels)[0])
