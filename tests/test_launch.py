"""The files of launch/ parse, and what they pass to main.py exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import inception
from inception import config as settings
from inception.errors import EX_TEMPFAIL

FILES = sorted(path for path in Path("launch").iterdir() if path.suffix != ".md")
SCRIPTS = [path for path in FILES if path.suffix != ".yaml"]
MANIFESTS = [path for path in FILES if path.suffix == ".yaml"]


def _command(file: Path) -> str:
    """The call of main.py, without line ends."""
    text = re.sub(r"\s*#.*", "", file.read_text())
    if file in MANIFESTS:
        (job,) = yaml.safe_load(file.read_text())["spec"]["replicatedJobs"]
        (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
        text = " ".join(container["command"])
    match = re.search(r"python3? main\.py((\\\n|[^\n])*)", text)
    assert match
    return match[1].replace("\\\n", " ")


@pytest.fixture(scope="module")
def shown():
    """What main.py says of its flags."""
    command = [sys.executable, "main.py", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_every_file_is_in_the_table():
    table = Path("launch/README.md").read_text()
    assert all(f"[{path.name}]({path.name})" in table for path in FILES)


@pytest.mark.parametrize("file", SCRIPTS, ids=str)
def test_scripts_parse(file):
    assert subprocess.run(["bash", "-n", file]).returncode == 0


@pytest.mark.parametrize("file", FILES, ids=str)
def test_flags_and_fields_exist(file, shown):
    flags = dict(re.findall(r"(--[\w.]+)(?:[= ]([^\s'\"]+))?", _command(file)))
    fields = {flag: flags.pop(flag) for flag in list(flags) if flag.startswith("--config.")}
    assert flags.keys() <= set(re.findall(r"--\w+", shown))
    assert flags.keys() >= {"--config", "--workdir"}
    explicit = {"--coordinator", "--num_processes", "--process_id"}
    assert ("--distributed" in flags) != (explicit <= flags.keys())
    config = inception.load_config(flags["--config"])
    known = settings.flatten(config)
    assert {name.removeprefix("--config.") for name in fields} <= known.keys()


@pytest.mark.parametrize("file", MANIFESTS, ids=str)
def test_a_saved_run_is_restarted_by_kubernetes(file):
    manifest = yaml.safe_load(file.read_text())
    (job,) = manifest["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["parallelism"] == spec["completions"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy demands it
    codes = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"][:1]]
    assert [code["values"] for code in codes] == [[EX_TEMPFAIL]]
    address = f"{manifest['metadata']['name']}-{job['name']}-0-0.{manifest['metadata']['name']}"
    command = _command(file)
    assert "--distributed" in command or f"--coordinator={address}:" in command


@pytest.mark.parametrize("file", [path for path in SCRIPTS if "tpu" not in path.name], ids=str)
def test_a_saved_run_is_restarted_by_the_script(file):
    assert re.search(rf"^\s+{EX_TEMPFAIL} \| 134 \| 137\)", file.read_text(), re.MULTILINE)
