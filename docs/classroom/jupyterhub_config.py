"""JupyterHub for a class on one machine. README.md beside this file explains every step.

    jupyterhub -f docs/classroom/jupyterhub_config.py --url=http://127.0.0.1:8000

Nothing secret stands here, and nothing secret may stand in the environment, which every process of the same account can read.
The passwords are in a file that no other account may read, `passwords.toml` in the folder of the class:

    class = "…"              the password of the class, at least 8 characters
    teacher = "grace"        optional: the name of the teacher, who sees and stops all servers at /hub/admin
    teacher_password = "…"   the teacher's own password, at least 32 characters

The environment says:

OOD_CLASS               the folder of the class, default ~/ood-class: `students.txt` lists who may log in, one name a line;
                        everything that the hub and the students write is below it
OOD_CACHE               trained networks, shared by all; default: the folder that `make check` fills

Started by root, the hub runs each student's server as an account of the student's own, by number: the owner of the student's
folder. Started by another account it can only run them as that account. Then they can read whatever the hub can, so there can
be no teacher.
"""

import os
import re
import shutil
import stat
import sys
import tomllib
from pathlib import Path

from jupyterhub.authenticators.shared import SharedPasswordAuthenticator
from jupyterhub.spawner import SimpleLocalProcessSpawner

COURSE = Path(__file__).resolve().parents[2]
CLASS = Path(os.environ.get("OOD_CLASS", "~/ood-class")).expanduser().resolve()
NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
AS_ROOT = os.geteuid() == 0
PROGRAMS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # those of this environment come first
PROXY = shutil.which("configurable-http-proxy", path=PROGRAMS)
STUDENTS, PASSWORDS = CLASS / "students", CLASS / "passwords.toml"
CACHE = Path(os.environ.get("OOD_CACHE") or COURSE / ".cache").expanduser().resolve()
GROUP = 60600  # of all students; their accounts follow. No system gives out 60578 to 61183, and none of them needs a name
SECRETS = ("OOD_CLASS_PASSWORD", "OOD_TEACHER_PASSWORD", "CONFIGPROXY_AUTH_TOKEN", "JPY_COOKIE_SECRET", "JUPYTERHUB_CRYPT_KEY")


def students():
    """Who may log in, read anew at every login: a student who comes late is one more line, without a restart."""
    lines = (line.partition("#")[0].strip().lower() for line in (CLASS / "students.txt").read_text().splitlines())
    return {line for line in lines if line}


class ClassAuthenticator(SharedPasswordAuthenticator):
    """One password for the class, and only for the names on the list."""

    def check_allowed(self, username, authentication=None):
        return bool(NAME.fullmatch(username)) and username in students() | self.admin_users


class ClassSpawner(SimpleLocalProcessSpawner):
    """A server in the student's folder, which is made here, as the student's own account if the hub may choose."""

    def make_preexec_fn(self, name):
        if not AS_ROOT:
            return super().make_preexec_fn(name)
        home = Path(self.home_dir)
        account = own_folder(home)

        def become_the_student():
            os.setgroups([])
            os.setgid(GROUP)
            os.setuid(account)
            os.chdir(home)

        return become_the_student


def own_folder(home):
    """The account of the student with this folder. A new student gets a folder that no other can open, and the next number."""
    accounts = range(GROUP + 1, GROUP + 500)
    free = max({GROUP} | {folder.stat().st_uid for folder in STUDENTS.iterdir()} & set(accounts)) + 1
    if not home.exists():
        home.mkdir(mode=0o700)
        os.chown(home, free, GROUP)
    account = home.stat().st_uid
    if account not in accounts:
        raise PermissionError(f"{home} belongs to account {account}; give it to the student: chown -R {free}:{GROUP} {home}")
    return account


