"""A real JupyterLab driven in a headless Chromium, as a student would use it: open, Run All, move a slider, look.

    with chromium() as browser, Lab(folder) as lab, lab.open(browser, "02_confident_classifier.ipynb") as notebook:
        notebook.run_all()
        assert not notebook.errors()
        for demo in notebook.demos():
            demo.press(demo.sliders()[0], "ArrowRight")
            demo.picture(), demo.sentence()

A *demo* is an element with the class `ood-demo` that holds sliders, buttons, one picture (an `img`) and one sentence
(the class `ood-sentence`). Nothing here sleeps: every wait is for a condition, and says what it waited for when it gives up.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

ARTIFACTS = Path(__file__).parent / "artifacts"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
OVERRIDES = {
    # JupyterLab draws only the cells in view; without windowing every demo is in the page
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    # nothing may be fetched, and no question about news may lie over the page
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
}


def chromium_path():
    """The Chromium to drive, or None: the one that the variable CHROMIUM names, else the first found on the PATH."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def missing():
    """What must be installed before a browser can be driven, in words; an empty string when nothing is missing."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "the package playwright is not installed: pip install playwright"
    if chromium_path() is None:
        return f"no Chromium found ({', '.join(CHROMIUM_NAMES)}): install one, or name it in the variable CHROMIUM"
    return ""


@contextmanager
def chromium():
    """A headless browser window for the length of a `with` block; it keeps nothing from earlier runs."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=list(CHROMIUM_FLAGS))
        yield browser.new_context(viewport={"width": 1280, "height": 800})
        browser.close()


class Lab:
    """A JupyterLab server for one folder, on a free port of this machine, blind to the user's own settings.

    folder   the folder whose notebooks are opened; running a notebook may change its files, so hand in a copy
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.token = secrets.token_hex(16)

    def __enter__(self):
        self._state = tempfile.TemporaryDirectory(prefix="lab-", ignore_cleanup_errors=True)
        state = Path(self._state.name)
        (state / "app").mkdir()
        (state / "app" / "overrides.json").write_text(json.dumps(OVERRIDES))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.log = state / "server.log"
        with self.log.open("w") as log:
            self._server = subprocess.Popen(
                self._command(state), cwd=self.folder, env=self._environment(state), stdout=log, stderr=log
            )
        try:
            self._wait_until_ready(timeout=60)
        except Exception:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        if self._server.poll() is None:
            self.shutdown_kernels()
            self._server.terminate()
            self._server.wait(timeout=20)
        self._state.cleanup()

    def _command(self, state):
        return [
            sys.executable,
            "-m",
            "jupyterlab",
            "--no-browser",
            "--allow-root",  # containers often run as root
            "--expose-app-in-browser",  # lets a test ask the page whether the kernel has answered everything
            f"--ServerApp.root_dir={self.folder}",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0",
            f"--IdentityProvider.token={self.token}",
            f"--LabApp.app_settings_dir={state / 'app'}",
            f"--LabApp.user_settings_dir={state / 'user'}",
            f"--LabApp.workspaces_dir={state / 'workspaces'}",
            "--LabApp.news_url=None",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        ]

    def _environment(self, state):
        """The caller's environment with every place where Jupyter keeps a user's state moved into `state`.

        Kernels and widget extensions are still found: Jupyter also looks below sys.prefix.
        """
        moved = {name: str(state / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "JPY_"))}
        return {**kept, **moved, "JUPYTER_RUNTIME_DIR": str(state / "runtime"), "JUPYTER_PREFER_ENV_PATH": "1"}

    def _wait_until_ready(self, timeout):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._server.poll() is not None:
                raise RuntimeError(f"jupyter lab stopped with exit code {self._server.returncode}:\n{self.log.read_text()}")
            try:
                self._request("GET", "api/status")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        raise TimeoutError(f"jupyter lab did not answer within {timeout} s:\n{self.log.read_text()}")

    def _request(self, method, path):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or "null")

    def shutdown_kernels(self):
        """Ends every kernel of the server, so that one notebook's memory is free before the next is opened."""
        for session in self._request("GET", "api/sessions"):
            self._request("DELETE", f"api/sessions/{session['id']}")

    @contextmanager
    def open(self, browser, name):
        """Opens notebook `name`, a path below the folder, in a page of its own; closes page and kernel at the end."""
        page = browser.new_page()
        try:
            page.goto(f"http://127.0.0.1:{self.port}/lab/tree/{name}?reset&token={self.token}")
            yield Notebook(page)
        finally:
            page.close()
            self.shutdown_kernels()


