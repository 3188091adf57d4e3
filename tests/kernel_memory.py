"""A pytest plugin for the run of the notebooks: what a kernel holds after its last cell stays within the course's reach.

    PYTHONPATH=tests python -m pytest --nbval-lax -p kernel_memory notebooks

nbval runs every notebook in a kernel of its own anyway, so this costs nothing: it looks at the kernel before nbval ends it.
"""

import psutil
import pytest
from nbval.plugin import IPyNbCell

from ood_helpers.kernel import memory


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Fail the last cell of a notebook whose kernel holds more than `memory.reach()`."""
    last = isinstance(item, IPyNbCell) and (nextitem is None or nextitem.parent is not item.parent)
    resident = psutil.Process(item.parent.kernel.km.provisioner.pid).memory_info().rss if last else 0
    result = yield
    if resident > memory.reach():
        held = f"{item.parent.path.name}: the kernel holds {resident / 1e6:.0f} MB after its last cell"
        more = f"more than {memory.reach() / 1e6:.0f}; python tools/bench_memory.py says which notebooks hold how much"
        pytest.fail(f"{held}, {more}", pytrace=False)
    return result
