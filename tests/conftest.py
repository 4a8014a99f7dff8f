"""What the tests share: the scripts as commands, and the environment that they run in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline  # noqa: F401  (its environment variables come before any backend is loaded)

ROOT = Path(__file__).resolve().parent.parent

# A network and a data set that train in seconds: four steps an epoch.
SMALL = ("--data", "digits", "--limit", "128", "--batch_size", "32", "--stages", "1,1", "--filters", "4,8,16")


def environment(backend: str | None = None, **variables: str) -> dict[str, str]:
    """This process' environment with another Keras backend."""
    return os.environ | ({"KERAS_BACKEND": backend} if backend else {}) | variables


@pytest.fixture
def command(tmp_path):
    """Runs a script of the project in an empty folder, as a user would; returns the finished process."""

    def run(script: str, *arguments: str, backend: str | None = None, code: int | None = 0, **variables: str):
        done = subprocess.run(
            [sys.executable, ROOT / script, *arguments],
            cwd=tmp_path,
            env=environment(backend, **variables),
            capture_output=True,
            text=True,
            timeout=240,
        )
        if code is not None:
            assert done.returncode == code, done.stdout + done.stderr
        return done

    return run
