"""A class on one machine: the real configuration, started on loopback, with two students; and the files for Kubernetes."""

import contextlib
import importlib.util
import json
import os
import runpy
import secrets
import shutil
import signal
import socket
import subprocess
import sys
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


class Hub:
    """The hub of the configuration under test, with a class of two in `folder`; it and all it started end with the block."""

    def __init__(self, folder):
        self.folder, self.cache, self.log = folder, folder / "cache", folder / "hub.log"
        self.password = secrets.token_urlsafe(12)
        (folder / "students.txt").write_text("# the class\nada\nBob   # small letters are what counts\n")

    def __enter__(self):
        port, hub_port, proxy_port = free_ports(3)
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "jupyterhub", "-f", CONFIG, f"--url={self.url}", f"--JupyterHub.hub_port={hub_port}"]
        command.append(f"--ConfigurableHTTPProxy.api_url=http://127.0.0.1:{proxy_port}")
        ours = {"OOD_CLASS": str(self.folder), "OOD_CLASS_PASSWORD": self.password, "OOD_CACHE": str(self.cache)}
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "JPY_", "OOD_"))}
        environment |= ours | {"OOD_CLASS_AS_ROOT": "yes"}
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
def hub(tmp_path_factory):
    if importlib.util.find_spec("jupyterhub") is None:
        pytest.skip("JupyterHub is not installed: pip install -e .[hub]")
    if PROXY is None:
        pytest.skip("JupyterHub's proxy is not installed: npm install --global --prefix .venv configurable-http-proxy@5")
    with Hub(tmp_path_factory.mktemp("class")) as hub:
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
    assert students[0].run("import os; print(sorted(k for k in os.environ if 'PASSWORD' in k))").strip() == "[]"
    assert students[1].run("print(len(bytearray(10**9)))").strip() == "1000000000"
    assert students[1].run("held = bytearray(2 * 10**9)") == "MemoryError"


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
    for name, value in {"OOD_CLASS": str(folder), **environment}.items():
        monkeypatch.setenv(name, value)
    c = Config()
    runpy.run_path(str(CONFIG), init_globals={"get_config": lambda: c})
    return c


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "students.txt").write_text("ada\n")
    return tmp_path


def test_the_configuration_says_what_is_missing(monkeypatch, folder):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda name, path: f"/bin/{name}")
    good = {"OOD_CLASS_PASSWORD": "long enough"}
    c = settings(monkeypatch, folder, **good)
    assert "--allow-root" not in c.Spawner.args and c.Authenticator.admin_users == set()
    c = settings(monkeypatch, folder, **good, OOD_TEACHER="grace", OOD_TEACHER_PASSWORD=32 * "x")
    assert c.Authenticator.admin_users == {"grace"} and c.SharedPasswordAuthenticator.admin_password == 32 * "x"
    with pytest.raises(SystemExit, match="OOD_CLASS_PASSWORD"):
        settings(monkeypatch, folder)
    (folder / "students.txt").write_text("ada\n../bob\n")
    with pytest.raises(SystemExit, match=r"'\.\./bob'"):
        settings(monkeypatch, folder, **good)
    (folder / "students.txt").unlink()
    with pytest.raises(SystemExit, match="students' names"):
        settings(monkeypatch, folder, **good)
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    (folder / "students.txt").write_text("ada\n")
    with pytest.raises(SystemExit, match="make hub"):
        settings(monkeypatch, folder, **good)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(SystemExit, match="never root"):
        settings(monkeypatch, folder, **good)


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
    monkeypatch.setattr(shutil, "which", lambda name, path: f"/bin/{name}")
    c = settings(monkeypatch, folder, OOD_CLASS_PASSWORD="long enough", OOD_CLASS_AS_ROOT="yes")
    server = yaml.safe_load((CLASSROOM / "values.yaml").read_text())["singleuser"]
    assert {name: c.Spawner.environment[name] for name in server["extraEnv"]} == server["extraEnv"] == bench_memory.CLASSROOM
