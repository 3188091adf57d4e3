"""The tool that runs all experiments: resumes, rebuilds, survives an interrupt, and gives one table wherever it runs."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
import reproduce
from distributed import LocalCluster

from ood_helpers.lab import claims, experiment, horizons, paper, stored
from ood_helpers.lab.claims import Claim, at_least
from ood_helpers.lab.experiment import Setting
from ood_helpers.lab.horizons import GanDetectorSetting

TINY = {
    "small": Setting("confident", width=4, steps=5, batch=8),
    "large": Setting("reject", width=16, steps=40, batch=8),
    "medium": Setting("confident", width=8, steps=20, batch=8, exact=True),
}


@pytest.fixture
def executed(monkeypatch):
    """Three tiny settings in place of the real ones; the list of those that were run in this process, by name, in order."""
    names, run = [], experiment.run

    def counting(setting, seeds):
        names.append(next(name for name, tiny in paper.SETTINGS.items() if tiny == setting))
        return run(setting, seeds)

    monkeypatch.setattr(paper, "SETTINGS", dict(TINY))
    monkeypatch.setattr(stored, "EXPERIMENTS", (paper,))
    monkeypatch.setattr(claims, "CLAIMS", [Claim("it detects", "5", "auroc", at_least(0.5), name) for name in TINY])
    monkeypatch.setattr(experiment, "run", counting)
    return names


@pytest.fixture
def go(tmp_path, executed):
    """Call the tool in this process, one job at a time: (exit code, what was run by this call)."""

    def call(*arguments, seeds=2):
        before = len(executed)
        code = reproduce.main([*arguments, "--jobs", "1", "--seeds", str(seeds), "--results", str(tmp_path)])
        return code, executed[before:]

    return call


def test_everything_once_the_longest_first_and_then_nothing(go, tmp_path, capsys):
    assert go() == (0, ["large", "medium", "small"])
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.csv")} == {
        "paper_claims.csv", "runs/small.csv", "runs/medium.csv", "runs/large.csv",
    }  # fmt: skip
    rows = claims.read_table(tmp_path / "paper_claims.csv")
    assert [row["setting"] for row in rows] == list(TINY) and rows[0]["seeds"] == 2
    table = (tmp_path / "paper_claims.csv").read_bytes()
    (tmp_path / "paper_claims.csv").unlink()
    assert go() == (0, [])
    assert (tmp_path / "paper_claims.csv").read_bytes() == table
    assert "3 of 3 settings are finished" in capsys.readouterr().out


def test_some_settings_by_name(go, tmp_path, capsys):
    assert go("small", "med") == (0, ["medium", "small"])
    assert "1 of 3 settings are not finished (large" in capsys.readouterr().out
    assert not (tmp_path / "paper_claims.csv").exists()
    assert go("smal", "larger") == (2, [])
    assert "no setting's name contains 'larger'" in capsys.readouterr().err
    assert go() == (0, ["large"])


def test_what_goes_beyond_the_paper_is_run_apart_and_judged_by_nobody(go, tmp_path, monkeypatch, capsys):
    more = {"small_too": dataclasses.replace(TINY["small"], beta=2.0), "detector": GanDetectorSetting("reject", width=4, steps=3)}
    ran = []
    monkeypatch.setattr(stored, "EXPERIMENTS", (paper, horizons))
    monkeypatch.setattr(horizons, "SETTINGS", more)
    monkeypatch.setattr(horizons, "run", lambda setting, seeds: ran.append(setting) or make_up(setting, seeds))
    monkeypatch.setitem(paper.SETTINGS, "small_too", more["small_too"])  # else `executed` would not know it
    assert go("--beyond", "small") == (0, ["small_too"])
    assert go("--beyond") == (0, []) and ran == [more["detector"]]
    assert [path.name for path in sorted(tmp_path.rglob("*.csv"))] == ["detector.csv", "small_too.csv"]
    assert go("--beyond") == (0, []) and len(ran) == 1
    assert "2 of 2 settings are finished" in capsys.readouterr().out
    assert go("--beyond", "large") == (2, [])


def make_up(setting, seeds):
    return [dict.fromkeys(setting.columns, 0.5) | {"seed": seed, "diverged": False} for seed in seeds]


def test_every_setting_is_run_by_one_of_the_two_commands():
    judged, beyond = (reproduce.all_settings(beyond) for beyond in (False, True))
    assert not set(judged) & set(beyond) and set(paper.SETTINGS) < set(judged) | set(beyond)
    assert set(judged) == {name for claim in claims.CLAIMS for name in claim.settings}
    assert {"gan_far", "silent_100x2"} < set(beyond)


def test_a_name_stands_for_one_setting():
    names = [name for module in stored.EXPERIMENTS for name in module.SETTINGS]
    assert len(names) == len(set(names))


def test_a_whole_name_means_that_setting_only():
    assert reproduce.chosen(["confident_width_2"], paper.SETTINGS) == ["confident_width_2"]
    assert {"confident_width_2", "confident_width_200"} < set(reproduce.chosen(["confident_width"], paper.SETTINGS))


def test_a_setting_whose_package_is_missing_is_named_and_the_others_are_run(go, tmp_path, monkeypatch, capsys):
    def missing(setting, seeds):
        raise ModuleNotFoundError("it needs the package of images")

    monkeypatch.setattr(stored, "EXPERIMENTS", (paper, horizons))
    monkeypatch.setattr(horizons, "SETTINGS", {"detector": GanDetectorSetting("reject", width=4, steps=3)})
    monkeypatch.setattr(horizons, "run", missing)
    monkeypatch.setitem(paper.SETTINGS, "apart", dataclasses.replace(TINY["small"], beta=2.0))
    assert go("--beyond") == (0, ["apart"])
    assert [path.name for path in tmp_path.rglob("*.csv")] == ["apart.csv"]
    assert "detector: it needs the package of images" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--jobs", "--seeds"])
@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_counts_must_be_positive(option, value, capsys):
    with pytest.raises(SystemExit):
        reproduce.main([f"{option}={value}"])
    assert f"{option}: must be a whole number of at least 1; got '{value}'" in capsys.readouterr().err


def test_a_changed_setting_is_run_again(go, monkeypatch, capsys):
    go()
    monkeypatch.setitem(paper.SETTINGS, "small", dataclasses.replace(TINY["small"], beta=3.0))
    assert go() == (0, ["small"])
    assert "small.csv was made with another setting" in capsys.readouterr().err


def test_more_seeds_are_run_fewer_are_taken_from_what_is_there(go, tmp_path):
    go(seeds=3)
    assert go(seeds=2) == (0, [])
    assert {row["seeds"] for row in claims.read_table(tmp_path / "paper_claims.csv")} == {2}
    assert go("small", seeds=4) == (0, ["small"])
    assert go("large", seeds=3) == (0, [])
    assert len(stored.load(tmp_path / "runs" / "small.csv", TINY["small"])) == 4


def test_a_damaged_file_is_reported_and_rebuilt(go, tmp_path, capsys):
    go()
    path, table = tmp_path / "runs" / "medium.csv", (tmp_path / "paper_claims.csv").read_bytes()
    good = path.read_bytes()
    path.write_bytes(good[:-20])
    assert go() == (0, ["medium"])
    assert "medium.csv is damaged" in capsys.readouterr().err
    assert path.read_bytes() == good and (tmp_path / "paper_claims.csv").read_bytes() == table


def test_after_an_interrupt_it_goes_on_with_the_rest(go, tmp_path, monkeypatch, capsys):
    run = experiment.run

    def interrupted(setting, seeds):
        if setting == TINY["medium"]:
            raise KeyboardInterrupt
        return run(setting, seeds)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "run", interrupted)
        assert go() == (130, ["large"])
    assert [p.name for p in tmp_path.rglob("*.*")] == ["large.csv"]
    assert "finished settings are kept" in capsys.readouterr().err
    assert go() == (0, ["medium", "small"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_diverging_setting_is_reported_and_counted(go, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(paper.SETTINGS, "small", dataclasses.replace(TINY["small"], lr=1e30))
    assert go() == (0, ["large", "medium", "small"])
    assert "small: seed 1 diverged" in capsys.readouterr().err
    row = claims.read_table(tmp_path / "paper_claims.csv")[0]
    assert (row["seeds"], row["diverged"], row["verdict"]) == (0, 2, "not measured")
    assert go() == (0, [])


def test_processes_and_dask_give_the_same_table(go, executed, tmp_path):
    go()
    tables = [(tmp_path / "paper_claims.csv").read_bytes()]
    common = ["--seeds", "2", "--results"]
    assert reproduce.main(["--jobs", "2", *common, str(tmp_path / "processes")]) == 0
    assert len(executed) == 3  # the others ran in processes of their own
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        assert reproduce.main(["--dask", cluster.scheduler_address, *common, str(tmp_path / "dask")]) == 0
    assert len(executed) == 6  # Dask's worker is a thread of this process
    tables += [(tmp_path / kind / "paper_claims.csv").read_bytes() for kind in ("processes", "dask")]
    assert tables[0] == tables[1] == tables[2]


def test_the_tables_go_where_they_are_read_from(tmp_path, executed, monkeypatch):
    """OOD_RESULTS names the folder for the tool and for the notebooks; else it is the tool's own checkout, wherever one is."""
    monkeypatch.setenv("OOD_RESULTS", str(tmp_path / "mine"))
    assert reproduce.main(["--jobs", "1", "--seeds", "2"]) == 0
    assert stored._folder() == tmp_path / "mine" and len(stored.claims()) == len(stored.runs("small")) + 1 == 3
    monkeypatch.delenv("OOD_RESULTS")
    monkeypatch.setattr(reproduce, "ROOT", tmp_path / "clone")
    monkeypatch.chdir(tmp_path)
    assert reproduce.main(["--jobs", "1", "--seeds", "2", "small"]) == 0
    assert (tmp_path / "clone" / "results" / "runs" / "small.csv").exists()


