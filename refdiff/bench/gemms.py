"""What the matrix products of a network cost alone: a floor under any implementation by im2col.

A convolution of k x k, c -> d over p output pixels is the product (p, k k c) (k k c, d); a training step makes three
of each, y = x w, dx = dy w', dw = x' dy. Equal products are timed once and counted.
"""
from collections import Counter

from .. import backend
from ..nn.blocks import AttentionBlock, ResBlock
from ..parallel import slices
from ..rng import Key
from .task import Task, side_by_side, synchronise


def products(network, n, train):
    """Counter of (batch, m, k, n): batch products of (m, k) by (k, n), in a forward pass over n images or a step."""
    found, config = Counter(), network.config
    shapes = {name: handle.shape for name, handle in network.layout.handles.items()}

    def add(batch, m, k, d):
        for shape in ((m, k, d), (m, d, k), (k, m, d)) if train else ((m, k, d),):
            found[(batch, *shape)] += 1

    def conv(layer, size):
        k, _, c, d = shapes[layer.w.name]
        rows = n * size * size
        if layer.stride > 1 or not train:
            add(1, rows, k * k * c, d)
        else:                                                   # dx is a convolution of dy: wide rows, no overlaps
            for shape in ((rows, k * k * c, d), (rows, k * k * d, c), (k * k * c, rows, d)):
                found[(1, *shape)] += 1

    def linear(layer, rows):
        add(1, rows, *shapes[layer.w.name])

    def run(chain, size):
        for block in chain:
            if isinstance(block, ResBlock):
                size = block.size
                conv(block.conv1, size), conv(block.conv2, size), linear(block.time, n)
                if block.shortcut:
                    conv(block.shortcut, size)
            elif isinstance(block, AttentionBlock):
                t, c = size * size, shapes[block.proj.w.name][0]
                linear(block.qkv, n * t), linear(block.proj, n * t)
                add(n * block.heads, t, c // block.heads, t)
                add(n * block.heads, t, t, c // block.heads)
            else:
                size = size // 2 if block.conv.stride == 2 else size * 2
                conv(block.conv, size)
        return size

    size = config.image_size
    conv(network.conv_in, size), conv(network.conv_out, size)
    linear(network.conditioning.linear1, n), linear(network.conditioning.linear2, n)
    for chain in (*network.down, network.mid, *network.up):
        size = run(chain, size)
    return found


def flops(found):
    """Multiplications and additions of all products."""
    return sum(2 * batch * m * k * n * count for (batch, m, k, n), count in found.items())


def gemm_task(network, n, train, workers):
    """A Task that makes every product once per place where it occurs; rows are shared among the workers' threads."""
    key, work = Key(0), []
    for i, ((batch, m, k, d), count) in enumerate(products(network, n, train).items()):
        a, b = (backend.asarray(key.fold(i, side).normal(shape, "f4"))
                for side, shape in enumerate(((batch, m, k), (batch, k, d))))
        parts = [(a[rows], b[rows]) for rows in slices(batch, workers.threads)] if batch > 1 else \
                [(a[0, rows], b[0]) for rows in slices(m, workers.threads)]
        work.append((parts, count))

    def share(i):
        for parts, count in work:
            for _ in range(count if i < len(parts) else 0):
                backend.product(*parts[i])

    step = side_by_side(workers, share, workers.threads)
    return Task(lambda: (step(), synchronise()), dict)
