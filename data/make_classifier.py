"""Write data/digits_features.h5: the classifier of digits whose features the metrics compare.

    python data/make_classifier.py

needs refdiff importable (pip install -e ., or PYTHONPATH=.) and takes about a minute. It sees the training digits
only, each time moved by up to one pixel; Adam (beta 0.9, 0.99), cosine decay, cross-entropy, weight decay.
"""
import io
from pathlib import Path

import h5py
import numpy as np

from refdiff import data
from refdiff.metrics.features import BLOCK, Classifier, Extractor, centring
from refdiff.ops import cross_entropy
from refdiff.optim import AdamW, learning_rate
from refdiff.rng import Key

SEED, STEPS, BATCH, RATE, DECAY = 0, 1500, 128, 2e-3, 0.05


def moved(images, shifts):
    """Each image (n, h, w, 1) moved by its (rows, columns) in {-1, 0, 1}; what enters is black (-1)."""
    n, h, w, _ = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1)
    rows = np.arange(h) + 1 - shifts[:, :1]                                     # (n, h)
    columns = np.arange(w) + 1 - shifts[:, 1:]                                  # (n, w)
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def train(digits, key, steps=STEPS):
    """(network, theta) after `steps` of AdamW on the cross-entropy of moved training digits."""
    net = Classifier.make()
    theta = net.layout.init(key.fold("init"))
    optimiser = AdamW(lr=RATE, beta2=.99, weight_decay=RATE * DECAY)
    state = optimiser.init(theta.flat)
    for step in range(steps):
        rows = data.batch_indices(key.fold("batch"), step, len(digits), BATCH)
        x = moved(digits.images[rows], key.fold("move", step).integers(-1, 2, (BATCH, 2)))
        grad = theta.zeros_like()
        (scores, _), saved = net.forward(theta, x)
        _, s_loss = cross_entropy.forward(scores, digits.labels[rows])
        net.backward(saved, cross_entropy.backward(s_loss, 1.0), grad)
        optimiser.update(state, theta.flat, grad.flat, learning_rate(step, steps, RATE))
    return net, theta


def extractor(net, theta, digits):
    """The Extractor whose features are centred on `digits`."""
    parts = [net.forward(theta, digits.images[i:i + BLOCK])[0][1] for i in range(0, len(digits), BLOCK)]
    return Extractor(net, theta, *centring(np.concatenate(parts).astype(np.float64)))


def contents(extract, accuracy):
    """The bytes of digits_features.h5."""
    index = extract.net.layout.index()
    file_bytes = io.BytesIO()
    with h5py.File(file_bytes, "w") as file:
        shapes = np.array([shape + (0,) * (4 - len(shape)) for _, shape in index])
        for name, array in (("theta", extract.theta.flat), ("mean", extract.mean), ("scale", extract.scale),
                            ("names", [name for name, _ in index]), ("shapes", shapes)):
            file.create_dataset(name, data=array, track_times=False)
        file.attrs.update(title="Classifier of 8x8 digits", trained_on="the training split of digits.h5",
                          written_by="data/make_classifier.py", seed=SEED, steps=STEPS,
                          heldout_accuracy=accuracy, licence="MIT")
    return file_bytes.getvalue()


if __name__ == "__main__":
    training, heldout = data.digits("train"), data.digits("heldout")
    extract = extractor(*train(training, Key(SEED).fold("classifier")), training)
    accuracy = [float((extract.predict(d.images) == d.labels).mean()) for d in (training, heldout)]
    target = Path(__file__).with_name("digits_features.h5")
    target.write_bytes(contents(extract, accuracy[1]))
    print(f"accuracy: training {accuracy[0]:.4f}, held out {accuracy[1]:.4f}; {target}: {target.stat().st_size} bytes")
