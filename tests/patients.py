"""What must stand in no log: names and numbers of the patients that tests make up."""

import logging

PATIENTS = ("Doe^Jane", "P-0001", "Reyes^Ana")
"""Of `data.data_set`: what tests store unless they say otherwise."""

PRODUCT = ("dicomweb", "services", "stores", "functions", "orchestrations", "localhost")


def found_in(text: str) -> list[str]:
    """Those that the text has."""
    return [patient for patient in PATIENTS if patient in text]


class Listener(logging.Handler):
    """Keeps the records that tell of a patient."""

    def __init__(self) -> None:
        super().__init__()
        self.leaks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = logging.Formatter().format(record)
        if found_in(text):
            self.leaks.append(f"{record.name}: {text}")
