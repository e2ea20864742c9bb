"""Where exports may go: nothing that is not allowed slips by."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.errors import InvalidRequest
from dicomweb.export_destination import (
    EMULATOR_KEY,
    BlobContainer,
    Folder,
    check_allowed_host,
    destination,
)

AZURE = (".blob.core.windows.net",)
SAS = "sv=2023-11-03&sr=c&sp=racwl&se=2030-01-01T00%3A00%3A00Z&sig=c2VjcmV0%3D"
URI = "https://account.blob.core.windows.net/container"
EMULATOR = ("http://127.0.0.1:10000",)


def of(type="azureblob", *, hosts=AZURE, folder=False, identity=False, **settings):
    named = {name.lower(): value for name, value in settings.items()}
    return destination(
        type,
        named,
        allowed_hosts=hosts,
        has_folder=folder,
        has_identity=identity,
    )


def test_a_container_by_uri_and_sas():
    found = of(blobContainerUri=f"{URI}?{SAS}")
    assert found == BlobContainer(
        "https://account.blob.core.windows.net", "container", sas=SAS
    )
    assert found.url == URI
    assert found.secret == f"sas:{SAS}"
    assert found.public().secret == ""
    assert found.public().opened_by(found.secret) == found


def test_a_container_without_credentials():
    assert of(blobContainerUri=URI).secret == ""


def test_a_container_by_connection_string():
    for connection in (
        f"BlobEndpoint=https://account.blob.core.windows.net/;SharedAccessSignature={SAS}",
        (
            f"BlobEndpoint=https://account.blob.core.windows.net;"
            f"QueueEndpoint=https://account.queue.core.windows.net;"
            f"SharedAccessSignature=?{SAS};"
        ),
        f"AccountName=account;SharedAccessSignature={SAS}",
        (
            f"DefaultEndpointsProtocol=https;AccountName=account;"
            f"EndpointSuffix=core.windows.net;SharedAccessSignature={SAS}"
        ),
    ):
        found = of(connectionString=connection, blobContainerName="container")
        assert found == of(blobContainerUri=f"{URI}?{SAS}"), connection


def test_the_emulator_by_name_and_key_only_where_the_setting_names_it():
    expected = BlobContainer(
        "http://127.0.0.1:10000/devstoreaccount1", "exports", account_key=EMULATOR_KEY
    )
    for connection in (
        "UseDevelopmentStorage=true",
        f"AccountName=devstoreaccount1;AccountKey={EMULATOR_KEY}",
        (
            "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
            f"AccountKey={EMULATOR_KEY};"
            "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
        ),
    ):
        named = {"connectionString": connection, "blobContainerName": "exports"}
        assert of(hosts=EMULATOR, **named) == expected
        with pytest.raises(InvalidRequest, match="not allowed"):
            of(**named)
    uri = "http://127.0.0.1:10000/devstoreaccount1/exports"
    assert of(hosts=EMULATOR, blobContainerUri=uri).url == uri


def test_an_account_key_is_refused():
    key = base64.b64encode(b"key").decode()
    for account in ("account", ""):
        with pytest.raises(InvalidRequest, match=r"Account key|no storage account"):
            of(
                connectionString=f"AccountName={account};AccountKey={key}",
                blobContainerName="container",
            )


@pytest.mark.parametrize(
    "uri",
    [
        "http://account.blob.core.windows.net/container",
        "https://account.blob.core.windows.net:8443/container",
        "https://account.blob.core.windows.net:80/container",
        "https://127.0.0.1/container",
        "https://[::1]/container",
        "https://169.254.169.254/container",
        "https://2130706433/container",
        "https://0x7f.1/container",
        "https://localhost/container",
        "https://example.org/container",
        "https://blob.core.windows.net/container",
        "https://.blob.core.windows.net/container",
        "https://account.blob.core.windows.net.example.org/container",
        "https://accountblob.core.windows.net/container",
        "https://account.blob.core.windows.net./container",
        "https://user@account.blob.core.windows.net/container",
        "https://user:word@account.blob.core.windows.net/container",
        "https://account.blob.core.windows.net@example.org/container",
        "https://example.org#.blob.core.windows.net/container",
        "https://example.org?.blob.core.windows.net/container",
        "https://example.org\\.blob.core.windows.net/container",
        "https://example.org/.blob.core.windows.net/container",
        "https://example.org%2f.blob.core.windows.net/container",
        "https://exämple.blob.core.windows.net/container",
        "https://a\u3002blob.core.windows.net/container",
        "https://account.blob.core.windows.net/container/folder",
        "https://account.blob.core.windows.net/../container",
        "https://account.blob.core.windows.net/container%2f..",
        "https://account.blob.core.windows.net/Container",
        "https://account.blob.core.windows.net/co",
        "https://account.blob.core.windows.net/$root",
        "https://account.blob.core.windows.net//container",
        "https://account.blob.core.windows.net/",
        "https://account.blob.core.windows.net",
        "https:account.blob.core.windows.net/container",
        "//account.blob.core.windows.net/container",
        "file:///etc/container",
        "https://account.blob.core.windows.net/container#x",
        "https://account.blob.core.windows.net/container?comp=list",
        "https://account.blob.core.windows.net/container?restype=container&sig=x",
        "https://account.blob.core.windows.net/container?sig=x&sig=y",
        "https://account.blob.core.windows.net/container?sv=2023",
        "https://account.blob.core.windows.net/container?sig=x\r\nHost: y",
        " https://account.blob.core.windows.net/con tainer",
        "https://account.blob.core.windows.net/container?" + "sv=x&" * 1000 + "sig=x",
    ],
)
def test_what_is_no_allowed_container_is_refused(uri):
    with pytest.raises(InvalidRequest):
        of(blobContainerUri=uri)


@given(st.text(max_size=80), st.sampled_from(["", "https://", "http://"]))
def test_whatever_passes_goes_to_an_allowed_host(text, scheme):
    try:
        found = of(blobContainerUri=scheme + text + ".blob.core.windows.net/container")
    except InvalidRequest:
        return
    rest = found.account_url.removeprefix("https://")
    assert rest.endswith(".blob.core.windows.net")
    assert rest.replace(".", "").replace("-", "").isalnum()
    assert rest.isascii()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"connectionString": "UseDevelopmentStorage=true"},
        {"blobContainerName": "container"},
        {"blobContainerUri": URI, "blobContainerName": "container"},
        {"blobContainerUri": URI, "connectionString": "UseDevelopmentStorage=true"},
        {"blobContainerUri": 1},
        {"blobContainerUri": URI, "useManagedIdentity": "true"},
        {"connectionString": "what", "blobContainerName": "container"},
        {"connectionString": "A=b", "blobContainerName": "container"},
        {
            "connectionString": "UseDevelopmentStorage=true;"
            "DevelopmentStorageProxyUri=http://example.org",
            "blobContainerName": "container",
        },
        {
            "connectionString": "AccountName=a.example.org/x;SharedAccessSignature=sig=x",
            "blobContainerName": "container",
        },
        {
            "connectionString": "AccountName=account;EndpointSuffix=example.org;"
            "SharedAccessSignature=sig=x",
            "blobContainerName": "container",
        },
        {
            "connectionString": "AccountName=account;AccountName=other",
            "blobContainerName": "container",
        },
    ],
)
def test_settings_that_say_no_allowed_container_are_refused(settings):
    with pytest.raises(InvalidRequest):
        of(**settings)


def test_the_identity_goes_to_containers_by_uri_of_servers_that_have_one():
    found = of(blobContainerUri=URI, useManagedIdentity=True, identity=True)
    assert found.managed_identity
    with pytest.raises(InvalidRequest, match="No identity"):
        of(blobContainerUri=URI, useManagedIdentity=True)
    with pytest.raises(InvalidRequest, match="UseManagedIdentity"):
        of(blobContainerUri=f"{URI}?{SAS}", useManagedIdentity=True, identity=True)
    with pytest.raises(InvalidRequest, match="ConnectionString"):
        of(
            connectionString=f"AccountName=account;SharedAccessSignature={SAS}",
            blobContainerName="container",
            useManagedIdentity=True,
            identity=True,
        )
    with pytest.raises(InvalidRequest, match="No identity"):
        of(
            blobContainerUri="http://127.0.0.1:10000/devstoreaccount1/exports",
            useManagedIdentity=True,
            identity=True,
            hosts=EMULATOR,
        )


@pytest.mark.parametrize("path", ["", "a", "a/b.c-d_e", "/a/"])
def test_a_folder_is_below_the_one_of_the_settings(path):
    assert of("folder", folder=True, path=path) == Folder(path.strip("/"))


@pytest.mark.parametrize(
    "path", ["..", "a/..", "./a", "a//b", "a\\b", ".tmp", "a/.b", "~", "a\0b", 7]
)
def test_no_path_leaves_the_folder(path):
    with pytest.raises(InvalidRequest):
        of("folder", folder=True, path=path)
    with pytest.raises(InvalidRequest, match="no exports to folders"):
        of("folder", path="a")


@pytest.mark.parametrize(
    "entry",
    [".blob.core.windows.net", "a.example.org", "https://a.example.org", *EMULATOR],
)
def test_entries_of_the_setting(entry):
    assert check_allowed_host(entry.upper() + "/") == entry


@pytest.mark.parametrize(
    "entry",
    ["*", "", "ftp://a", "http://a/b", "a b", "https://u@a", ".", "http://[::1]"],
)
def test_entries_of_the_setting_that_are_none(entry):
    with pytest.raises(ValueError, match="no suffix"):
        check_allowed_host(entry)


def test_a_host_of_its_own_is_https_only():
    hosts = ("store.example.org",)
    assert of(hosts=hosts, blobContainerUri="https://store.example.org/container")
    for uri in (
        "http://store.example.org/container",
        "https://store.example.org:444/container",
        "https://x.store.example.org/container",
    ):
        with pytest.raises(InvalidRequest):
            of(hosts=hosts, blobContainerUri=uri)