class Notebook:
    """A notebook that is open in a page, with its kernel running."""

    def __init__(self, page):
        self.page = page
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
        page.wait_for_function(f"{KERNEL}?.connectionStatus === 'connected' && {KERNEL}.status === 'idle'", timeout=60_000)
        page.evaluate(RECORD_ERRORS)
        page.evaluate(COUNT_MESSAGES)

    def menu(self, menu, item):
        """Chooses an item of JupyterLab's menu bar with the mouse."""
        self.page.locator(".lm-MenuBar-itemLabel").get_by_text(menu, exact=True).click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text(item, exact=True).click()

    def run_all(self, timeout=300):
        """Run > Run All Cells, after clearing old outputs; waits for the last cell, or for the cell that fails.

        timeout   seconds for the whole notebook
        Raises TimeoutError with the cells' prompts when the notebook takes longer.
        """
        from playwright.sync_api import TimeoutError as GaveUp

        self.menu("Edit", "Clear Outputs of All Cells")
        self.page.wait_for_function(f"({PROMPTS})().every(prompt => !/\\d/.test(prompt))")
        self.menu("Run", "Run All Cells")
        finished = f"""() => {{
            const prompts = ({PROMPTS})();
            const failed = document.querySelector({json.dumps(ERROR_OUTPUTS)});
            return !prompts.some(p => p.includes('*')) && (failed || prompts.every(p => /\\d/.test(p)));
        }}"""
        try:
            self.page.wait_for_function(finished, timeout=1000 * timeout)
        except GaveUp:
            raise TimeoutError(f"not finished after {timeout} s, prompts: {self.page.evaluate(PROMPTS)}") from None
        self.settle()

    def settle(self):
        """Waits until the kernel has answered everything sent so far and the page has taken in the answers.

        A widget keeps a change back until the kernel has dealt with the one before, and the kernel deals with widgets in a thread
        of their own: so the page keeps count of its messages, and each is answered when the kernel says that it is idle again.
        """
        self.page.evaluate(SETTLE)

    def errors(self):
        """Texts of all errors: in the cells' outputs, of widgets that cannot be shown, and in callbacks, which show nothing."""
        shown = [text.strip() for text in self.page.locator(ERROR_OUTPUTS).all_inner_texts()]
        return shown + [text for text in self.page.evaluate("window.kernelErrors") if not any(text in s for s in shown)]

    def demos(self):
        """The demos of the notebook, from top to bottom."""
        found = self.page.locator(".jp-OutputArea .ood-demo, .jp-OutputArea .ood-map:not(.ood-demo .ood-map)").all()
        return [(Map if "ood-map" in element.get_attribute("class") else Demo)(self, element) for element in found]

    def questions(self):
        """The quick questions of the notebook, from top to bottom."""
        return [Question(self, element) for element in self.page.locator(".jp-OutputArea .ood-question").all()]

    def screenshot(self, name):
        """Keeps a picture of the page as tests/artifacts/name.png."""
        ARTIFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png")


class Demo:
    """One interactive demo: sliders and buttons above a picture and a sentence."""

    def __init__(self, notebook, element):
        self.notebook, self.element = notebook, element

    def sliders(self):
        """The handles of the sliders, in order."""
        return self.element.locator(".noUi-handle").all()

    def label(self, slider):
        """The text before a slider."""
        return slider.evaluate("handle => handle.closest('.widget-slider').querySelector('.widget-label').textContent")

    def values(self):
        """The sliders' positions as numbers, in order."""
        return [float(slider.get_attribute("aria-valuenow")) for slider in self.sliders()]

    def button(self, label):
        """The button with this label."""
        return self.element.locator("button").get_by_text(label, exact=True)

    def presets(self):
        """The labels of the push buttons other than Reset, in order."""
        labels = self.element.locator(PUSH_BUTTONS).all_inner_texts()
        return [label.strip() for label in labels if label.strip() != "Reset"]

    def step(self, slider):
        """Moves a slider one step by keyboard: to the right, or to the left where it is at its end."""
        at_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
        self.press(slider, "ArrowLeft" if at_end else "ArrowRight")

    def click(self, label):
        """Presses the button with this label by keyboard, and waits for the kernel's answer."""
        self.press(self.button(label), "Enter")

    def press(self, element, key):
        """Gives an element the focus, presses a key such as "ArrowRight", and waits for the kernel's answer."""
        element.press(key)
        self.notebook.settle()

    def picture(self):
        """A fingerprint of the picture's bytes; raises an error when the picture is broken."""
        maps = self.element.locator(".ood-map")
        return maps.evaluate(PIXELS) if maps.count() else self.element.locator("img").evaluate(FINGERPRINT)

    def sentence(self):
        """The sentence beside the picture, as text."""
        return re.sub(r"\s+", " ", self.element.locator(".ood-sentence").inner_text()).strip()

    def screenshot(self, name):
        """Keeps a picture of the demo as tests/artifacts/name.png."""
        ARTIFACTS.mkdir(exist_ok=True)
        self.element.screenshot(path=ARTIFACTS / f"{name}.png")


