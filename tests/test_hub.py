"""A class on one machine: the real configuration, started on loopback, with two students; and the files for Kubernetes."""

import contextlib
import importlib.util
import json
import os
import re
import runpy
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import psutil
import pytest
import requests
import websocket
import yaml
from traitlets.config import Config

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import bench_memory

pytestmark = pytest.mark.xdist_group("hub")  # their fixtures are costly: one process for all of them

ROOT = Path(__file__).parents[1]
CLASSROOM = ROOT / "docs" / "classroom"
CONFIG = CLASSROOM / "jupyterhub_config.py"
PROXY = shutil.which("configurable-http-proxy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
NOTEBOOK = "notebooks/00_start_here.ipynb"
PATIENCE = 120  # seconds; a busy machine is not a fault of the hub
AS_ROOT = os.geteuid() == 0


def write_passwords(folder, text, mode=0o600):
    path = folder / "passwords.toml"
    path.touch(mode=0o600)
    path.write_text(text)
    path.chmod(mode)


def free_ports(number):
    """`number` ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [probe.getsockname()[1] for probe in probes]


def wait_for(condition, what):
    """The first true value of `condition()`; TimeoutError, with what was waited for, after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.ConnectionError):
            if value := condition():
                return value
        time.sleep(0.1)
    raise TimeoutError(f"not within {PATIENCE} s: {what}")


def opened(keep):
    """The beginning of a command line in which the Python that runs these tests is open to other accounts, as root's may not be.

    The command sees each closed folder on the way as an empty one with nothing but the course and its Python in it; nobody else
    does. They are kept below the folder `keep`.
    """
    needed = {Path(sys.base_prefix).resolve(), Path(sys.prefix), ROOT}
    closed = {path: next((p for p in reversed(path.parents) if not p.stat().st_mode & 0o001), None) for path in needed}
    closed = {path: folder for path, folder in closed.items() if AS_ROOT and folder}
    if not closed:
        return []
    kept = {path: keep / str(number) for number, path in enumerate(closed)}
    steps = [f"mkdir -p {place} && mount --bind {path} {place}" for path, place in kept.items()]
    steps += [f"mount -t tmpfs -o mode=755 none {folder}" for folder in set(closed.values())]
    steps += [f"mkdir -p {path} && mount --bind {place} {path}" for path, place in kept.items()]
    return ["unshare", "--mount", "sh", "-c", " && ".join([*steps, 'exec "$@"']), "sh"]


class Hub:
    """The hub of the configuration under test, with a class of two in `folder`; it and all it started end with the block."""

    def __init__(self, folder):
        self.folder, self.cache, self.log = folder, folder / "cache", folder / "hub.log"
        self.password, self.teacher_password = secrets.token_urlsafe(12), secrets.token_urlsafe(32)
        (folder / "students.txt").write_text("# the class\nada\nBob   # small letters are what counts\n")
        teacher = f'teacher = "grace"\nteacher_password = "{self.teacher_password}"\n' if AS_ROOT else ""
        write_passwords(folder, f'class = "{self.password}"\n{teacher}')

    def __enter__(self):
        port, hub_port, proxy_port = free_ports(3)
        self.url = f"http://127.0.0.1:{port}"
        command = [
            *opened(self.folder / "python"),
            sys.executable,
            "-m",
            "jupyterhub",
            "-f",
            CONFIG,
            f"--url={self.url}",
            f"--JupyterHub.hub_port={hub_port}",
        ]
        command.append(f"--ConfigurableHTTPProxy.api_url=http://127.0.0.1:{proxy_port}")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "JPY_", "OOD_"))}
        environment |= {"OOD_CLASS": str(self.folder), "OOD_CACHE": str(self.cache)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        try:
            wait_for(self.healthy, "the hub's answer")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        """Ends the hub as Ctrl-C does, and then whatever is left."""
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=30)
        for process in psutil.wait_procs(family, timeout=5)[1]:
            process.kill()
        self.process.kill()

    def healthy(self):
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text())
        return requests.get(f"{self.url}/hub/health", timeout=20).ok

    def login(self, name, password=None):
        """The answer to the login form, and the session, in which the student is logged in if the answer is ok."""
        session = requests.Session()
        session.get(f"{self.url}/hub/login", timeout=PATIENCE)
        xsrf = session.headers["X-XSRFToken"] = session.cookies.get("_xsrf", path="/hub/")
        form = {"username": name, "password": password or self.password, "_xsrf": xsrf}
        answer = session.post(f"{self.url}/hub/login?next=/hub/home", data=form, timeout=PATIENCE)
        session.headers["X-XSRFToken"] = session.cookies.get("_xsrf", path="/hub/")
        return answer, session


