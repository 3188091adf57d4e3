"""JupyterHub for a class on one machine. README.md beside this file explains every step.

    jupyterhub -f docs/classroom/jupyterhub_config.py --url=http://127.0.0.1:8000

Nothing secret stands here. The environment says:

OOD_CLASS_PASSWORD      the password of the class, at least 8 characters
OOD_CLASS               the folder of the class, default ~/ood-class: `students.txt` lists who may log in, one name a line;
                        everything that the hub and the students write is below it
OOD_TEACHER             optional: the name of the teacher, who sees and stops all servers at /hub/admin
OOD_TEACHER_PASSWORD    the teacher's own password, at least 32 characters
OOD_CACHE               trained networks, shared by all; default: the folder that `make check` fills
"""

import os
import re
import shutil
import sys
from pathlib import Path

from jupyterhub.authenticators.shared import SharedPasswordAuthenticator

COURSE = Path(__file__).resolve().parents[2]
CLASS = Path(os.environ.get("OOD_CLASS", "~/ood-class")).expanduser().resolve()
NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
AS_ROOT = os.geteuid() == 0
PROGRAMS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # those of this environment come first
PROXY = shutil.which("configurable-http-proxy", path=PROGRAMS)


def students():
    """Who may log in, read anew at every login: a student who comes late is one more line, without a restart."""
    lines = (line.partition("#")[0].strip().lower() for line in (CLASS / "students.txt").read_text().splitlines())
    return {line for line in lines if line}


class ClassAuthenticator(SharedPasswordAuthenticator):
    """One password for the class, and only for the names on the list."""

    def check_allowed(self, username, authentication=None):
        return bool(NAME.fullmatch(username)) and username in students() | self.admin_users


if AS_ROOT and os.environ.get("OOD_CLASS_AS_ROOT") != "yes":
    sys.exit("the students' code runs as the account that starts the hub: take one that holds nothing else, never root")
if not os.environ.get("OOD_CLASS_PASSWORD"):
    sys.exit("set OOD_CLASS_PASSWORD to the password of the class")
if not (CLASS / "students.txt").exists():
    sys.exit(f"write the students' names into {CLASS / 'students.txt'}, one a line")
if wrong := sorted(name for name in students() if not NAME.fullmatch(name)):
    sys.exit(f"{CLASS / 'students.txt'}: a name is a letter, then letters, digits, - and _, not {', '.join(map(repr, wrong))}")
if PROXY is None:
    sys.exit("the hub needs its proxy: `make hub` installs it with npm, which comes with Node.js 20 or newer")

c = get_config()  # noqa: F821

# who may come in
c.JupyterHub.authenticator_class = ClassAuthenticator
c.SharedPasswordAuthenticator.user_password = os.environ["OOD_CLASS_PASSWORD"]
c.SharedPasswordAuthenticator.admin_password = os.environ.get("OOD_TEACHER_PASSWORD")
c.Authenticator.admin_users = set(filter(None, [os.environ.get("OOD_TEACHER")]))
c.Authenticator.any_allow_config = True  # the list of students is one

# what the hub keeps
(CLASS / "hub").mkdir(mode=0o700, exist_ok=True)
c.JupyterHub.db_url = f"sqlite:///{CLASS / 'hub' / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(CLASS / "hub" / "cookie_secret")
c.ConfigurableHTTPProxy.command = [PROXY]
c.ConfigurableHTTPProxy.pid_file = str(CLASS / "hub" / "proxy.pid")

# each student's server: JupyterLab in this environment, on their own copy of the course
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = str(CLASS / "students" / "{username}")
c.Spawner.notebook_dir = "~/course"
c.Spawner.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.Spawner.cmd = [sys.executable, str(Path(__file__).with_name("student.py")), sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = [
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--MappingKernelManager.cull_idle_timeout=3600",  # a kernel left alone for an hour ends, even in an open tab
    "--MappingKernelManager.cull_connected=True",
    *(["--allow-root"] if AS_ROOT else []),
]
c.Spawner.environment = {
    "PATH": PROGRAMS,  # a terminal finds this environment too
    "OOD_CACHE": os.environ.get("OOD_CACHE", str(COURSE / ".cache")),  # written in whole files, so it can be shared
    "OMP_NUM_THREADS": "1",  # thirty kernels share the cores
    "OMP_WAIT_POLICY": "PASSIVE",
}
c.Spawner.mem_limit = "1.5G"  # of each process, by student.py
c.Spawner.start_timeout = c.Spawner.http_timeout = 180  # a whole class logs in at once

# a server left alone for an hour ends
c.JupyterHub.services = [
    {"name": "idle-culler", "command": [sys.executable, "-m", "jupyterhub_idle_culler", "--timeout=3600"]},
]
c.JupyterHub.load_roles = [
    {
        "name": "idle-culler",
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        "services": ["idle-culler"],
    },
]
