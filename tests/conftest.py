"""What tests share: a way to the tools, one browser, one JupyterLab; and with CI=true a skipped test fails the run."""

import os
import shutil
import sys
from pathlib import Path

import browser as harness
import hypothesis
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
# no test fails for being slow: a busy machine is not a fault of the code
hypothesis.settings.register_profile("course", deadline=None)
hypothesis.settings.load_profile("course")


@pytest.fixture(scope="session")
def browser():
    """One headless Chromium for all tests; they are skipped, with a word on what to install, where there is none."""
    if what := harness.missing():
        pytest.skip(what)
    with harness.chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    """One JupyterLab for all tests, on a copy of the course: running a notebook cannot change the checkout."""
    course = tmp_path_factory.mktemp("course")
    for folder in (ROOT / "notebooks", ROOT / "results"):
        if folder.exists():  # git keeps no empty folder
            shutil.copytree(folder, course / folder.name, ignore=shutil.ignore_patterns(".*"))
    with harness.Lab(course / "notebooks") as lab:
        yield lab


def _skipped(config):
    """The reports of skipped tests, where skipping is not allowed: with CI=true everything a test needs must be there."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")  # a parallel run has one, in the process that gathers
    if os.environ.get("CI") != "true" or reporter is None:
        return []
    return reporter.stats.get("skipped", [])


def pytest_sessionfinish(session, exitstatus):
    if _skipped(session.config) and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    for report in _skipped(config):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"SKIPPED, which CI=true does not allow: {report.nodeid}: {reason}", red=True)