class Student:
    """A student who has logged in with the form and whose server is starting; `wait` until it runs."""

    def __init__(self, hub, name):
        self.hub, self.name, self.home = hub, name, hub.folder / "students" / name
        answer, session = hub.login(name)
        assert answer.ok and answer.url.endswith("/hub/home")
        self.user = f"{hub.url}/hub/api/users/{name}"
        token = session.post(f"{self.user}/tokens", json={"note": "test"}, timeout=PATIENCE).json()["token"]
        self.headers = {"Authorization": f"token {token}"}
        requests.post(f"{self.user}/server", headers=self.headers, timeout=PATIENCE).raise_for_status()

    def wait(self):
        """Returns this student when the server runs."""

        def running():
            return requests.get(self.user, headers=self.headers, timeout=PATIENCE).json()["server"]

        wait_for(running, f"the server of {self.name}")
        return self

    def ask(self, method, path, owner=None, **content):
        """The answer of this student's server, or of the one of `owner`."""
        url = f"{self.hub.url}/user/{owner or self.name}/api/{path}"
        return requests.request(method, url, headers=self.headers, timeout=PATIENCE, **content)

    def run(self, source):
        """What a cell with this source prints in a fresh kernel of this student, or the name of its error."""
        kernel = self.ask("POST", "kernels").json()["id"]
        address = f"{self.hub.url}/user/{self.name}/api/kernels/{kernel}/channels".replace("http", "ws", 1)
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": "test", "version": "5.3"}
        content = {"code": source, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": []}
        channel = websocket.create_connection(address, header=self.headers, timeout=PATIENCE)
        with contextlib.closing(channel):
            channel.send(json.dumps(request))
            said = ""
            while True:
                message = json.loads(channel.recv())
                if message["parent_header"].get("msg_id") != header["msg_id"]:
                    continue
                said += message["content"].get("text", "") if message["msg_type"] == "stream" else ""
                said += message["content"]["ename"] if message["msg_type"] == "error" else ""
                if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                    self.ask("DELETE", f"kernels/{kernel}")
                    return said


@pytest.fixture(scope="module")
def hub():
    if importlib.util.find_spec("jupyterhub") is None:
        pytest.skip("JupyterHub is not installed: pip install -e .[hub]")
    if PROXY is None:
        pytest.skip("JupyterHub's proxy is not installed: npm install --global --prefix .venv configurable-http-proxy@5")
    with tempfile.TemporaryDirectory(prefix="ood-class-") as folder, Hub(Path(folder)) as hub:  # pytest's own is closed to others
        yield hub


@pytest.fixture(scope="module")
def students(hub):
    both = Student(hub, "ada"), Student(hub, "bob")  # their servers start at the same time
    return [student.wait() for student in both]


def test_only_the_class_comes_in(hub):
    assert hub.login("ada", "a wrong password")[0].status_code == 403
    assert hub.login("eve")[0].status_code == 403
    with (hub.folder / "students.txt").open("a") as file:
        file.write("eve\n")
    assert hub.login("eve")[0].ok, "a student who comes late is one more line, without a restart"


def test_each_student_has_a_copy_of_their_own(hub, students):
    ada, bob = students
    original = json.loads((ROOT / NOTEBOOK).read_text())
    for student in students:
        notebook = student.ask("GET", f"contents/{NOTEBOOK}").json()["content"]
        assert [cell["source"] for cell in notebook["cells"]] == ["".join(cell["source"]) for cell in original["cells"]]
        assert (student.home / "course" / "results" / "paper_claims.csv").exists()
    changed = {"type": "file", "format": "text", "content": "mine"}
    assert ada.ask("PUT", "contents/notes.txt", json=changed).status_code == 201
    assert (ada.home / "course" / "notes.txt").read_text() == "mine"
    assert bob.ask("GET", "contents/notes.txt").status_code == 404
    assert bob.ask("GET", "contents/notes.txt", owner="ada").status_code == 403
    bob.headers, known = {}, bob.headers
    assert bob.ask("GET", "contents/notes.txt").status_code == 403, "without a login nothing is shown"
    bob.headers = known


TRAIN = """
from ood_helpers import cache, data, losses, models
import functools, torch
network = models.mlp(width=4, generator=torch.Generator().manual_seed(0))
{before}
cache.cached_train(network, data.TwoGaussians(), functools.partial(losses.confidence_loss, beta=1.0), steps=3, seed=0)
print(round(network[0].weight.sum().item(), 4))
"""


def test_what_one_student_trained_another_loads(hub, students):
    ada, bob = students
    trained = ada.run(TRAIN.format(before=""))
    (file,) = hub.cache.iterdir()
    written = file.stat().st_mtime_ns
    assert float(trained) == float(bob.run(TRAIN.format(before="cache.train = None  # would fail")))
    assert [path.stat().st_mtime_ns for path in hub.cache.iterdir()] == [written]


def test_a_kernel_is_in_the_course_s_environment_and_its_memory_is_limited(hub, students):
    source = "import os, sys; print(sys.prefix, os.environ['OMP_NUM_THREADS'], os.environ['OMP_WAIT_POLICY'])"
    assert students[0].run(source).split() == [sys.prefix, "1", "PASSIVE"]
    assert students[1].run("print(len(bytearray(10**9)))").strip() == "1000000000"
    assert students[1].run("held = bytearray(2 * 10**9)") == "MemoryError"


LOOK = """
import getpass, glob, os
def read(path):
    try:
        with open(path, 'rb') as file:
            return file.read()
    except OSError:
        return None
seen = {{path: content for path in [*glob.glob('/proc/[0-9]*/environ'), *glob.glob('/proc/[0-9]*/cmdline'), *{files}]
        if (content := read(path))}}
leaks = [path for path, content in seen.items() for secret in {secrets} if secret.encode() in content]
print(os.getuid(), os.getgid(), os.getgroups(), len(seen), leaks, [path for path in {files} if path in seen])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_student_s_kernel_finds_no_secret_of_the_hub(hub, students):
    """Not in any process's environment or command line, and not in the hub's files; root, which looks first, finds the token."""
    family = [process.environ() for process in psutil.Process(hub.process.pid).children(recursive=True)]
    (token,) = {environment["CONFIGPROXY_AUTH_TOKEN"] for environment in family if "CONFIGPROXY_AUTH_TOKEN" in environment}
    passwords = [hub.password, hub.teacher_password]
    for environment in [psutil.Process(hub.process.pid).environ(), *family]:
        assert not any(password in value for password in passwords for value in environment.values())
    if not AS_ROOT:
        return  # then the students are the hub's own account, and README.md says that they can read its files
    secret = [hub.folder / "passwords.toml", *(hub.folder / "hub" / name for name in ("cookie_secret", "jupyterhub.sqlite"))]
    assert all(path.exists() for path in secret)
    code = LOOK.format(files=[str(path) for path in secret], secrets=[*passwords, token])
    accounts = []
    for student in students:
        uid, gid, groups, seen, leaks, files = eval(re.sub(r"(?<=[\d\]]) (?=[\d\[])", ",", student.run(code)))
        print(f"the kernel of {student.name} runs as account {uid} of group {gid}")
        assert uid == student.home.stat().st_uid != 0 and gid != 0 and groups in ([], [gid])
        assert (leaks, files) == ([], []) and seen >= 2, "it can read what its own processes were started with"
        accounts.append(uid)
    assert len(set(accounts)) == 2
    ada, bob = students
    assert ada.run(f"import os; os.listdir({str(bob.home)!r})") == "PermissionError"
    assert ada.run(f"open({str(hub.folder / 'students' / 'eve')!r}, 'w')") == "PermissionError"


def test_the_teacher_s_password_is_no_student_s(hub):
    if AS_ROOT:
        assert hub.login("grace", hub.teacher_password)[0].ok
    assert hub.login("grace")[0].status_code == 403
    assert hub.login("ada", hub.teacher_password)[0].status_code == 403


def test_servers_that_nobody_uses_are_ended(hub):
    assert wait_for(lambda: "200 GET /hub/api/users" in hub.log.read_text(), "the idle culler's look at the servers")
    assert "(idle-culler@127.0.0.1)" in hub.log.read_text()


def test_notebook_00_opens_in_a_browser(hub, browser):
    page = browser.new_page()
    page.goto(hub.url)
    page.fill("#username_input", "ada")
    page.fill("#password_input", hub.password)
    page.press("#password_input", "Enter")
    page.wait_for_selector(".jp-NotebookPanel h1:has-text('Start here')", timeout=1000 * PATIENCE)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']", timeout=1000 * PATIENCE)
    assert page.url.endswith(f"/user/ada/lab/tree/{NOTEBOOK}")
    page.close()


def settings(monkeypatch, folder, **environment):
    """The settings that the configuration makes in this environment; SystemExit if it refuses to start."""
    for name in [name for name in os.environ if name.startswith("OOD_")]:
        monkeypatch.delenv(name)
    for name, value in {"OOD_CLASS": str(folder), "OOD_CACHE": str(folder / "cache"), **environment}.items():
        monkeypatch.setenv(name, value)
    c = Config()
    runpy.run_path(str(CONFIG), init_globals={"get_config": lambda: c})
    return c


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A class of one, on a machine with a proxy, for a hub of an account that is not root."""
    (tmp_path / "students.txt").write_text("ada\n")
    write_passwords(tmp_path, 'class = "long enough"')
    monkeypatch.setattr(shutil, "which", lambda name, path: f"/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000 if AS_ROOT else os.getuid())
    if AS_ROOT:
        os.chown(tmp_path / "passwords.toml", 1000, 1000)
    return tmp_path


def test_the_configuration_says_what_is_missing(monkeypatch, folder, capsys):
    c = settings(monkeypatch, folder)
    assert c.SharedPasswordAuthenticator.user_password == "long enough" and c.Authenticator.admin_users == set()
    assert "--allow-root" not in c.Spawner.args and "runs as the account of the hub" in capsys.readouterr().err
    (folder / "students.txt").write_text("ada\n../bob\n")
    with pytest.raises(SystemExit, match=r"'\.\./bob'"):
        settings(monkeypatch, folder)
    (folder / "students.txt").unlink()
    with pytest.raises(SystemExit, match="students' names"):
        settings(monkeypatch, folder)
    (folder / "students.txt").write_text("ada\n")
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(SystemExit, match="make hub"):
        settings(monkeypatch, folder)


@pytest.mark.parametrize("name", ["OOD_CLASS_PASSWORD", "OOD_TEACHER_PASSWORD", "CONFIGPROXY_AUTH_TOKEN", "JPY_COOKIE_SECRET"])
def test_no_secret_is_taken_from_the_environment(monkeypatch, folder, name):
    with pytest.raises(SystemExit, match=f"can read {name} in the environment: unset it"):
        settings(monkeypatch, folder, **{name: 32 * "x"})


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o644, 0o610])
def test_passwords_that_others_may_read_are_refused(monkeypatch, folder, mode):
    (folder / "passwords.toml").chmod(mode)
    with pytest.raises(SystemExit, match=r"other accounts may read .*passwords\.toml"):
        settings(monkeypatch, folder)


