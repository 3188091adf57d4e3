"""The README's Python runs as it stands."""

import re
from pathlib import Path

import torch
from torch import nn

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8"), flags=re.S)


def run(block, capsys):
    exec(compile(block, "README.md", "exec"), {})
    return capsys.readouterr().out


def test_a_network_of_your_own(tmp_path, monkeypatch, capsys):
    (block,) = (block for block in BLOCKS if "my_network.pt" in block)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 3))
    torch.save(network.state_dict(), tmp_path / "my_network.pt")
    monkeypatch.chdir(tmp_path)
    *sectors, area = run(block, capsys).splitlines()
    assert sectors and all(re.fullmatch(r"from -?[\d.]+ rad, [\d.]+ wide: k\* = [012](, a tie)?", line) for line in sectors)
    low, high = map(float, re.search(r"on ([\d.]+)% to ([\d.]+)%", area).groups())
    assert 0 <= low <= high <= 100 and high - low < 0.01


def test_a_network_of_the_course(capsys):
    (block,) = (block.replace("steps=1500", "steps=5") for block in BLOCKS if "training.train" in block)
    assert run(block, capsys).startswith("[")
