"""refdiff: diffusion models as arrays and formulas, every gradient by hand.

Import the room that is needed: `from refdiff.process import schedules`, `from refdiff.samplers import ddim`.
"""
__version__ = "0.1.0"
