"""Sentences that readers bring along, each settled by a number: true, true under a stated condition, or wrong.

    settled = settle(4)            # runs the measurement;  refdiff claims 4 prints it

A claim is a function that measures and returns a Settled; its number is that of the list which papers/claims.md shows.
"""
from . import losses, noise, samplers, training
from .settled import CLAIMS, Settled, known, lines, markdown, settle

__all__ = ["CLAIMS", "Settled", "known", "lines", "losses", "markdown", "noise", "samplers", "settle", "training"]
