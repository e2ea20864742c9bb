"""For every unit test: no log record, at any level, tells of a patient."""

import logging
from collections.abc import Iterator

import pytest
from patients import PRODUCT, Listener


@pytest.fixture(autouse=True)
def no_patient_in_any_log_record() -> Iterator[None]:
    listener = Listener()
    root = logging.getLogger()
    root.addHandler(listener)
    levels = {name: logging.getLogger(name).level for name in PRODUCT}
    for name in PRODUCT:
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    root.removeHandler(listener)
    assert listener.leaks == []
