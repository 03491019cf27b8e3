"""The report in a real browser: loaded without a complaint, at a telephone's width."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from synthetic_study import write_study

from sciml_hpc.studies.report.command import report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0",
    "--window-size=390,844", "--dump-dom",
)  # fmt: skip
MEASURE = """<script>
addEventListener("load", () => {
  const page = document.documentElement;
  const drawn = [...document.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().height > 50).length;
  page.dataset.seen = [innerWidth, page.scrollWidth, drawn, getComputedStyle(document.body).marginTop].join(" ");
  console.error("the test hears the console");
});
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed (apt-get install chromium)")
def test_a_browser_shows_the_page_without_a_complaint(tmp_path: Path) -> None:
    write_study(tmp_path / "study", pictures=True)
    report([tmp_path / "study"], tmp_path / "report.html", None, None, [8, 16])
    page = (tmp_path / "report.html").read_text()
    measured = tmp_path / "measured.html"  # the page itself forbids scripts
    measured.write_text(page.replace("; img-src", "; script-src 'unsafe-inline'; img-src").replace("</body>", MEASURE))
    command = [BROWSER, *OPTIONS, f"--user-data-dir={tmp_path / 'profile'}", measured.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    console = re.findall(r"CONSOLE.*", done.stderr)
    assert [line for line in console if "the test hears the console" not in line] == []
    assert len(console) == 1
    seen = re.search(r'data-seen="(\d+) (\d+) (\d+) (\w+)"', done.stdout)
    assert seen, done.stdout[:2000]
    assert int(seen[1]) <= 500
    assert int(seen[2]) <= int(seen[1]), "the page is wider than the window"
    assert int(seen[3]) == page.count("<svg ")
    assert seen[4] == "0px", "the style was not applied"
