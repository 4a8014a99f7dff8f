"""The shape of the code: which parts import which, and when."""

import ast
import subprocess
import sys
import time

import pytest
from conftest import ROOT

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
# From the top floor to the ground; a part imports from lower floors, or from its own without a circle.
COMMAND = ("arguments", "backend", "command", "console", "errors", "flags", "stopping")
GROUND = ("preprocessing", "nn", "utils", "recipe", "environment", "lazy", *COMMAND)
FLOORS = (("training", "verify"), ("runs",), ("callbacks",), ("io",), GROUND)


def imports(path):
    """The modules that a file imports, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(part):
    return next(number for number, parts in enumerate(FLOORS) if part in parts)


def test_imports_run_downwards():
    for path in (ROOT / "pipeline").rglob("*.py"):
        part = path.relative_to(ROOT / "pipeline").with_suffix("").parts[0]
        for name in imports(path):
            top, *rest = name.split(".")
            assert top != "config", f"{path} imports config"
            assert f"{top}.py" not in SCRIPTS, f"{path} imports a script"
            if top == "pipeline" and part != "__init__" and rest[0] != part:
                assert floor(rest[0]) >= floor(part), f"{path} imports {name} from a higher floor"


def test_modules_import_each_other_without_a_circle():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "pipeline").rglob("*.py")
    }

    def used(name):
        for imported in imports(modules[name]):
            while imported not in modules and "." in imported:
                imported = imported.rpartition(".")[0]
            if imported in modules and imported not in ("pipeline", name):
                yield imported

    done = set()

    def visit(name, trail):
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in used(name):
                visit(other, (*trail, name))
            done.add(name)

    for name in modules:
        visit(name, ())


def test_no_script_imports_a_script():
    for script in SCRIPTS:
        for name in imports(ROOT / script):
            assert f"{name.split('.')[0]}.py" not in SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_a_wrong_flag_answer_within_a_second(script):
    for flag, code in (("--help", 0), ("--no_such_flag", 2)):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, ROOT / script, flag], capture_output=True, text=True)
        assert time.perf_counter() - start < 1.0
        assert done.returncode == code
        assert "Traceback" not in done.stderr


def test_networks_need_no_image_file_or_plot_library():
    code = (
        "import sys; sys.modules.update(cv2=None, h5py=None, matplotlib=None);"
        "import pipeline.nn.conv, pipeline.utils.schedules, pipeline.utils.randomness"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
