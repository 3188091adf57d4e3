"""What JupyterLab does without being told: `etc/jupyter`, which `make lab` and the hub copy into their environments."""

import json
from pathlib import Path

import pytest
from jupyterlab.commands import get_app_dir

FILE = Path(__file__).parents[1] / "etc" / "jupyter" / "labconfig" / "default_setting_overrides.json"
SETTINGS = json.loads(FILE.read_text(encoding="utf-8"))


def test_long_lines_of_code_wrap_where_the_page_ends():
    assert SETTINGS["@jupyterlab/notebook-extension:tracker"]["codeCellConfig"]["lineWrap"] is True


@pytest.mark.parametrize("plugin", SETTINGS)
def test_jupyterlab_knows_every_setting_under_this_name(plugin):
    package, name = plugin.split(":")
    schema = json.loads((Path(get_app_dir()) / "schemas" / package / f"{name}.json").read_text(encoding="utf-8"))
    for key, values in SETTINGS[plugin].items():
        known = schema["properties"][key]["default"]
        assert values.keys() <= known.keys() and all(type(known[k]) is type(v) for k, v in values.items())
