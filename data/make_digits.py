"""Write data/digits.h5: the UCI 8x8 digits that scikit-learn ships, with a stratified split.

    pip install scikit-learn && python data/make_digits.py

needs refdiff importable (pip install -e ., or PYTHONPATH=.). A second run writes the same bytes.
"""
import io
from pathlib import Path

import h5py
import numpy as np

from refdiff.data import stratified_split
from refdiff.rng import Key

SEED = 0
HELDOUT = 360
ATTRIBUTES = {
    "title": "Optical Recognition of Handwritten Digits",
    "origin": "UCI Machine Learning Repository, dataset 80, file optdigits.tes, as shipped by scikit-learn "
              "(sklearn.datasets.load_digits); values unchanged, split added",
    "url": "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    "licence": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "citation": "E. Alpaydin, C. Kaynak (1998). Optical Recognition of Handwritten Digits. UCI Machine Learning "
                "Repository. https://doi.org/10.24432/C50P49",
    "grey_levels": 17,
    "split": f"heldout: {HELDOUT} images, stratified by label, seed {SEED}",
}


def contents():
    """The bytes of digits.h5."""
    from sklearn.datasets import load_digits
    source = load_digits()
    images, labels = source.images.astype(np.uint8), source.target.astype(np.uint8)
    assert (images == source.images).all() and images.max() == 16
    heldout = np.zeros(len(labels), bool)
    heldout[stratified_split(labels, HELDOUT / len(labels), Key(SEED).fold("digits"))[1]] = True
    file_bytes = io.BytesIO()
    with h5py.File(file_bytes, "w") as file:
        for name, array in (("images", images), ("labels", labels), ("heldout", heldout)):
            file.create_dataset(name, data=array, track_times=False)
        file.attrs.update(ATTRIBUTES)
        file.attrs["classes"] = [str(digit) for digit in range(10)]
    return file_bytes.getvalue()


if __name__ == "__main__":
    target = Path(__file__).with_name("digits.h5")
    target.write_bytes(contents())
    print(f"{target}: {target.stat().st_size} bytes")
