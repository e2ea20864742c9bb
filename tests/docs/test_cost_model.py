"""The cost model uses what is counted, agrees with its page, and is sane."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import cost_model
from benchmarks.cost_model import SITES, Assumptions, Model

ROOT = Path(__file__).parents[2]
MODEL = Model(Assumptions())


def test_the_page_has_the_tables_of_the_model():
    """UPDATE_DOCS=1, or `python benchmarks/cost_model.py --write`, writes them anew."""
    if os.environ.get("UPDATE_DOCS"):
        cost_model.main(["--write"])
    page = cost_model.PAGE.read_text(encoding="utf-8")
    assert cost_model.filled(page) == page


def test_every_transaction_of_the_model_is_one_that_a_test_counts():
    source = Path(cost_model.__file__).read_text(encoding="utf-8")
    used = re.findall(r'self\.(?:read|write|table)[(\[]"([^"]+)"', source)
    assert len(used) >= 8
    assert set(used) <= set(cost_model.counted())


def test_a_clinic_by_hand():
    """10 instances a study, sent one by one, viewed three times, searched ten times."""
    table = cost_model.counted()
    store = table["Store 1 instance of a new study"][0]
    store += 9 * table["Store 1 instance more of it"][0]
    view = table["Metadata of a study (90)"][0] + 10 * table["Retrieve a frame"][0]
    search = table["Search for studies by PatientID"][0]
    feed = table["Read 90 entries of the change feed"][0] * 10 / 90
    used = MODEL.study(SITES[0])
    assert used.ru == pytest.approx(store + 2 * (3 * view + 10 * search + feed))
    assert used.writes == 10
    assert used.reads == pytest.approx(
        3 * 10 * table["Retrieve a frame"][1]
        + table["Read 90 entries of the change feed"][1]
    )


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_more_of_anything_costs_no_less(site):
    cost = sum(MODEL.month(site).values())
    for name in ("instances", "megabytes", "views", "searches"):
        more = replace(site, **{name: getattr(site, name) * 2})
        assert sum(MODEL.month(more).values()) >= cost


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_an_always_on_server_costs_more_at_each_place(site):
    ours = MODEL.month(site)
    theirs = sum(cost_model.PRICES[name].dollars for name in site.always_on[0])
    assert sum(ours.values()) < theirs + ours["blobs: storage"]


def test_every_price_has_a_source():
    assert [p.name for p in cost_model.PRICES.values() if len(p.source) < 10] == []


def test_idle_costs_are_those_of_the_timers():
    default = sum(MODEL.timers().values())
    seldom = sum(Model(Assumptions(publish_seconds=300)).timers().values())
    assert 0 < seldom < default < 10
