"""Random draws as pure functions of seed, epoch and sample.

There is no random state, so the number of workers or processes, a stop and a resume never change the training data.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of `count` samples in `epoch`, a permutation of 0 to count - 1, int64 (count,)."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """Return the generator for the mixing of a batch; batches of an epoch are numbered from 0."""
    return np.random.default_rng([seed, epoch, batch, 1])


def uniforms(seed: int, epoch: int, samples: np.ndarray, draws: int, stream: int = 0) -> np.ndarray:
    """Draw numbers in [0, 1) for each sample, independent over seed, epoch, sample, draw and stream.

    A counter-based generator: SplitMix64's output function applied to counters (Steele, Lea and Flood, "Fast splittable
    pseudorandom number generators", 2014). A batch takes a few array operations instead of a generator per sample.

    Args:
        seed, epoch: integers of at least 0.
        samples: indices (n,) in the data set.
        draws: number of draws per sample.
        stream: separates uses that draw for the same sample; at least 0.

    Returns:
        A float64 array (n, draws); row i depends only on seed, epoch and samples[i].
    """
    key = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0]
    streams = _mix(np.asarray(samples).astype(np.uint64) * _GOLDEN + key)
    counters = streams[:, None] + np.arange(1, draws + 1, dtype=np.uint64) * _GOLDEN
    # The top 53 bits fill a float64's mantissa.
    return (_mix(counters) >> np.uint64(11)) * 2.0**-53


def alternating(seed: int, epoch: int, samples: np.ndarray, stream: int) -> np.ndarray:
    """Draw a number in [0, 1) for each sample, float64 (n,), shifted by 1/2 (modulo 1) in odd epochs.

    A comparison with 1/2 thus alternates from epoch to epoch. Arguments as in `uniforms`.
    """
    first = uniforms(seed, 0, samples, 1, stream)[:, 0]
    return (first + 0.5 * (epoch % 2)) % 1.0


def _mix(z: np.ndarray) -> np.ndarray:
    """Mix 64-bit words bijectively; each input bit flips about half of the output bits."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
