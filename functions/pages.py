"""The server's own two pages: where to go from here, and how to get the viewer.

Plain HTML without scripts; the style is named by its hash in the content policy, and
nothing else may be loaded.

Source: Content Security Policy Level 3.
"""

import asyncio
import base64
import hashlib
from html import escape
from pathlib import Path

from starlette.responses import HTMLResponse, Response

from functions.call import Call

_STYLE = """
:root { color-scheme: light dark; --line: #8885;
  --accent: light-dark(#0b5cad, #8ec5ff) }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2.5rem auto;
  padding: 0 1.25rem }
h1 { font-size: 1.6rem; margin: 0 0 .5rem }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
a { color: var(--accent) }
a:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
.main { display: inline-block; padding: .6rem 1.1rem; border-radius: .4rem;
  border: 2px solid var(--accent); font-weight: 600; text-decoration: none }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0;
  border-bottom: 1px solid var(--line) }
th { font-weight: 600 }
td { overflow-wrap: anywhere }
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line);
  border-radius: .4rem }
code { font-family: ui-monospace, monospace; font-size: .92em }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
{content}
</main>
</body>
</html>
"""
_START = """<h1>DICOM Functions</h1>
<p>This DICOMweb server is running. {access}</p>
{viewer}
<h2>Addresses</h2>
<table>
<tr><th scope="row">For DICOMweb clients</th>
<td><code>{base}</code></td></tr>
<tr><th scope="row">Latest studies</th>
<td><a href="{base}/studies?limit=10">{base}/studies?limit=10</a></td></tr>
<tr><th scope="row">What happened</th>
<td><a href="{root}/v2/changefeed">{root}/v2/changefeed</a></td></tr>
<tr><th scope="row">API description</th>
<td><a href="{root}/v2/api.yaml">api.yaml</a>,
<a href="{root}/v2/api.json">api.json</a> (OpenAPI; the same below
<code>/v1</code>)</td></tr>
<tr><th scope="row">Health</th>
<td><a href="{root}/health/check">{root}/health/check</a></td></tr>
</table>
<h2>Try it</h2>
<pre><code># store a file
curl -H 'Content-Type: application/dicom' --data-binary @FILE.dcm \\
  {base}/studies
# find studies by the beginning of a name
curl '{base}/studies?PatientName=Samp*'</code></pre>
<p>The README has the same for Python; <code>docs/</code> beside it says the rest:
quickstart, conformance statements, settings, errors.</p>"""
_OPEN_TO_ALL = (
    "Nobody is asked for a password: set <code>DICOM_SECURITY=true</code> before others"
    " can reach it."
)
_VIEWER = '<p><a class="main" href="/viewer/">Open the viewer</a></p>'
_NO_VIEWER = """<p><strong>There is no viewer yet.</strong> Everything else works.
<code>./dev serve</code> fetches OHIF with npm once it is up, which needs Node.js and
about a minute; its output says how that went. By hand:
<code>.venv/bin/python -m cli viewer</code>. Then load this page again.</p>"""


async def start_page(call: Call) -> Response:
    """Where to go: the viewer, the addresses, two commands to try."""
    settings = call.runtime.settings
    base = f"{call.root}/v2"
    if settings.data_partitions:
        base += f"/partitions/{call.partition.name}"
    has_viewer = await asyncio.to_thread((settings.viewer / "index.html").is_file)
    content = _START.format(
        access="" if settings.security else _OPEN_TO_ALL,
        viewer=_VIEWER if has_viewer else _NO_VIEWER,
        base=escape(base),
        root=escape(call.root),
    )
    return _page("DICOM Functions", content)


def no_viewer(folder: Path) -> Response:
    """404, with how to get the viewer into the folder."""
    content = (
        f"<h1>Viewer</h1>\n{_NO_VIEWER}\n"
        f"<p>It belongs into <code>{escape(str(folder))}</code>.</p>\n"
        '<p><a href="/">Start page</a></p>'
    )
    return _page("No viewer yet", content, 404)


def _page(title: str, content: str, status: int = 200) -> Response:
    text = _PAGE.format(title=title, style=_STYLE, content=content)
    return HTMLResponse(text, status, _HEADERS)
