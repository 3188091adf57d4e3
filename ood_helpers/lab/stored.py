"""The numbers of experiments on disk: where they are, and one small CSV file for the runs of a setting.

`runs` and `claims` read what is stored; `save` and `load` are for files anywhere.
"""

import csv
import difflib
import hashlib
import io
import json
import os
from dataclasses import asdict, fields
from pathlib import Path

from ood_helpers.files import write_whole

from . import claims as verdicts
from . import closed, detectors, horizons, objections, paper, samples

EXPERIMENTS = (
    paper,
    horizons,
    samples,
    detectors,
    closed,
    objections,
)  # each with a dict SETTINGS, by name, and, for these, `run`
_REMEDY = (
    "run from a clone of the course, bring the tables back with `git checkout results`, set OOD_RESULTS to their folder, "
    "or make them anew with `make reproduce` and `make beyond`"
)


def _folder():
    """The folder with `paper_claims.csv` and `runs/`; FileNotFoundError that says what to do if there is none.

    It is the one that the environment variable OOD_RESULTS names. Without it, `results` in the working directory or the nearest
    folder above, then the one beside this package's own checkout.
    """
    named, here = os.environ.get("OOD_RESULTS"), Path.cwd()
    beside = [place / "results" for place in (here, *here.parents, Path(__file__).resolve().parents[2])]
    for place in [Path(named).expanduser()] if named else beside:
        if (place / "paper_claims.csv").is_file() and (place / "runs").is_dir():
            return place
    where = f"in {named}, which OOD_RESULTS names" if named else f"in a folder results/ at or above {here}"
    raise FileNotFoundError(f"the stored tables (paper_claims.csv and runs/) are not {where}: {_REMEDY}")


def settings() -> dict:
    """All settings by name: whatever the course has stored runs of."""
    return {name: setting for module in EXPERIMENTS for name, setting in module.SETTINGS.items()}


def runs(name: str) -> list[dict]:
    """The stored rows of a setting by its name, one dict per seed, with the setting's `columns`.

    FileNotFoundError if they are not there, ValueError if they are damaged, of another setting, or no setting has this name.
    """
    known = settings()
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=3) or sorted(known)
        raise ValueError(f"no setting has the name {name!r}; there are {', '.join(near)}, …")
    path = _folder() / "runs" / f"{name}.csv"
    try:
        return load(path, known[name])
    except FileNotFoundError:
        raise FileNotFoundError(f"there are no stored runs of {name} in {path.parent}: {_REMEDY}") from None
    except ValueError as error:
        raise ValueError(f"{error}: {_REMEDY}") from error


def claims() -> list[dict]:
    """The stored table of claims, see `claims.table`. Errors as for `runs`."""
    path = _folder() / "paper_claims.csv"
    try:
        rows = verdicts.read_table(path)
    except ValueError as error:
        raise ValueError(f"{error}: {_REMEDY}") from error
    if [(row["claim"], row["setting"]) for row in rows] != [(claim.text, claim.of) for claim in verdicts.CLAIMS]:
        raise ValueError(f"{path} has other claims than `lab.claims.CLAIMS`: {_REMEDY}")
    return rows


def save(path, setting, rows):
    """Keep the rows of `run` in a CSV file: the setting in its first line, a checksum in the second, then one line per seed."""
    table = io.StringIO()
    writer = csv.DictWriter(table, setting.columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    described = f"# {json.dumps(asdict(setting), default=lambda number: number.item())}"
    text = f"{described}\n# {_checksum(described, table.getvalue())}\n{table.getvalue()}"
    write_whole(Path(path), text.encode())


def load(path, setting):
    """The rows that `save` kept for this setting. FileNotFoundError if there are none, ValueError that says why they don't count.

    A field that `Setting` has gained since then counts as having had its default.
    """
    try:
        described, checksum, table = Path(path).read_text(encoding="utf-8").split("\n", 2)
        if checksum != f"# {_checksum(described, table)}":
            raise ValueError("its checksum is wrong")
        made_by = json.loads(described.removeprefix("# "))
        rows = [_parse(row, setting.columns) for row in csv.DictReader(io.StringIO(table))]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged, or not a table of runs ({error})") from error
    defaults = {field.name: field.default for field in fields(setting)}
    if defaults | made_by != asdict(setting):
        raise ValueError(f"{path} was made with another setting: {made_by}")
    return rows


def _parse(row, columns):
    numbers = {name: float(row[name]) for name in columns[2:]}
    return {"seed": int(row["seed"]), "diverged": {"True": True, "False": False}[row["diverged"]], **numbers}


def _checksum(described, table):
    return hashlib.sha256(f"{described}\n{table}".encode()).hexdigest()[:16]
