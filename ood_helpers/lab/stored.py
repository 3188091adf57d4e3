"""The numbers of experiments on disk: one small CSV file for the runs of a setting."""

import csv
import hashlib
import io
import json
from dataclasses import asdict, fields
from pathlib import Path

from ood_helpers.files import write_whole


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
