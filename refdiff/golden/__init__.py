"""Golden cases: language-free questions with exact answers, and the audit that asks them of an implementation."""


def parametrize(adapter, **options):
    """`@refdiff.golden.parametrize(adapter)`: every check of an adapter as a pytest case; see pytest_plugin.py."""
    from .pytest_plugin import parametrize as decorator
    return decorator(adapter, **options)
