"""`refdiff bench`: refdiff against PyTorch on the same networks, weights and batches, taking turns in one run.

Every contender lives in a process of its own (child.py), whose environment the parent sets; the parent never imports
PyTorch. Before anything is timed the contenders' gradients are compared.
"""
