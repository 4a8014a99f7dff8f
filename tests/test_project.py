"""Everything beside the code: README, docs, constraints, CI workflow, supported systems."""

import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement

PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("benchmarks/*.md"),
    *ROOT.glob("output/reference/*.md"),
]


def anchors(text):
    """Yield the anchors of a page's headings, as GitHub forms them."""
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_or_heading_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]*(?:#[\w-]+)?)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text()), target


def test_the_readme_is_short_and_names_every_script_and_folder():
    text = (ROOT / "README.md").read_text()
    assert 120 <= len(text.splitlines()) <= 150
    for path in (*ROOT.glob("*.py"), ROOT / "LICENSE", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        assert path.name in text, path.name
    for folder in (ROOT / "pipeline").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert f"{folder.name}/" in text, folder.name


def test_constraints_pin_every_requirement_within_its_range():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {name.lower(): version for name, version in (line.split("==") for line in lines if not line.startswith("#"))}
    for file in ("", "-jax", "-dev", "-tensorboard", "-export"):
        for line in (ROOT / f"requirements{file}.txt").read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                requirement = Requirement(line)
                assert requirement.specifier.contains(pins[requirement.name.lower()]), line


def test_the_workflow_runs_ci_on_the_oldest_and_the_newest_python():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    python = next(step["with"] for step in job["steps"] if "setup-python" in step.get("uses", ""))
    assert python["python-version"] == "${{ matrix.python }}"
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    supported = re.search(r'requires-python = "(.*?)"', (ROOT / "pyproject.toml").read_text())[1]
    assert supported == ">=3.11,<3.14"


def test_another_system_gets_one_line_and_exit_code_2():
    code = (
        "import sys; sys.platform = 'win32'; from pipeline.cli import command;"
        "command.run(lambda: print('started'))"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "win32" in done.stderr
    assert "WSL" in done.stderr
