"""The random choices of a run, each a pure function of the seed, the epoch and the sample.

Nothing here draws from a stream, so the number of workers, a stop and a resume, or the split over processes never
change what a network sees.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of `count` samples in `epoch`: an int64 array (count,) that holds 0 to count - 1, each once."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def generator(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """What a whole batch draws from, where its samples are mixed; the first batch of an epoch has the number 0."""
    return np.random.default_rng([seed, epoch, batch, 1])


def uniforms(seed: int, epoch: int, samples: np.ndarray, draws: int, stream: int = 0) -> np.ndarray:
    """`draws` numbers in [0, 1) for each sample, independent over seed, epoch, sample, draw and stream.

    Args:
        seed, epoch: whole numbers of at least 0.
        samples: integer array (n,), indices in the data set.
        draws: how many numbers a sample needs.
        stream: tells apart those that draw for the same sample; at least 0.

    Returns:
        A float64 array (n, draws). Row i depends on seed, epoch and samples[i] alone. A counter-based generator:
        SplitMix64's output function over the counters (Steele, Lea and Flood, "Fast splittable pseudorandom number
        generators", 2014), so that a batch costs a few array operations instead of a generator a sample.
    """
    key = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0]
    streams = _mix(np.asarray(samples).astype(np.uint64) * _GOLDEN + key)
    counters = streams[:, None] + np.arange(1, draws + 1, dtype=np.uint64) * _GOLDEN
    # The top 53 bits are a float64's mantissa.
    return (_mix(counters) >> np.uint64(11)) * 2.0**-53


def alternating(seed: int, epoch: int, samples: np.ndarray, stream: int) -> np.ndarray:
    """A number in [0, 1) for each sample, float64 (n,), that in every second epoch is half of the interval away.

    So a coin that it decides shows heads in one epoch and tails in the next. Arguments as in `uniforms`.
    """
    first = uniforms(seed, 0, samples, 1, stream)[:, 0]
    return (first + 0.5 * (epoch % 2)) % 1.0


def _mix(z: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit words in which each input bit changes half of the output bits."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
