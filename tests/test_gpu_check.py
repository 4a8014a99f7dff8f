"""`benchmarks/gpu_check.py`, on a CPU."""

import json
import math
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_check
import measure

SMALL = ("--batch_sizes", "8,4", "--stages", "1", "--filters", "4,4", "--steps", "2", "--minutes", "60")
# Run the check as a command that keeps its record in the working folder, without TensorFlow if that isn't the backend.
# It measures only the rows with the numbers KEPT, because XLA takes seconds for each.
PROGRAM = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules["tensorflow"] = None
import gpu_check, measure
measure.ROOT, plan, kept = Path.cwd(), gpu_check.plan, os.environ["KEPT"]
gpu_check.plan = lambda *of: [plan(*of)[int(number)] for number in kept.split(",")] if kept else plan(*of)
gpu_check.command.run(gpu_check.main)
"""
# Without optimization, XLA compiles in half the time.
QUICK = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}


@pytest.fixture
def check(process, tmp_path):
    """Run the check in a process; return its output, and the results in the last line."""
    (tmp_path / "check.py").write_text(PROGRAM)

    def run(*words, kept="", **options):
        output = process(tmp_path / "check.py", *words, KEPT=kept, **options).stdout
        results = json.loads(output.splitlines()[-1])
        (record,) = (tmp_path / "output" / "benchmarks" / "gpu_check.jsonl").read_text().splitlines()
        assert json.loads(record)["results"] == results
        return output, results

    return run


def setting(row):
    return row["network"], row["precision"], row["jit_compile"], row["batch_size"]


@pytest.mark.parametrize(
    ("backend", "kept"),
    [
        ("tensorflow", "2"),  # CIFAR-10's network in mixed precision
        pytest.param("jax", "1", marks=pytest.mark.sweep),  # Tiny ImageNet's in float32
        pytest.param("tensorflow", "", marks=pytest.mark.sweep),
        pytest.param("jax", "", marks=pytest.mark.sweep),
    ],
)
def test_every_row_is_checked_and_timed(check, backend, kept):
    output, results = check(*SMALL, kept=kept, backend=backend, **QUICK)
    planned = gpu_check.plan((8, 4), backend)
    expected = [planned[int(number)] for number in kept.split(",")] if kept else planned
    assert (results["backend"], results["platform"]) == (backend, "cpu")
    assert "no accelerator: the check compares the CPU with itself" in output
    assert [setting(row) for row in results["rows"]] == [setting(vars(row)) for row in expected]
    for row in results["rows"]:
        assert row["check"] == ("passed" if row["batch_size"] == 8 else "")
        for losses in row["losses"].values():
            first, second = losses
            # The loss of an untrained network, plus L2; a step along the gradient lowers it.
            assert math.log(10) * 0.8 < first < math.log(200) * 1.2
            assert second < first or row["precision"] != "float32"
        if row["jit_compile"] or backend == "tensorflow":
            assert row["images_per_second"] == row["batch_size"] / row["seconds"]["repeated"][0] > 0
            assert row["fraction_waiting"] == 1 - row["seconds"]["repeated"][0] / row["seconds"]["augmented"][0]
            assert f"  {row['images_per_second']:,.0f}  " in output


def test_what_there_is_no_time_for_is_named(check):
    output, results = check("--minutes", "0.0001", backend="jax")
    assert len(results["rows"]) == len(gpu_check.plan((128, 256, 512, 1024), "jax"))
    assert {row["note"] for row in results["rows"]} == {"not reached: no time left"}
    table = output.partition("recorded:")[0]
    assert table.count("not reached: no time left") == len(results["rows"])


def test_a_row_that_would_end_too_late_is_not_begun(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(gpu_check, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def measure_row(row):
        now[0] += 60.0

    rows = gpu_check.plan((8,), "jax")[:3]
    gpu_check.run(rows, measure_row, deadline=170.0)
    assert [row.note for row in rows] == ["", "", gpu_check.NOT_REACHED]


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_each_setting_has_a_row_and_checks_come_first(backend):
    rows = gpu_check.plan((128, 256, 512), backend)
    pairs = [(network, precision) for network in ("CIFAR-10", "Tiny ImageNet") for precision in gpu_check.TOLERANCES]
    settings = [(*pair, True, size) for pair in pairs for size in (128, 256, 512)]
    assert Counter(setting(vars(row)) for row in rows) == Counter(settings + [(*pair, False, 128) for pair in pairs])
    assert [row.is_checked for row in rows[:6]] == [True] * 6
    assert all(row.is_checked == (row.batch_size == 128) for row in rows)


def test_a_wrong_loss_or_a_row_that_fails_is_an_error_and_no_memory_is_not(monkeypatch, tmp_path, capsys):
    limit = gpu_check.TOLERANCES["float32"]
    device = iter(([2.0, 1.9 * (1 + 1.1 * limit)], [2.0 * (1 - 1.1 * limit), 1.9], [2.0, math.nan]))

    def measure_row(row, **options):
        if row.batch_size == 256:
            raise MemoryError
        if row.batch_size == 512:
            raise RuntimeError("no such kernel\nat 0x0")
        if row.precision == "float32":
            row.compare(next(device, [2.0, 1.9 * (1 + 0.9 * limit)]), [2.0, 1.9])

    monkeypatch.setattr(gpu_check, "measure_row", measure_row)
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--batch_sizes", "128,256,512"])
    with pytest.raises(SystemExit) as end:
        gpu_check.main()
    assert end.value.code == 1
    output, errors = capsys.readouterr()
    rows = json.loads(output.splitlines()[-1])["rows"]
    checks = [row["check"] for row in rows if row["precision"] == "float32" and row["batch_size"] == 128]
    assert checks == ["FAILED"] * 3 + ["passed"]
    assert "FAILED  loss 2.00000 (CPU 2.00000), loss 1.90209 (CPU 1.90000)" in output
    assert {(row["check"], row["note"]) for row in rows if row["batch_size"] == 256} == {("", "out of memory")}
    crashed = {(row["check"], row["note"]) for row in rows if row["batch_size"] == 512}
    assert crashed == {("FAILED", "RuntimeError: no such kernel")}
    assert "7 of 16 rows failed" in errors


@pytest.mark.parametrize("device", ["/job:localhost/replica:0/task:0/device:GPU:0", SimpleNamespace(platform="gpu")])
def test_a_step_on_another_device_than_it_was_meant_for_is_an_error(device):
    model = SimpleNamespace(
        fit=lambda *batches, **options: SimpleNamespace(history={"loss": [1.0]}),
        trainable_variables=[SimpleNamespace(value=SimpleNamespace(device=device))],
    )
    batches = SimpleNamespace(for_keras=lambda: None)
    assert gpu_check.two_losses(model, batches, "gpu") == [1.0, 1.0]
    with pytest.raises(RuntimeError, match=r"gpu.*expected.*cpu"):
        gpu_check.two_losses(model, batches, "cpu")


def test_bad_flags_are_one_line(process):
    done = process("benchmarks/gpu_check.py", "--batch_sizes", "128,0", code=2)
    assert "--batch_sizes" in done.stderr
    assert len(done.stderr.splitlines()) == 1
