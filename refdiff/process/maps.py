"""Maps from denoisers to denoisers. A denoiser is any callable (x, level) -> Prediction."""
from dataclasses import replace

from .. import backend


def in_batches(denoiser, rows):
    """The same denoiser, evaluated on at most `rows` rows of x at a time, so that memory stays bounded."""
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ValueError(f"in_batches: rows is {rows!r}, wanted an integer >= 1")

    def batched(x, level):
        if len(x) <= rows:
            return denoiser(x, level)
        slices = [slice(i, i + rows) for i in range(0, len(x), rows)]
        points = [x[rows_] for rows_ in slices]
        parts = [denoiser(point, level.rows(rows_)) for point, rows_ in zip(points, slices)]
        kinds = {part.kind for part in parts}
        if len(kinds) != 1:
            raise ValueError(f"in_batches: the denoiser returned predictions of kinds {sorted(kinds)}, wanted one kind")
        xp = backend.of(x=x)
        if any(part.x is not point for part, point in zip(parts, points)):       # a map may answer for another point
            x = xp.concatenate([part.x for part in parts])
        return replace(parts[0], value=xp.concatenate([part.value for part in parts]), x=x, level=level)

    return batched
