import gzip
import io
import tarfile

import pytest

from cli import viewer


def written(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    viewer.adapt(folder)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("index.html", '<script src="/a.js">', '<script src="/viewer/a.js">'),
        ("index.html", '<link href="/a.css">', '<link href="/viewer/a.css">'),
        ("index.html", 'PUBLIC_URL="/"', 'PUBLIC_URL="/viewer/"'),
        ("index.html", 'src="https://x/a.js"', 'src="https://x/a.js"'),
        ("index.html", 'src="//x/a.js"', 'src="//x/a.js"'),
        ("a.css", "url(/a.woff2)", "url(/viewer/a.woff2)"),
        ("a.css", "url(data:image/png)", "url(data:image/png)"),
        ("manifest.json", '"src": "/a.png"', '"src": "/viewer/a.png"'),
        ("a.js", '__webpack_require__.p = "/";', '__webpack_require__.p = "/viewer/";'),
        (
            "a.js",
            "browserImportFunction('/m/a.js')",
            "browserImportFunction('/viewer/m/a.js')",
        ),
        ("a.js", 'fetch("/v2/studies")', 'fetch("/v2/studies")'),
    ],
)
def test_only_the_viewers_own_files_move_below_the_prefix(
    tmp_path, name, before, after
):
    assert written(tmp_path, name, before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "commaSeparatedFields = ['00081030',\n  // A\n  '00080060',\n]",
            "commaSeparatedFields = ['00081030', '00201208',\n  // A\n  '00080061',\n]",
        ),
        (
            "commaSeparatedFields = ['0008103E', '00080021'].join(',');",
            "commaSeparatedFields = ['0008103E', '00080021', '00201209'].join(',');",
        ),
        (
            "const {\n  CodeMeaning\n} = ConceptNameCodeSequence;",
            "const {\n  CodeMeaning\n} = ConceptNameCodeSequence ?? {};",
        ),
    ],
)
def test_what_the_viewer_forgets_is_repaired(tmp_path, before, after):
    assert written(tmp_path, "a.js", before) == after


def test_every_file_that_gains_by_it_gets_a_gzip_copy_with_the_same_content(tmp_path):
    (tmp_path / "a.js").write_bytes(b"a" * 1000)
    (tmp_path / "tiny.js").write_bytes(b"a")
    (tmp_path / "a.png").write_bytes(b"a" * 1000)
    viewer.compress(tmp_path)
    assert {path.name for path in tmp_path.glob("*.gz")} == {"a.js.gz"}
    assert gzip.decompress((tmp_path / "a.js.gz").read_bytes()) == b"a" * 1000


def test_only_what_is_used_of_dist_is_unpacked_and_nothing_outside(tmp_path):
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name in (
            "package/package.json",
            "package/dist/index.html",
            "package/dist/assets/a.png",
            "package/dist/ort/big.wasm",
            "package/dist/a.js.map",
        ):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"x"))
    folder = viewer.unpack(package, tmp_path / "viewer")
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {"index.html", "assets/a.png"}


def test_a_package_that_climbs_out_of_the_folder_is_refused(tmp_path):
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/dist/../../../evil"))
    with pytest.raises(viewer.FetchError, match="evil"):
        viewer.unpack(package, tmp_path / "deep" / "viewer")


def test_without_npm_the_reason_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(viewer.FetchError, match=r"Node\.js") as caught:
        viewer.fetch(tmp_path / "viewer")
    assert "\n" not in str(caught.value)


def test_an_npm_that_fails_is_quoted_in_one_line_and_leaves_nothing(
    tmp_path, monkeypatch
):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'npm error code\nnpm error gone' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(viewer.FetchError) as caught:
        viewer.fetch(tmp_path / "viewer")
    assert str(caught.value) == "npm pack failed: npm error code npm error gone"
    assert {path.name for path in tmp_path.iterdir()} == {"npm"}


def test_a_viewer_of_another_version_is_not_current(tmp_path):
    assert not viewer.is_current(tmp_path)
    (tmp_path / "stamp").write_text("another")
    assert not viewer.is_current(tmp_path)
    (tmp_path / "stamp").write_text(viewer.STAMP)
    assert viewer.is_current(tmp_path)
    assert viewer.fetch(tmp_path) == f"The viewer is in {tmp_path}"
