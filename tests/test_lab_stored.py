"""Where the stored numbers are found, and what is said where they are not: elsewhere, without them, damaged, installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ood_helpers import checks, lab
from ood_helpers.lab import stored

ROOT = Path(__file__).parents[1]
NAME = "confident_width_8"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the stored tables at course/results, with the working directory in course/notebooks; no others in sight."""
    shutil.copytree(ROOT / "results", tmp_path / "course" / "results")
    (tmp_path / "course" / "notebooks").mkdir()
    monkeypatch.delenv("OOD_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path / "course" / "notebooks")
    monkeypatch.setattr(stored, "__file__", str(tmp_path / "installed" / "ood_helpers" / "lab" / "stored.py"))
    return tmp_path / "course" / "results"


def test_the_tables_are_found_above_the_working_directory_beside_the_checkout_and_by_name(copy, tmp_path, monkeypatch):
    assert stored._folder() == copy
    (copy.parent / "notebooks" / "results").mkdir()  # not the one: it holds no tables
    assert stored._folder() == copy
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"results/ at or above {tmp_path}: run from a clone .* OOD_RESULTS"):
        stored._folder()
    monkeypatch.setenv("OOD_RESULTS", str(copy))
    assert stored._folder() == copy
    monkeypatch.setenv("OOD_RESULTS", str(tmp_path))
    monkeypatch.chdir(copy)
    with pytest.raises(FileNotFoundError, match=f"not in {tmp_path}, which OOD_RESULTS names"):
        stored._folder()
    monkeypatch.undo()
    monkeypatch.delenv("OOD_RESULTS", raising=False)
    monkeypatch.chdir("/")
    assert stored._folder() == ROOT / "results"


def test_runs_are_read_by_the_setting_s_name_whatever_its_module(copy):
    for name in (NAME, "gan_main", "silent_100x2", "samples_moons_knn_reject", "loss_energy_general"):
        rows = stored.runs(name)
        assert len(rows) == 20 and tuple(rows[0]) == stored.settings()[name].columns
    assert str(stored.runs(NAME)) == str(stored.load(copy / "runs" / f"{NAME}.csv", lab.paper.SETTINGS[NAME]))  # NaN is not NaN
    with pytest.raises(ValueError, match=r"no setting has the name 'confident_width_9'; there are .*confident_width_8"):
        stored.runs("confident_width_9")
    with pytest.raises(ValueError, match="no setting has the name 3"):
        stored.runs(3)


def test_the_claims_are_those_of_the_code(copy, monkeypatch):
    assert stored.claims() == lab.claims.read_table(copy / "paper_claims.csv")
    monkeypatch.setattr(lab.claims, "CLAIMS", lab.claims.CLAIMS[:-1])
    with pytest.raises(ValueError, match=r"other claims than .*: run from a clone"):
        stored.claims()


def remove_all(results):
    shutil.rmtree(results)


def remove_one(results):
    (results / "runs" / f"{NAME}.csv").unlink()


def remove_runs(results):
    shutil.rmtree(results / "runs")


def remove_claims(results):
    (results / "paper_claims.csv").unlink()


def change(path, edit):
    text = path.read_text()
    assert edit(text) != text
    path.write_text(edit(text))


def cut_run(results):
    change(results / "runs" / f"{NAME}.csv", lambda text: text[:-30])


def empty_run(results):
    change(results / "runs" / f"{NAME}.csv", lambda text: "")


def other_setting(results):
    shutil.copy(results / "runs" / "confident_width_16.csv", results / "runs" / f"{NAME}.csv")


def cut_claims(results):
    change(results / "paper_claims.csv", lambda text: text[: len(text) // 2])


def whole_lines_of_claims(results):
    change(results / "paper_claims.csv", lambda text: "".join(text.splitlines(keepends=True)[:50]))


def empty_claims(results):
    change(results / "paper_claims.csv", lambda text: "")


def other_claims_columns(results):
    change(results / "paper_claims.csv", lambda text: text.replace("mean", "median", 1))


def words_in_claims(results):
    change(results / "paper_claims.csv", lambda text: text.replace(",20,0,", ",twenty,0,", 1))


def binary_claims(results):
    (results / "paper_claims.csv").write_bytes(b"\xff\xfe\x00" * 50)


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (remove_all, FileNotFoundError, r"the stored tables \(paper_claims.csv and runs/\) are not in a folder results/"),
        (remove_runs, FileNotFoundError, "the stored tables"),
        (remove_claims, FileNotFoundError, "the stored tables"),
        (remove_one, FileNotFoundError, f"there are no stored runs of {NAME}"),
        (cut_run, ValueError, f"{NAME}.csv is damaged"),
        (empty_run, ValueError, f"{NAME}.csv is damaged"),
        (other_setting, ValueError, f"{NAME}.csv was made with another setting"),
        (cut_claims, ValueError, "paper_claims.csv is damaged"),
        (whole_lines_of_claims, ValueError, "paper_claims.csv has other claims"),
        (empty_claims, ValueError, "paper_claims.csv is damaged"),
        (other_claims_columns, ValueError, "paper_claims.csv is damaged"),
        (words_in_claims, ValueError, "paper_claims.csv is damaged"),
        (binary_claims, ValueError, "paper_claims.csv is damaged"),
    ],
)
def test_whatever_is_wrong_cell_and_environment_say_what_to_do(copy, capsys, damage, error, says):
    assert checks.environment() is True and "✓" in capsys.readouterr().out
    damage(copy)
    with pytest.raises(error, match=f"{says}.*git checkout results.*OOD_RESULTS.*make reproduce"):
        stored.claims() if "claims" in damage.__name__ else stored.runs(NAME)
    assert checks.environment() is False
    said = capsys.readouterr().out
    assert said.count("✗") == 1 and "git checkout results" in said and "more tables" not in said


def test_the_environment_counts_what_cannot_be_read(copy, capsys):
    for name in (NAME, "silent_100x2", "gan_main"):
        (copy / "runs" / f"{name}.csv").write_text("")
    assert not checks.environment() and "(2 more tables cannot be read)" in capsys.readouterr().out


INSTALLED = """
import ood_helpers
from ood_helpers import lab
print(ood_helpers.__file__)
print(len(lab.stored.runs("confident_width_8")), len(lab.stored.claims()))
"""


def test_an_installed_package_finds_the_tables_of_the_clone_it_is_used_in(copy, tmp_path):
    """The package in a folder of its own, as `pip install .` leaves it, without anything beside it."""
    packages = tmp_path / "site-packages"
    shutil.copytree(ROOT / "ood_helpers", packages / "ood_helpers", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {k: v for k, v in os.environ.items() if k != "OOD_RESULTS"} | {"PYTHONPATH": str(packages)}

    def use(folder):
        command = [sys.executable, "-c", INSTALLED]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)

    found = use(copy.parent / "notebooks")
    assert found.stdout.split() == [str(packages / "ood_helpers" / "__init__.py"), "20", str(len(lab.claims.CLAIMS))], (
        found.stderr
    )
    lost = use(tmp_path)
    assert lost.returncode == 1 and "FileNotFoundError: the stored tables" in lost.stderr and "OOD_RESULTS" in lost.stderr