def passwords():
    """What `passwords.toml` says, a dict; SystemExit if another account can read it, or something is wrong in it."""
    if not PASSWORDS.exists():
        sys.exit(f'write the password of the class, class = "…", into {PASSWORDS}; first: install -m 600 /dev/null {PASSWORDS}')
    if PASSWORDS.stat().st_uid != os.geteuid() or PASSWORDS.stat().st_mode & 0o077:
        sys.exit(f"other accounts may read {PASSWORDS}: make it the hub's account's own, chmod 600, and take new passwords")
    try:
        said = tomllib.loads(PASSWORDS.read_text(encoding="utf-8"))
    except ValueError as error:
        sys.exit(f'{PASSWORDS} must hold lines like class = "…" ({error})')
    if said.keys() - {"class", "teacher", "teacher_password"} or not all(isinstance(value, str) for value in said.values()):
        sys.exit(f"{PASSWORDS} may say class, teacher and teacher_password, each followed by = and a text in quotes")
    if len(said.get("class", "")) < 8:
        sys.exit(f"{PASSWORDS} must give the password of the class, class, at least 8 characters")
    if not said.keys() & {"teacher", "teacher_password"}:
        return said
    if not (NAME.fullmatch(said.get("teacher", "")) and len(said.get("teacher_password", "")) >= 32):
        sys.exit(f"{PASSWORDS}: a teacher has a name of small letters, teacher, and a teacher_password of at least 32 characters")
    if not AS_ROOT:
        sys.exit(
            "students whose code runs as the hub's own account could read the teacher's password: start the hub as root, "
            f"or take the teacher out of {PASSWORDS}"
        )
    return said


def closed_to_others(path):
    """The first folder on the way to path, or path, that another account cannot pass; None if it can."""
    return next((part for part in [*reversed(path.parents), path] if not part.stat().st_mode & stat.S_IXOTH), None)


if there := [name for name in SECRETS if name in os.environ]:
    sys.exit(
        f"every process of this account can read {', '.join(there)} in the environment: unset it; passwords go to {PASSWORDS}"
    )
if not (CLASS / "students.txt").exists():
    sys.exit(f"write the students' names into {CLASS / 'students.txt'}, one a line")
if wrong := sorted(name for name in students() if not NAME.fullmatch(name)):
    sys.exit(f"{CLASS / 'students.txt'}: a name is a letter, then letters, digits, - and _, not {', '.join(map(repr, wrong))}")
if PROXY is None:
    sys.exit("the hub needs its proxy: `make hub` installs it with npm, which comes with Node.js 20 or newer")

said = passwords()
for folder, mode in [(CLASS, 0o711), (STUDENTS, 0o711), (CLASS / "hub", 0o700), (CACHE, 0o775)]:
    folder.mkdir(parents=True, exist_ok=True)
    if AS_ROOT:
        folder.chmod(mode)  # students pass through the first two and see no list; what they train they all keep in the cache
if AS_ROOT:
    os.chown(CACHE, 0, GROUP)
    for path in (STUDENTS, CACHE, COURSE, Path(sys.prefix), Path(sys.executable).resolve()):
        if closed := closed_to_others(path):
            sys.exit(
                f"the students' accounts cannot get to {path}, since {closed} is closed to them: "
                "take folders that all may read, such as /srv/ood-class for OOD_CLASS and /opt for the course and its Python"
            )
else:
    print("the students' code runs as the account of the hub and can read all that it can, see README.md", file=sys.stderr)

c = get_config()  # noqa: F821

# who may come in
c.JupyterHub.authenticator_class = ClassAuthenticator
c.SharedPasswordAuthenticator.user_password = said["class"]
c.SharedPasswordAuthenticator.admin_password = said.get("teacher_password")
c.Authenticator.admin_users = {said["teacher"]} if "teacher" in said else set()
c.Authenticator.any_allow_config = True  # the list of students is one

# what the hub keeps
c.JupyterHub.db_url = f"sqlite:///{CLASS / 'hub' / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(CLASS / "hub" / "cookie_secret")
c.ConfigurableHTTPProxy.command = [PROXY]
c.ConfigurableHTTPProxy.pid_file = str(CLASS / "hub" / "proxy.pid")

# each student's server: JupyterLab in this environment, on their own copy of the course
c.JupyterHub.spawner_class = ClassSpawner
c.SimpleLocalProcessSpawner.home_dir_template = str(STUDENTS / "{username}")
c.Spawner.notebook_dir = "~/course"
c.Spawner.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.Spawner.cmd = [sys.executable, str(Path(__file__).with_name("student.py")), sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = [
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--MappingKernelManager.cull_idle_timeout=3600",  # a kernel left alone for an hour ends, even in an open tab
    "--MappingKernelManager.cull_connected=True",
]
c.Spawner.environment = {
    "PATH": PROGRAMS,  # a terminal finds this environment too
    "OOD_CACHE": str(CACHE),  # written in whole files, so it can be shared
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
