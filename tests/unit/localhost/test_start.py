"""What keeps a host from starting is told in plain words."""

import sys

import pytest

from localhost import indexing
from localhost.__main__ import main
from localhost.errors import LoadError

REFUSED = 'class Wrong(Exception): ...\nraise Wrong("A: must be b\\nC: must be d")\n'


@pytest.fixture
def app(tmp_path, monkeypatch):
    """An app folder; whatever loading one changes is undone."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "function_app", raising=False)
    return tmp_path


def test_what_an_app_refuses_is_told_with_its_place(app):
    (app / "function_app.py").write_text(REFUSED)
    with pytest.raises(LoadError) as told:
        indexing.load(app)
    first, second, place = str(told.value).splitlines()
    assert (first, second) == ("A: must be b", "C: must be d")
    assert f"{app}/function_app.py line 2" in place


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--port", "70000"), "must be a whole number from 0 to 65535, not '70000'"),
        (("--port", "http"), "must be a whole number from 0 to 65535, not 'http'"),
        (("--workers", "0"), "must be a whole number from 1 to 64, not '0'"),
        (("--workers", "65"), "must be a whole number from 1 to 64, not '65'"),
    ],
)
def test_a_number_that_is_none_or_out_of_range_is_told(app, option, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(app), *option])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_certificate_that_is_none_is_named(app, capsys):
    (app / "function_app.py").write_text(REFUSED)
    assert main([str(app), "--cert", "function_app.py"]) == 1
    assert "cannot use the certificate (function_app.py)" in capsys.readouterr().err
