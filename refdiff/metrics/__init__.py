"""How good the samples are, without a download: distances between sets of feature vectors.

    features    penultimate features of a small classifier of digits, or raw pixels
    frechet     Frechet distance between the Gaussians fitted to two sets
    neighbours  precision and recall by k nearest neighbours; distance to the nearest training image
    histogram   how the samples are spread over the classes
    floors      what a Frechet number is read against: two floors and a baseline

All take plain arrays, compute in float64 on the host, and draw only from the Key they are given.
"""
