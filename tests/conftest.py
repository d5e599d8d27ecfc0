"""What every test shares: the backend is put back, gpu tests skip without a GPU, Hypothesis prints what failed."""
import hypothesis
import pytest

from refdiff import backend

# Time limits per example would make a slow machine look like a bug; the blob reproduces a failure in one line.
hypothesis.settings.register_profile("refdiff", deadline=None, print_blob=True)
hypothesis.settings.load_profile("refdiff")


def _missing_gpu():
    """Why there is no CuPy to test with, or None where there is."""
    try:
        backend._load("cupy")
    except backend.BackendError as error:
        return str(error)
    return None


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        reason = _missing_gpu()
        for item in marked if reason else []:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _backend_as_it_was():
    """A test may switch the backend: the next one starts where this one did."""
    chosen = backend._chosen
    yield
    backend._chosen = chosen
