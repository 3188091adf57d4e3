"""The environment check names what is wrong and how to mend it."""

import importlib.metadata

from ood_helpers import checks


def test_a_good_environment_is_told_so(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("OOD_CACHE", str(tmp_path))
    assert checks.environment() and "✓" in capsys.readouterr().out


def test_wrong_and_missing_packages_are_named_with_the_remedy(capsys, monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "scipy":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "ipywidgets" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert not checks.environment()
    out = capsys.readouterr().out
    assert "✗ scipy is missing" in out and "✗ ipywidgets is 1.0" in out and "pip install 'ipywidgets" in out


def test_a_cache_that_cannot_be_written_is_named(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OOD_CACHE", str(tmp_path / "file" / "cache"))
    assert not checks.environment()
    assert "set OOD_CACHE to another folder" in capsys.readouterr().out


def test_a_user_without_a_home_is_told_what_to_set(capsys, monkeypatch):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("OOD_CACHE", raising=False)
    monkeypatch.setattr("pathlib.Path.expanduser", no_home)
    assert not checks.environment()
    assert "no home folder to keep trained networks in: set OOD_CACHE" in capsys.readouterr().out
