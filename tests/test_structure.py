"""The structure of the code: layers, imports, start-up time."""

import ast
import re
import subprocess
import sys
import time
from collections import Counter

import pytest
from conftest import ROOT

from pipeline.cli.flags import FLAGS

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
# Layers from top to bottom. A part imports from lower layers, or from its own without a cycle.
LAYERS = (
    ("verify", "upgrade", "predict", "steer", "compare", "find_lr", "export"), ("cli",), ("training",),
    ("callbacks", "evaluation"), ("pages",), ("plots",), ("checkpoints",), ("formats",), ("data",), ("io",), ("files",),
    ("nn",), ("preprocessing",), ("utils",), ("errors", "MAX_IMAGE_PIXELS"),
)  # fmt: skip
# Everything below the command line.
LIBRARY = [part for parts in LAYERS[2:] for part in parts]


def imports(path):
    """Yield the modules that a file imports, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(part):
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


def test_imports_run_downwards():
    for path in (ROOT / "pipeline").rglob("*.py"):
        part = path.relative_to(ROOT / "pipeline").with_suffix("").parts[0]
        for name in imports(path):
            top, *rest = name.split(".")
            assert top != "config" or part == "cli", f"{path} imports config"
            assert f"{top}.py" not in SCRIPTS, f"{path} imports a script"
            if top == "pipeline" and part != "__init__" and rest[0] != part:
                assert layer(rest[0]) >= layer(part), f"{path} imports {name} from a higher layer"


def test_the_library_neither_prints_nor_asks_the_environment_nor_names_a_flag():
    flag = re.compile(rf"--({'|'.join((*FLAGS, 'model', 'resume', 'overwrite', 'download', 'tta'))})\b")
    for path in (ROOT / "pipeline").rglob("*.py"):
        if path.relative_to(ROOT / "pipeline").with_suffix("").parts[0] not in LIBRARY:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name):
                assert node.id not in ("print", "input"), f"{path}:{node.lineno}"
            elif isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("sys.stdout", "sys.argv", "os.environ", "os.getenv"), (
                    f"{path}:{node.lineno}"
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not flag.search(node.value), f"{path}:{node.lineno}"


def test_no_folder_is_crowded():
    """Each folder holds at most 12 files, and each part of the package at most 30 % of all lines."""
    lines, files = Counter(), Counter()
    for path in (ROOT / "pipeline").rglob("*.py"):
        lines[path.relative_to(ROOT / "pipeline").parts[0]] += len(path.read_text().splitlines())
        files[path.parent] += 1
    assert max(files.values()) <= 12
    assert max(lines.values()) <= 0.3 * lines.total()


def test_modules_import_each_other_without_a_cycle():
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
        assert name not in trail, f"cycle: {' -> '.join((*trail, name))}"
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
