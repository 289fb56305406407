"""Pages read as text, and opened in a browser where there is one."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --dump-dom"
)
_PROBE = """<script>addEventListener('load', () => {
  const sizes = [...document.querySelectorAll('figure svg')].filter(s => !s.closest('details'))
    .map(s => s.getBoundingClientRect()).filter(r => r.width > 100 && r.height > 50);
  const wide = document.documentElement.scrollWidth > innerWidth;
  const requests = performance.getEntriesByType('resource').length;
  document.title = `drawn=${sizes.length} wide=${wide} requests=${requests}`; });</script></body>"""


class Page(HTMLParser):
    """Tags, ids, addresses and attributes of SVG elements of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.ids, self.addresses, self.svgs, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.addresses += [attributes[name] for name in ("src", "href", "srcset", "action") if name in attributes]
        if tag == "svg":
            self.svgs.append(attributes)

    def handle_data(self, data):
        self.text.append(data)


def opened(html, folder, *, width):
    """What a browser says of a page: figures drawn outside details, wider than the window, requests made."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine: the page is only checked as text")
    (folder / "probe.html").write_text(html.replace("</body>", _PROBE), encoding="utf-8")
    flags = [*_FLAGS.split(), f"--window-size={width},900", f"--user-data-dir={folder}/profile"]
    command = [browser, *flags, (folder / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return re.search(r"<title>(.*?)</title>", done.stdout)[1]
