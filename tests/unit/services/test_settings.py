"""Settings that cannot be right stop the start, and every one is named."""

import pytest

from services.settings import Settings, SettingsError

SECURE = {
    "DICOM_SECURITY": "true",
    "DICOM_AUTHORITY": "https://login.microsoftonline.com/tenant/v2.0/",
    "DICOM_AUDIENCES": "api://dicom, second",
}


def mistakes(environment: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environment)
    return str(caught.value).splitlines()[1:]


def test_nothing_set_gives_the_defaults():
    assert Settings.from_environment({"PATH": "/bin", "DICOM_PUBLIC_URL": ""}) == (
        Settings()
    )


def test_values_are_read_as_what_they_are():
    settings = Settings.from_environment({**SECURE, "DICOM_RATE_LIMIT": "60"})
    assert settings.security is True
    assert settings.authority == "https://login.microsoftonline.com/tenant/v2.0"
    assert settings.audiences == ("api://dicom", "second")
    assert settings.rate_limit == 60


def test_all_mistakes_are_named_at_once():
    assert mistakes(
        {
            "DICOM_NOTHING": "1",
            "DICOM_RATE_LIMIT": "-1",
            "DICOM_SECURITY": "perhaps",
            "DICOM_STORE": "floppy",
        }
    ) == [
        "DICOM_NOTHING: there is no such setting",
        "DICOM_RATE_LIMIT: must be a whole number from 0 to 1000000",
        "DICOM_SECURITY: must be true or false",
        "DICOM_STORE: must be one of embedded, azure",
    ]


def test_security_needs_an_issuer_and_an_audience():
    assert mistakes({"DICOM_SECURITY": "true"}) == [
        "DICOM_AUDIENCES: needed when DICOM_SECURITY is true",
        "DICOM_AUTHORITY: needed when DICOM_SECURITY is true",
    ]


@pytest.mark.parametrize(
    ("authority", "why"),
    [
        ("login.microsoftonline.com/x", "must be an http or https URL"),
        ("http://login.example.com", "must be an https URL"),
        ("https://login.microsoftonline.com/common/v2.0", "must name one tenant"),
        ("https://login.microsoftonline.com/Organizations", "must name one tenant"),
    ],
)
def test_an_authority_must_be_one_that_can_be_trusted(authority, why):
    [said] = mistakes({**SECURE, "DICOM_AUTHORITY": authority})
    assert said.startswith(f"DICOM_AUTHORITY: {why}")


@pytest.mark.parametrize(
    "sign",
    [
        "WEBSITE_INSTANCE_ID",
        "WEBSITE_SITE_NAME",
        "WEBSITE_POD_NAME",
        "LEGION_SERVICE_HOST",
        "CONTAINER_APP_NAME",
    ],
)
def test_on_every_plan_of_azure_it_is_closed_unless_meant_to_be_open(sign):
    azure = {sign: "x"}
    assert mistakes(azure) == [
        "DICOM_SECURITY: must be true on Azure unless DICOM_ALLOW_ANONYMOUS is"
    ]
    assert Settings.from_environment({**azure, **SECURE}).security
    open_door = {**azure, "DICOM_ALLOW_ANONYMOUS": "true"}
    assert not Settings.from_environment(open_door).security


def test_on_azure_secrets_of_exports_need_a_vault():
    azure = {
        **SECURE,
        "WEBSITE_SITE_NAME": "x",
        "DICOM_STORE": "azure",
        "DICOM_COSMOS_ENDPOINT": "https://a.documents.azure.com",
        "DICOM_BLOB_ENDPOINT": "https://a.blob.core.windows.net",
    }
    assert mistakes(azure) == [
        "DICOM_KEY_VAULT: needed on Azure unless DICOM_EXPORT is false"
    ]
    assert not Settings.from_environment({**azure, "DICOM_EXPORT": "false"}).export
