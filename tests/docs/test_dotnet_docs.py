"""docs/dotnet-docs.md: every page of the .NET server once, with a page of ours or why not."""

import re
from pathlib import Path

from functions.routes import ROUTES
from services.settings import documented

PAGE = (Path(__file__).parents[2] / "docs/dotnet-docs.md").read_text(encoding="utf-8")
PAGES, SETTINGS = PAGE.split("Their settings and ours")
THEIRS = """
concepts: bulk-update change-feed data-partitions dicom-cast dicom dicomevents events
  extended-query-tags worklist
development: api-versioning-developers benchmarking code-organization data-validation
  development exception-handling functions identity-server-authentication
  naming-guidelines roles setup tests
how-to-guides: blob-migration configure-dicom-server-settings
  enable-authentication-with-tokens enable-authorization export-data
  extended-query-tags pull-changes-from-change-feed sync-dicom-metadata-to-fhir
quickstarts: deploy-dicom-cast deploy-via-azure deploy-via-docker dicom-cast
resources: conformance-statement dicom-server-maintain-guide export external-store faq
  health-check-api performance-guidance schema-manager swagger v2-conformance-statement
tutorials: upload-files-via-electron-tool use-dicom-web-standard-apis-with-c#
  use-dicom-web-standard-apis-with-curl use-dicom-web-standard-apis-with-postman
  use-dicom-web-standard-apis-with-python use-the-medical-imaging-server-apis
"""


def their_pages():
    folder = ""
    for word in THEIRS.split():
        if word.endswith(":"):
            folder = word[:-1]
        else:
            yield f"{folder}/{word}.md"


def rows(text):
    return dict(re.findall(r"^\| `([^`]+)`[^|]* \| (.+) \|$", text, re.MULTILINE))


def test_every_page_of_theirs_is_there_once_and_no_other():
    found = re.findall(r"^\| `([^`]+)` \|", PAGES, re.MULTILINE)
    assert found == list(their_pages())


def test_each_leads_to_a_page_of_ours_or_says_why_not():
    answer = re.compile(
        r"\]\([\w./-]+\.md\)|^not (here|applicable): .{20}|^as `([^`]+)`|^`\./dev"
    )
    mapped = rows(PAGES)
    for name, ours in mapped.items():
        match = answer.search(ours)
        assert match, name
        if match[2]:
            assert match[2] in mapped


def test_functions_and_settings_that_it_names_exist():
    names = {route.name for route in ROUTES}
    assert set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", PAGES)) <= names
    settings = {name for name, _, _ in documented()}
    assert set(re.findall(r"DICOM_\w+", PAGE)) <= settings