def test_passwords_of_another_account_are_refused(monkeypatch, folder):
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    with pytest.raises(SystemExit, match="other accounts may read"):
        settings(monkeypatch, folder)


TEACHER = 'teacher = "grace"\nteacher_password = "' + 32 * "x" + '"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must give the password of the class"),
        ('class = "short"', "at least 8 characters"),
        ("class = 12345678", "a text in quotes"),
        ("long enough", 'must hold lines like class = "…"'),
        ('class = "long enough"\nteachers = "grace"', "may say class, teacher and teacher_password"),
        ('class = "long enough"\nteacher = "grace"', "a teacher has a name of small letters"),
        ('class = "long enough"\nteacher_password = "' + 32 * "x" + '"', "a teacher has a name"),
        ('class = "long enough"\nteacher = "grace"\nteacher_password = "short"', "at least 32 characters"),
        ('class = "long enough"\n' + TEACHER.replace("grace", "Grace H"), "small letters"),
        ('class = "long enough"\n' + TEACHER, "start the hub as root, or take the teacher out"),
    ],
)
def test_what_the_file_of_passwords_must_say(monkeypatch, folder, text, says):
    write_passwords(folder, text)
    with pytest.raises(SystemExit, match=says):
        settings(monkeypatch, folder)
    (folder / "passwords.toml").unlink()
    with pytest.raises(SystemExit, match="install -m 600"):
        settings(monkeypatch, folder)


