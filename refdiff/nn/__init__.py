"""Modules: ops with the parameters they own. Small frozen descriptions that hold handles, never values."""
