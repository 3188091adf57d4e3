"""Run the experiments. The paper's: results/runs/*.csv, and its claims judged in results/paper_claims.csv; or those beyond it.

    make reproduce                                       all that a claim is judged by: 20 seeds each, within an hour on 2 cores
    python tools/reproduce.py reject_boundary depth      only these settings (a part of a name takes all that contain it)
    make beyond                                          what no claim asks for, and what goes beyond the paper: 1.5 hours more
    python tools/reproduce.py --beyond silent            only these settings of it

Each setting of `lab.stored.EXPERIMENTS` is a job of its own, given to joblib. The tables are in results/ beside this file's
folder, or where OOD_RESULTS says. What is finished is kept: after an interrupt the same command goes on with the rest, a setting
whose description has changed is run again, and so is one whose file is damaged. Which seeds a job trains never depends on how
many jobs run at once or where, so the table does not either. The settings at the paper's size take 2 to 6 minutes each, so they
come first.

On a cluster: install the package on every worker with its extra, `pip install -e .[dask]`, start a scheduler and workers of one
thread each, `dask scheduler` and, on each machine, `dask worker tcp://HOST:8786 --nworkers auto --nthreads 1`; then

    python tools/reproduce.py --dask tcp://HOST:8786

Results come back over the network and are written here, so the workers need no shared disk. A job needs about 1.5 GB of memory.
Workers of another kind of processor round differently: then numbers of single seeds may differ from those of this machine.
`--dask local` starts workers on this machine instead.
"""

import argparse
import contextlib
import io
import os
import sys
import warnings
from pathlib import Path

import joblib
import torch
from tqdm import tqdm

from ood_helpers.lab import claims, stored

ROOT = Path(__file__).parents[1]


def job(name, setting, seeds):
    """Train and measure one setting on one thread: (name, rows, messages). Runs in a worker, whose own bars nobody could read.

    Where an optional package is missing there are no rows, but a message that says so: the other settings do not wait for it.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("always")
            rows = sys.modules[type(setting).__module__].run(setting, seeds)  # each kind of setting has its own `run` beside it
    except ModuleNotFoundError as error:
        return name, None, [str(error)]
    finally:
        torch.set_num_threads(threads)
    return name, rows, [str(warning.message) for warning in caught]


def all_settings(beyond):
    """The settings by name: those that a claim of the paper is judged by, or all others."""
    judged = {name for claim in claims.CLAIMS for name in claim.settings}
    return {name: setting for name, setting in stored.settings().items() if (name in judged) != beyond}


def chosen(words, settings):
    """Those named by words: a whole name, or all names that contain the word. No words: all. ValueError if none does."""
    names = []
    for word in words:
        found = [word] if word in settings else [name for name in settings if word in name]
        if not found:
            raise ValueError(f"no setting's name contains {word!r}; there are {', '.join(settings)}")
        names += found
    return list(dict.fromkeys(names)) or list(settings)


def finished(name, setting, seeds, results):
    """The rows of a finished setting, for these seeds; None if there are none, with a word on why if there is a file."""
    try:
        rows = stored.load(runs_file(name, results), setting)
    except FileNotFoundError:
        return None
    except ValueError as error:
        tqdm.write(f"{error}; it does not count", file=sys.stderr)
        return None
    return rows[: len(seeds)] if [row["seed"] for row in rows][: len(seeds)] == seeds else None


def runs_file(name, results):
    return results / "runs" / f"{name}.csv"


def run(settings, seeds, results, jobs):
    """Run settings, a dict by name, the longest first, and keep each as soon as it is there."""
    costs = {name: setting.work for name, setting in settings.items()}
    todo = sorted(settings, key=costs.get, reverse=True)
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    finished = parallel(joblib.delayed(job)(name, settings[name], seeds) for name in todo)
    with tqdm(total=sum(costs.values()), bar_format="{percentage:3.0f}% |{bar}| {elapsed}, {remaining} left{postfix}") as bar:
        for name, rows, messages in finished:
            if rows is not None:
                stored.save(runs_file(name, results), settings[name], rows)
            for message in messages:
                tqdm.write(f"{name}: {message}", file=sys.stderr)
            bar.set_postfix_str(name, refresh=False)
            bar.update(costs[name])


def judge(seeds, results):
    """Write the table of claims from what is finished, unless settings are missing."""
    runs = {name: finished(name, setting, seeds, results) for name, setting in all_settings(beyond=False).items()}
    missing = [name for name, rows in runs.items() if rows is None]
    if missing:
        print(f"the table of claims is not written: {len(missing)} of {len(runs)} settings are not finished ({missing[0]}, …)")
        return
    rows = claims.table(runs, claims.CLAIMS)
    claims.write_table(results / "paper_claims.csv", rows)
    verdicts = [row["verdict"] for row in rows]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts)))
    print(f"{results.name}/paper_claims.csv: {len(rows)} rows: {counts}")


@contextlib.contextmanager
def backend(dask, jobs):
    """joblib's own worker processes, or Dask's: "local", or the address of a scheduler."""
    if dask is None:
        yield
        return
    from distributed import Client, LocalCluster  # an optional extra

    local = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None) if dask == "local" else None
    with contextlib.ExitStack() as stack:
        if local:
            stack.enter_context(local)
        stack.enter_context(Client(local or dask))
        stack.enter_context(joblib.parallel_config(backend="dask"))
        yield


def count(text):
    """A whole number of at least 1, for the command line."""
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return int(text)


def main(arguments=None):
    """Returns the exit code: 130 after an interrupt, 2 for a wrong name, else 0."""
    parser = argparse.ArgumentParser(description="Run the paper's experiments and judge its claims.")
    parser.add_argument("--beyond", action="store_true", help="the experiments that no claim of the paper asks for instead")
    parser.add_argument("names", nargs="*", help="settings, or parts of their names (default: all)")
    parser.add_argument("--jobs", type=count, default=joblib.cpu_count(), help="how many run at once (default: cores)")
    parser.add_argument("--seeds", type=count, default=20, help="networks a setting (default: 20)")
    parser.add_argument("--dask", metavar="ADDRESS", help='address of a Dask scheduler, or "local"')
    parser.add_argument("--results", type=Path, help="folder of the tables (default: OOD_RESULTS, or results/ of this checkout)")
    options = parser.parse_args(arguments)
    options.results = options.results or Path(os.environ.get("OOD_RESULTS") or ROOT / "results").expanduser()
    seeds = list(range(options.seeds))
    try:
        settings = all_settings(options.beyond)
        names = chosen(options.names, settings)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    missing = {name: settings[name] for name in names if finished(name, settings[name], seeds, options.results) is None}
    print(f"{len(names) - len(missing)} of {len(names)} settings are finished, {len(missing)} to run", flush=True)
    try:
        if missing:
            with backend(options.dask, options.jobs):
                run(missing, seeds, options.results, options.jobs if options.dask is None else -1)
    except KeyboardInterrupt:
        print("interrupted; finished settings are kept, the same command goes on with the rest", file=sys.stderr)
        return 130
    if not options.beyond:
        judge(seeds, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
