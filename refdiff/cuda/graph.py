"""One launch for a whole function: what it does to a device is recorded once, as a CUDA graph, and replayed.

    record = Record(xp, function, (x, t))      # runs the function three times, records it, checks the record
    record.launch(x, t)                        # the same work on other values of the same shapes
    record.result                              # what the function returned; its arrays hold the last launch's values

For a function that does the same work on the device whatever the values are: no number read back to the host, none
made there (asarray of a list), no thread of its own. Other arrays that it reads or writes (theta, the gradient) are
taken where they lie and must stay there.
"""


class GraphError(RuntimeError):
    """The function could not be recorded, its record gives other numbers than the function, or a record is spent."""


class Record:
    """`function` on arrays of the module xp. A result that is an array, or the first of a tuple, is checked."""

    def __init__(self, xp, function, arrays):
        self.inputs = tuple(a.copy() for a in arrays)
        self.pool = xp.cuda.MemoryPool()            # what lies in the record's own pool is nobody else's afterwards
        stream = xp.cuda.Stream(non_blocking=True)
        xp.cuda.get_current_stream().synchronize()
        with stream, xp.cuda.using_allocator(self.pool.malloc):
            for _ in range(2):                      # kernels are compiled, the pool is filled
                want = first(function(*self.inputs)).copy()
            stream.synchronize()
            stream.begin_capture()
            try:
                self.result = function(*self.inputs)
                self.graph = stream.end_capture()
            except Exception as error:
                if stream.is_capturing():
                    stream.end_capture()
                raise GraphError(f"a function could not be recorded: {error}; run it without a graph") from error
            self.graph.launch()
            stream.synchronize()
            if not bool((first(self.result) == want).all()):
                raise GraphError("the record gives other numbers than the function: it takes something from the host, "
                                 "is not a function of its arguments, or gives NaN; run it without a graph")

    def launch(self, *arrays):
        """Replay on these values, on the current stream."""
        for place, array in zip(self.inputs, arrays):
            place[...] = array
        self.graph.launch()
        return self.result


def first(result):
    """The array of a result that is one, or a tuple that begins with one."""
    return result[0] if isinstance(result, tuple) else result
