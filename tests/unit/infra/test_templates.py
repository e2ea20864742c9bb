"""The templates say what the code says: containers, settings, roles, closed doors."""

import json
import os
import re

import pytest
import yaml
from bicep.__main__ import INFRA, paths
from bicep.syntax import (
    File,
    bodies,
    called,
    literal,
    named,
    parse,
    properties,
    text_of,
    walk,
)

from services.settings import Settings, SettingsError, documented
from stores.containers import CONTAINERS
from stores.provision import KEEP_UNTIL_SAID, policy_of

ROOT = INFRA.parent
NAMES = {name for name, _, _ in documented()}
SAMPLE = json.loads((ROOT / "local.settings.sample.json").read_text(encoding="utf-8"))
DEPLOY = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
# What the host, the runtime or a library reads; everything else must be ours.
FOREIGN = re.compile(
    r"Azure(WebJobs|FunctionsJobHost)\w+|FUNCTIONS_\w+|WEBSITE_\w+|PYTHON_\w+"
    r"|AZURE_CLIENT_ID|APPLICATIONINSIGHTS_\w+|DURABLE_TASK_SCHEDULER_CONNECTION_STRING"
)


def file(name: str) -> File:
    return parse(INFRA / name)


def objects(name: str) -> list[dict[str, str]]:
    return [
        {key: text_of(value) for key, value in properties(node).items()}
        for node in walk(file(name).root)
        if node.type == "object"
    ]


def app_settings() -> dict[str, str]:
    """All settings that any combination of parameters gives the app, and their text."""
    found = {}
    for each in [*objects("modules/app.bicep"), *objects("main.bicep")]:
        found |= {k: v for k, v in each.items() if FOREIGN.fullmatch(k)}
        found |= {k: v for k, v in each.items() if k.startswith("DICOM_")}
    return found


# --- containers ---------------------------------------------------------------------


def test_the_template_makes_the_containers_that_provisioning_makes():
    """UPDATE_DOCS=1 writes the file anew."""
    path = INFRA / "containers.json"
    wanted = [
        {
            "name": spec.name,
            "defaultTtl": KEEP_UNTIL_SAID,
            "indexingPolicy": policy_of(spec),
        }
        for spec in CONTAINERS
    ]
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8")) == wanted


def test_names_of_database_container_and_table_are_the_defaults():
    defaults = Settings()
    index = {each.get("id") for each in objects("modules/index.bicep")}
    data = {each.get("name") for each in objects("modules/datastorage.bicep")}
    assert f"'{defaults.cosmos_database}'" in index
    assert {f"'{defaults.blob_container}'", f"'{defaults.table}'"} <= data


# --- settings -----------------------------------------------------------------------


def test_every_setting_of_the_template_is_one_of_the_table():
    ours = {name for name in app_settings() if name.startswith("DICOM_")}
    assert ours <= NAMES
    assert {"DICOM_STORE", "DICOM_SECURITY", "DICOM_AUTHORITY"} <= ours


def test_no_setting_of_the_template_holds_a_key():
    assert not {name for name in app_settings() if name.startswith("DICOM_")} & {
        "DICOM_COSMOS_KEY",
        "DICOM_BLOB_CONNECTION",
    }
    assert "DICOM_COSMOS_KEY" in NAMES  # else the line above proves nothing


def test_the_server_starts_with_the_settings_of_the_template():
    values = {
        name: text.strip("'")
        if text.startswith("'")
        else {"dataPartitions": "False"}.get(text, "https://x.example")
        for name, text in app_settings().items()
        if name.startswith("DICOM_")
    }
    values |= {"DICOM_DATA_PARTITIONS": "False", "DICOM_CORS_ORIGINS": ""}
    values["DICOM_PUBLIC_URL"] = "https://x.example"
    azure = {"WEBSITE_INSTANCE_ID": "1"}
    settings = Settings.from_environment(values | azure)
    assert settings.security
    assert settings.store == "azure"
    assert not settings.allow_anonymous
    for needed in ("DICOM_AUTHORITY", "DICOM_AUDIENCES", "DICOM_COSMOS_ENDPOINT"):
        with pytest.raises(SettingsError, match=needed):
            Settings.from_environment(values | azure | {needed: ""})


def test_nothing_among_the_further_settings_can_open_the_server():
    call = next(
        each
        for each in walk(file("main.bicep").root)
        if called(each) == "union" and "DICOM_SECURITY" in text_of(each)
    )
    last = named(named(call)[1])[-1]
    assert set(properties(last)) == {
        "DICOM_SECURITY",
        "DICOM_ALLOW_ANONYMOUS",
        "DICOM_AUTHORITY",
        "DICOM_AUDIENCES",
    }


def test_authority_and_audience_must_be_given():
    parameters = file("main.bicep").named("parameter")
    required = {name for name, each in parameters.items() if each.value is None}
    assert required == {"authority", "audience"}
    assert all("minLength" in parameters[name].decorators for name in required)


def test_the_sample_of_local_settings_agrees():
    values = SAMPLE["Values"]
    assert {n for n in values if n.startswith("DICOM_")} <= NAMES
    template = app_settings()
    for name in ("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT", "AzureWebJobsDisableHomepage"):
        assert f"'{values[name]}'" == template[name]
    assert Settings.from_environment(values).store == "embedded"
    foreign = [name for name in values if not name.startswith("DICOM_")]
    assert [name for name in foreign if not FOREIGN.fullmatch(name)] == []