@pytest.fixture
def open_folder(monkeypatch):
    """The folder of a class for a hub of root, with a teacher and a Python that all accounts can get to."""
    if not AS_ROOT:
        pytest.skip("only root gives folders to other accounts")
    monkeypatch.setattr(shutil, "which", lambda name, path: f"/bin/{name}")
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    monkeypatch.setattr(sys, "prefix", "/usr")
    with tempfile.TemporaryDirectory(prefix="ood-class-") as name:
        Path(name).chmod(0o711)
        (Path(name) / "students.txt").write_text("ada\n")
        write_passwords(Path(name), 'class = "long enough"\n' + TEACHER)
        yield Path(name)


def test_root_s_hub_has_a_teacher_and_folders_that_are_closed(monkeypatch, open_folder):
    (open_folder / "hub").mkdir(mode=0o755)  # of an older hub
    c = settings(monkeypatch, open_folder)
    assert c.Authenticator.admin_users == {"grace"} and c.SharedPasswordAuthenticator.admin_password == 32 * "x"
    modes = [(open_folder / name).stat().st_mode & 0o777 for name in (".", "students", "hub", "cache")]
    assert modes == [0o711, 0o711, 0o700, 0o775]


def test_every_student_has_an_account_by_number(monkeypatch, open_folder):
    own_folder = settings(monkeypatch, open_folder).JupyterHub.spawner_class.make_preexec_fn.__globals__["own_folder"]
    homes = [open_folder / "students" / name for name in ("ada", "bob", "eve")]
    accounts = [own_folder(home) for home in homes]
    assert len(set(accounts)) == 3 and 0 not in accounts and [own_folder(home) for home in homes] == accounts
    assert [(home.stat().st_uid, home.stat().st_mode & 0o777) for home in homes] == [(account, 0o700) for account in accounts]
    homes[0].rmdir()
    assert own_folder(homes[0]) not in accounts[1:]
    os.chown(homes[0], 0, 0)
    with pytest.raises(PermissionError, match="belongs to account 0; give it to the student: chown -R"):
        own_folder(homes[0])


