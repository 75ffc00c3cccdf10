"""A browser, servers, and what a person does with a page."""

from __future__ import annotations

import functools
import http.server
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
from PIL import Image

CHROMIUM = os.environ.get("FOVEATE_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def served(*arguments):
    """The address of `foveate view` in a process of its own, which must end well when interrupted."""
    command = [sys.executable, "-m", "foveate", "view", *map(str, arguments), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert "http" in line, process.stderr.read()
        yield re.search(r"http://\S+", line)[0]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 0, said


@contextmanager
def opened(browser, address, size=None, **options):
    """A page that is ready; whatever the browser complains about fails the test."""
    context = browser.new_context(viewport=size or DESKTOP, **options)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    watch_requests(page)
    page.goto(address)
    page.wait_for_selector("body[data-ready=true]")
    yield page
    context.close()
    assert complaints == []


def watch_requests(page):
    """Keep the requests that are not answered yet in `page.asked`."""
    page.asked = set()

    # Playwright takes functions of Python's own only.
    def asked(request):
        page.asked.add(request)

    def answered(request):
        page.asked.discard(request)

    page.on("request", asked)
    page.on("requestfinished", answered)
    page.on("requestfailed", answered)


def settle(page):
    """The screen once nothing is asked for and nothing moves any more."""
    quiet = 0
    for _ in range(100):
        page.wait_for_timeout(150)
        quiet = 0 if page.asked else quiet + 1
        if quiet == 4:
            break
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


def show_only_discs(page):
    page.locator("[data-kind=classes]").get_by_label("Show only disc").click()


def readout(page, expected):
    """What is said under the image, once it says this."""
    page.wait_for_function("text => document.getElementById('readout').textContent.includes(text)", arg=expected)
    return page.locator("#readout").inner_text()


def pixel_under(page, x, y):
    """Row and column of the image under a point of the first pane, from what the page says."""
    page.mouse.move(x, y)
    page.mouse.move(x + 0.5, y)
    col, row = re.search(r"x, y\s+([\d ]+), ([\d ]+)", readout(page, "Classes").replace("\u2009", " ")).groups()
    return int(row.replace(" ", "")), int(col.replace(" ", ""))


@contextmanager
def static_host(folder):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    thread.join()
    server.server_close()


NAMELESS = """() => [...document.querySelectorAll('button, input, select, [tabindex="0"], [role]')]
  .filter((e) => e.offsetParent && !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')
    || e.labels?.length || e.textContent.trim() || e.getAttribute('role') === 'status'))
  .map((e) => e.outerHTML.slice(0, 120))"""

# Contrast of every visible text with the nearest opaque ground behind it.
CONTRASTS = """() => {
  const parts = (c) => c.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (c) => { const [r, g, b] = c.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0.9) return c.slice(0, 3); } return [255, 255, 255]; };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.offsetParent || e.closest('option, script')) continue;
    if (getComputedStyle(e).opacity === '0') continue;
    const [a, b] = [light(parts(getComputedStyle(e).color).slice(0, 3)), light(ground(e))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 30)]);
  }
  return found;
}"""
