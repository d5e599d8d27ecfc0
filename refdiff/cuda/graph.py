"""One launch for a whole function: what it does to a device is recorded once per shape, as a CUDA graph, and replayed.

    step = backend.graph(function)
    y = step(x, t)                # the first call with these shapes runs, records and checks; later ones replay

For a function that takes arrays, gives an array or a tuple of arrays, and does the same work on the device whatever
the values are: no number read back to the host, none made there (asarray of a list), no thread of its own. It may read
and write other arrays that stay where they are (theta, the gradient), but each call must start from its arguments:
what it accumulates into, it clears first. It is run three times before the first result.
"""


class GraphError(RuntimeError):
    """The function could not be recorded, or its record gives other numbers than the function."""


class Graph:
    """`function` on arrays of the module xp, recorded per shapes and dtypes of its arguments."""

    def __init__(self, xp, function):
        self.xp, self.function = xp, function
        self.recorded = {}

    def __call__(self, *arrays):
        key = tuple((a.shape, a.dtype.str) for a in arrays)
        if key not in self.recorded:
            self.recorded[key] = self._record(arrays)
        graph, inputs, outputs, _ = self.recorded[key]
        for place, array in zip(inputs, arrays):
            place[...] = array
        graph.launch()
        found = tuple(y.copy() for y in outputs)                     # the next launch writes over the originals
        return found if isinstance(graph.result, tuple) else found[0]

    def _record(self, arrays):
        xp = self.xp
        stream = xp.cuda.Stream(non_blocking=True)
        pool = xp.cuda.MemoryPool()                 # what lies in the graph's own pool is nobody else's afterwards
        inputs = tuple(a.copy() for a in arrays)
        xp.cuda.get_current_stream().synchronize()
        with stream, xp.cuda.using_allocator(pool.malloc):
            for _ in range(2):                      # kernels are compiled, the pool is filled
                eager = self.function(*inputs)
            stream.synchronize()
            want = [y.copy() for y in _tuple(eager)]
            stream.synchronize()
            del eager
            stream.begin_capture()
            try:
                result = self.function(*inputs)
            except Exception as error:
                try:
                    stream.end_capture()
                except Exception:                   # a capture that broke cannot be ended cleanly
                    pass
                raise GraphError(f"a function could not be recorded as a graph: {error}; run it without one") from error
            graph = _Recorded(stream.end_capture(), result)
            graph.launch()
            stream.synchronize()
            for got, wanted in zip(_tuple(result), want):
                if not bool((got == wanted).all()):
                    raise GraphError("the recorded function gives other numbers than the function itself: it takes "
                                     "something from the host, or is not a function of its arguments; run it without "
                                     "a graph")
        return graph, inputs, _tuple(result), pool


class _Recorded:
    def __init__(self, graph, result):
        self.graph, self.result, self.launch = graph, result, graph.launch


def _tuple(result):
    return result if isinstance(result, tuple) else (result,)