class Map(Demo):
    """A living map (the class `ood-map`): the page draws it, and the kernel adds the sentence."""

    def sliders(self):
        return self.element.locator("input[type=range]").all()

    def label(self, slider):
        return slider.evaluate("slider => slider.closest('label').firstChild.textContent")

    def values(self):
        return [float(slider.input_value()) for slider in self.sliders()]

    def presets(self):
        labels = self.element.locator("button").all_inner_texts()
        return [label.strip() for label in labels if label.strip() != "Reset"]

    def step(self, slider):
        at_end = slider.input_value() == slider.get_attribute("max")
        self.press(slider, "ArrowLeft" if at_end else "ArrowRight")

    def press(self, element, key):
        super().press(element, key)
        self.ready()

    def ready(self):
        """Waits until the map is in sight, where it has its size, is drawn, and has its sentence."""
        self.element.scroll_into_view_if_needed()
        self.element.evaluate(DRAWN)

    def picture(self):
        self.ready()
        return self.element.evaluate(PIXELS)

    def sentence(self):
        self.ready()
        return re.sub(r"\s+", " ", self.element.locator(".said").inner_text()).strip()


class Question:
    """A quick question: a button for each choice, and below them the reason for the one that was chosen."""

    def __init__(self, notebook, element):
        self.notebook, self.element = notebook, element

    def answers(self):
        """What is said to each choice, from first to last, chosen by keyboard: Tab leads from one to the next."""
        said = []
        for button in self.element.locator("button:not(.ood-vote button)").all():
            if said:
                self.notebook.page.keyboard.press("Tab")
            else:
                button.focus()
            self.notebook.page.keyboard.press("Enter")
            self.notebook.settle()
            said.append(self.element.locator("[role=status]").inner_text())
        return said


PIXELS = """element => {
    const root = element.matches('.ood-map') ? element : element.querySelector('.ood-map');
    const { pixels: all, side, network } = root.oodView;
    const pixels = network?.tiles ? all.subarray(0, all.length >> 4) : all; // a slice gets sharper in the middle
    return `${pixels.reduce((sum, p) => (Math.imul(sum, 31) + p) | 0, 7)} of ${side} rows`;
}"""
DRAWN = """root => new Promise((done, failed) => {
    const look = (left) => {
        const said = root.querySelector('.said'), { done: drawn, job, waiting } = root.oodView;
        const missing = said.textContent === '…' || root.getAttribute('aria-busy') === 'true';
        if (drawn === job && !waiting && !missing) done();
        else if (left) setTimeout(look, 50, left - 1);
        else failed(new Error(`after 60 s: drawn ${drawn} of ${job}, "${said.textContent}"`));
    };
    requestAnimationFrame(() => setTimeout(look, 0, 1200)); // after the page's own look at sizes
})"""
# neither a toggle button nor an option of a group of toggle buttons
PUSH_BUTTONS = "button.jupyter-button:not(.widget-toggle-button):not(.widget-toggle-buttons *)"
KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
# JupyterLab shows tracebacks and the stream stderr alike; neither belongs into a course
ERROR_OUTPUTS = ", ".join(
    (
        ".jp-OutputArea [data-mime-type='application/vnd.jupyter.stderr']",
        ".jp-OutputArea [data-mime-type='application/vnd.jupyter.error']",
        ".jp-OutputArea .jupyter-widgets-error-widget",
    )
)
# "[3]:" for each code cell that is not empty, "[*]:" while it waits or runs; a cell whose code is folded away has one, too
PROMPTS = """() => window.jupyterapp.shell.currentWidget.content.widgets
    .filter(cell => cell.model.type === 'code' && cell.model.sharedModel.getSource().trim())
    .map(cell => cell.inputArea.promptNode.textContent)"""
# an exception in a widget's callback belongs to no cell: JupyterLab hides it in its log, so listen to the kernel itself
RECORD_ERRORS = f"""() => {{
    window.kernelErrors = [];
    {KERNEL}.iopubMessage.connect((_, message) => {{
        const content = message.content;
        if (message.header.msg_type === 'error') window.kernelErrors.push(content.ename + ': ' + content.evalue);
    }});
}}"""
COUNT_MESSAGES = f"""() => {{
    window.unanswered = new Set();
    {KERNEL}.anyMessage.connect((_, {{msg, direction}}) => {{
        if (direction === 'send' && msg.channel === 'shell') window.unanswered.add(msg.header.msg_id);
        const idle = msg.header.msg_type === 'status' && msg.content.execution_state === 'idle';
        if (direction === 'recv' && idle) window.unanswered.delete(msg.parent_header.msg_id);
    }});
}}"""
# two frames: one in which a change that was kept back is sent, one in which an answer is drawn
SETTLE = f"""async () => {{
    const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    do {{
        await {KERNEL}.requestKernelInfo();
        await frame();
        await frame();
    }} while (window.unanswered.size);
}}"""
FINGERPRINT = """async image => {
    await image.decode();
    const bytes = await (await fetch(image.src)).arrayBuffer();
    const digest = await crypto.subtle.digest('SHA-256', bytes);
    return [...new Uint8Array(digest)].map(byte => byte.toString(16).padStart(2, '0')).join('');
}"""