@pytest.mark.parametrize("closed", ["class", "python"])
def test_what_students_cannot_get_to_is_named(monkeypatch, open_folder, closed):
    (inside := open_folder / "closed" / "inside").mkdir(parents=True)
    (open_folder / "closed").chmod(0o700)
    if closed == "python":
        monkeypatch.setattr(sys, "prefix", str(inside))
    else:
        shutil.copy(open_folder / "students.txt", inside)
        write_passwords(inside, 'class = "long enough"')
    with pytest.raises(SystemExit, match=f"cannot get to {inside}.*, since {open_folder / 'closed'} is closed to them"):
        settings(monkeypatch, inside if closed == "class" else open_folder)


def test_a_copy_adds_what_is_new_and_keeps_what_is_there(tmp_path):
    copy_missing = runpy.run_path(str(CLASSROOM / "student.py"))["copy_missing"]
    course, home = tmp_path / "course", tmp_path / "home"
    for path in ("notebooks/a.ipynb", "notebooks/solutions/a.ipynb", "results/t.csv", "notebooks/.ipynb_checkpoints/a.ipynb"):
        (course / path).parent.mkdir(parents=True, exist_ok=True)
        (course / path).write_text("course")
    assert {str(path) for path in copy_missing(course, home)} == {
        "notebooks/a.ipynb",
        "notebooks/solutions/a.ipynb",
        "results/t.csv",
    }
    (home / "notebooks" / "a.ipynb").write_text("answered")
    (course / "notebooks" / "a.ipynb").write_text("course, second edition")
    (course / "notebooks" / "b.ipynb").write_text("new")
    assert [str(path) for path in copy_missing(course, home)] == ["notebooks/b.ipynb"]
    assert (home / "notebooks" / "a.ipynb").read_text() == "answered"
    assert copy_missing(course, home) == []
    assert not list(home.rglob("*.part"))


def test_the_files_for_kubernetes_name_what_exists():
    text, dockerfile = (CLASSROOM / "values.yaml").read_text(), (CLASSROOM / "Dockerfile").read_text()
    values = yaml.safe_load(text)
    server, hub_config = values["singleuser"], values["hub"]["config"]
    assert f"-t {server['image']['name']}:{server['image']['tag']} " in dockerfile
    assert (ROOT / server["defaultUrl"].removeprefix("/lab/tree/course/")).exists()
    python, script = server["lifecycleHooks"]["postStart"]["exec"]["command"]
    assert python == "python" and script == str(Path("/opt/course", (CLASSROOM / "student.py").relative_to(ROOT)))
    copied = [name for line in dockerfile.splitlines() if line.startswith("COPY") for name in line.split()[2:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert {"ood_helpers", "notebooks", "results", "tools", "etc", "docs/classroom"} < set(copied)
    # a class and no one else, and no secret in the file
    assert hub_config["Authenticator"] == {"allowed_users": ["ada", "bob"]}
    assert (
        hub_config["JupyterHub"]["authenticator_class"] == "shared-password" and "SharedPasswordAuthenticator" not in hub_config
    )


def test_students_have_the_same_settings_on_one_machine_and_on_many(monkeypatch, folder):
    c = settings(monkeypatch, folder)
    server = yaml.safe_load((CLASSROOM / "values.yaml").read_text())["singleuser"]
    assert {name: c.Spawner.environment[name] for name in server["extraEnv"]} == server["extraEnv"] == bench_memory.CLASSROOM