ENDLESS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
sys.path.insert(0, sys.argv[1])
import reproduce
from ood_helpers.lab import claims, paper
from ood_helpers.lab.experiment import Setting

claims.CLAIMS[:] = [claims.Claim("it ends", "5", "auroc", claims.at_least(0.5), name) for name in ("quick", "endless")]
paper.SETTINGS.clear()
paper.SETTINGS["quick"] = Setting("confident", width=200, steps=1)
paper.SETTINGS["endless"] = Setting("confident", width=4, steps=10**9)
sys.exit(reproduce.main(["--jobs", "2", "--seeds", "1", "--results", sys.argv[2]]))
"""


@pytest.mark.skipif(os.name != "posix", reason="sends the signal of Ctrl-C")
def test_ctrl_c_ends_it_and_keeps_what_is_finished(tmp_path):
    script = [sys.executable, "-c", ENDLESS, str(reproduce.ROOT / "tools"), str(tmp_path)]
    with subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True) as tool:
        try:
            while not (tmp_path / "runs" / "quick.csv").exists() and tool.poll() is None:
                time.sleep(0.1)
            os.killpg(tool.pid, signal.SIGINT)  # a terminal sends it to the tool and to its workers
            output, _ = tool.communicate(timeout=300)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(tool.pid, signal.SIGKILL)  # whatever went wrong, the endless worker must not live on
    assert tool.returncode == 130 and "finished settings are kept" in output, output
    assert [p.name for p in tmp_path.rglob("*.*")] == ["quick.csv"]