def test_every_setting_of_the_template_is_documented():
    for name in app_settings():
        assert f"`{name}`" in (SETTINGS if name.startswith("DICOM_") else DEPLOY), name


def test_the_table_of_parameters_is_that_of_the_template():
    """UPDATE_DOCS=1 writes it anew."""
    rows = ["| name | default | meaning |\n| --- | --- | --- |\n"]
    for name, each in file("main.bicep").named("parameter").items():
        meaning = literal(named(named(each.decorators["description"])[1])[0])
        default = f"`{text_of(each.value)}`" if each.value else "**required**"
        rows.append(f"| `{name}` | {default} | {meaning} |\n")
    table = re.compile(
        r"(<!-- parameters -->\n).*(<!-- end of parameters -->)", re.DOTALL
    )
    wanted = table.sub(lambda m: m[1] + "".join(rows) + m[2], DEPLOY)
    if os.environ.get("UPDATE_DOCS"):
        (ROOT / "docs" / "deploy.md").write_text(wanted, encoding="utf-8")
    else:
        assert wanted == DEPLOY


def test_every_parameter_says_what_it_is():
    parameters = file("main.bicep").named("parameter").values()
    assert [p.name for p in parameters if "description" not in p.decorators] == []


# --- closed doors -------------------------------------------------------------------


def resources(kind: str) -> list[dict[str, str]]:
    found = []
    for path in paths():
        for each in parse(path).named("resource").values():
            if each.reference.startswith(f"{kind}@"):
                assert each.value is not None
                for body in bodies(each.value):
                    inner = properties(body).get("properties")
                    values = properties(inner) if inner else {}
                    found.append({k: text_of(v) for k, v in values.items()})
    return found


def test_storage_takes_no_keys_and_shows_nothing():
    accounts = resources("Microsoft.Storage/storageAccounts")
    assert len(accounts) == 2
    for account in accounts:
        assert account["allowSharedKeyAccess"] == "false"
        assert account["allowBlobPublicAccess"] == "false"
        assert account["minimumTlsVersion"] == "'TLS1_2'"
        assert account["supportsHttpsTrafficOnly"] == "true"
    containers = resources("Microsoft.Storage/storageAccounts/blobServices/containers")
    assert {each["publicAccess"] for each in containers} == {"'None'"}


def test_index_vault_and_telemetry_take_no_keys():
    [index] = resources("Microsoft.DocumentDB/databaseAccounts")
    assert index["disableLocalAuth"] == "true"
    assert index["minimalTlsVersion"] == "'Tls12'"
    [vault] = resources("Microsoft.KeyVault/vaults")
    assert vault["enableRbacAuthorization"] == "true"
    assert vault["enablePurgeProtection"] == "true"
    [insights] = resources("Microsoft.Insights/components")
    assert insights["DisableLocalAuth"] == "true"


def test_the_app_is_https_only_and_takes_no_passwords():
    [site] = resources("Microsoft.Web/sites")
    assert site["httpsOnly"] == "true"
    policies = resources("Microsoft.Web/sites/basicPublishingCredentialsPolicies")
    assert [each["allow"] for each in policies] == ["false", "false"]


ROLES = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "account",  # host: Blob Data Owner
    "974c5e8b-45b9-4653-ba55-5f855dd0fb88": "account",  # host: Queue Data Contributor
    "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3": "account journal",  # Table Data Contributor
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "instances",  # Blob Data Contributor
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": "vault",  # Key Vault Secrets Officer
    "3913510d-42f4-4e62-8a69-96296cbdaafe": "insights",  # Monitoring Metrics Publisher
    "0ad04412-c4d5-4796-b79c-f76d14c8d402": "hub",  # Durable Task Data Contributor
    "00000000-0000-0000-0000-000000000002": "",  # Cosmos DB: documents only
}


def test_the_identity_has_these_roles_on_these_resources_and_no_others():
    text = {path: path.read_text(encoding="utf-8") for path in paths()}
    guid = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    assert {each for one in text.values() for each in re.findall(guid, one)} == {*ROLES}
    scopes = set()
    for path in paths():
        for each in parse(path).named("resource").values():
            if each.reference.startswith("Microsoft.Authorization/roleAssignments@"):
                assert each.value is not None
                [body] = bodies(each.value)
                scopes.add(text_of(properties(body)["scope"]))
    assert scopes == {one for each in ROLES.values() for one in each.split()}


def test_old_instances_never_go_where_they_cannot_be_read():
    text = (INFRA / "modules" / "datastorage.bicep").read_text(encoding="utf-8")
    assert "tierToCool" in text
    assert "tierToCold" in text
    assert "tierToArchive" not in text
    assert "delete:" not in text


# --- azd ----------------------------------------------------------------------------


def test_the_parameters_of_azd_are_those_of_its_template():
    content = json.loads((INFRA / "azd" / "main.parameters.json").read_text("utf-8"))
    assert set(content["parameters"]) == set(file("azd/main.bicep").named("parameter"))


def test_azd_finds_template_code_and_app():
    content = yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))
    infra = content["infra"]
    assert (ROOT / infra["path"] / f"{infra['module']}.bicep").is_file()
    [(name, service)] = content["services"].items()
    assert (ROOT / service["project"] / "function_app.py").is_file()
    assert service["host"] == "function"
    tags = [each.get("'azd-service-name'") for each in objects("modules/app.bicep")]
    tags += [each.get("azd-service-name") for each in objects("modules/app.bicep")]
    assert f"'{name}'" in tags
