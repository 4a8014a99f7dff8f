"""Shared by the benchmarks: interleaved repeats, a table that compares peers, a record of each run."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

OURS = "ours"


def interleave(ways: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Call each of `ways` in turn, `repeats` times after a warm-up round, and return their measurements."""
    for measure in ways.values():
        measure()
    results: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, measure in ways.items():
            results[name].append(measure())
    return results


def rate(batches: Iterator, seconds: float) -> Callable[[], float]:
    """Return a function that measures the images per second from `batches` of (images, labels) over `seconds`."""

    def measure() -> float:
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            count += len(next(batches)[0])
        return count / elapsed

    return measure


def installed(package: str) -> bool:
    """Return whether a peer is installed, and print if it isn't."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        print(f"{package} is not installed: left out")
        return False
    return True


def show(title: str, results: Mapping[str, list[float]], unit: str, *, digits: int = 0, more_is_better: bool) -> None:
    """Print median and spread of each alternative, and how many times better `OURS` is."""
    print(f"\n{title}")
    medians = {name: statistics.median(values) for name, values in results.items()}
    width = max(map(len, results))
    for name, values in results.items():
        ratio = medians[OURS] / medians[name] if more_is_better else medians[name] / medians[OURS]
        spread = f"{min(values):,.{digits}f} to {max(values):,.{digits}f}"
        print(f"  {name:{width}}  {medians[name]:10,.{digits}f} {unit}  ({spread})  ours: {ratio:.2f} times")


def record(name: str, results: Mapping[str, object]) -> None:
    """Append `results` to output/benchmarks/NAME.jsonl, with machine, versions and commit."""
    path = ROOT / "output" / "benchmarks" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    packages = ("tensorflow", "jax", "keras", "numpy", "opencv-python-headless", "h5py", "torch", "albumentations")
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit(),
        "command": sys.argv,
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {p: version for p in packages if (version := _version(p))},
        "results": results,
    }
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"\nrecorded: {path.relative_to(ROOT)}")


def peak_memory() -> int:
    """Return this process's peak memory in bytes; unlike `ru_maxrss`, it excludes the parent's before the fork."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def machine() -> dict[str, str | int]:
    return {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "system": platform.platform()}


def commit() -> str:
    """Return the checked-out commit, with a + if files are modified."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        return "unknown"
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout
    return head + ("+" if changed else "") if head else "unknown"


def processor() -> str:
    """Return the name of the processor, and which vector instructions it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    facts = dict(reversed([tuple(map(str.strip, line.split(":", 1))) for line in lines if ":" in line]))
    flags = [flag for flag in ("avx2", "avx512f", "amx_bf16") if flag in facts.get("flags", "").split()]
    return f"{facts.get('model name', platform.machine())} ({', '.join(flags)})"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
