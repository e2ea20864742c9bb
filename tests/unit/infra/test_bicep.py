"""infra/ is right as far as it can be told without a compiler, and mistakes are seen."""

from pathlib import Path

import pytest
from bicep.__main__ import INFRA, paths
from bicep.catalog import Catalog
from bicep.check import check

MAIN = "main.bicep"
APP = "modules/app.bicep"
INDEX = "modules/index.bicep"
DATA = "modules/datastorage.bicep"
VAULT = "modules/vault.bicep"
NETWORK = "modules/network.bicep"

# file, what stands there, what is put there instead, the words of the mistake
MUTATIONS = {
    "a brace is lost": (VAULT, "sku: { family: 'A', name: 'standard' }", "sku: { family: 'A'", "no Bicep"),
    "a name is misspelt": (APP, "serverFarmId: farm.id", "serverFarmId: fram.id", "fram is not declared"),
    "a loop variable is misspelt": (INDEX, "name: spec.name\n", "name: spek.name\n", "spek is not declared"),
    "a function does not exist": (MAIN, "toLower(name)", "lower(name)", "no function lower"),
    "a resource property is misspelt": (VAULT, "enablePurgeProtection", "enablePurgeProtections", "no property enablePurgeProtections"),
    "a property is at the wrong depth": (DATA, "    allowSharedKeyAccess: false\n", "    networkAcl: {}\n", "no property networkAcl"),
    "a property below a variable is misspelt": (APP, "instanceMemoryMB: instanceMemoryMB\n    max", "instanceMemory: instanceMemoryMB\n    max", "no property instanceMemory"),
    "a property below a union is misspelt": (APP, "ftpsState: 'Disabled'", "ftpState: 'Disabled'", "no property ftpState"),
    "a property in a loop is misspelt": (INDEX, "partitionKey: {", "partitionkey: {", "no property partitionkey"),
    "a property of a discriminated object is misspelt": (INDEX, "continuousModeProperties", "continuousProperties", "no property continuousProperties"),
    "something required is missing": (VAULT, "    tenantId: tenant().tenantId\n", "", "needs tenantId"),
    "something required is missing in a list": (DATA, "          type: 'Lifecycle'\n", "", "needs type"),
    "a read-only property is set": (VAULT, "enableSoftDelete: true", "vaultUri: 'x'\n    provisioningState: 'Succeeded'\n    hsmPoolResourceId: 'y'", "hsmPoolResourceId is read-only"),
    "the version is unknown": (VAULT, "vaults@2024-11-01", "vaults@2024-13-01", "known: 2024-11-01"),
    "the type is unknown": (VAULT, "Microsoft.KeyVault/vaults@", "Microsoft.KeyVault/vault@", "unknown resource type"),
    "a text stands where a number should": (VAULT, "softDeleteRetentionInDays: 7", "softDeleteRetentionInDays: '7'", "a string where a int"),
    "a number stands where a flag should": (APP, "httpsOnly: true", "httpsOnly: 1", "a int where a bool"),
    "a value is none of the allowed": (DATA, "minimumTlsVersion: 'TLS1_2'", "minimumTlsVersion: 'TLS12'", "none of") ,
    "a number is out of bounds": (INDEX, "version: 2,", "version: 3,", "outside of 1 to 2"),
    "a module lacks a parameter": (MAIN, "    vaultName: 'kv-${suffix}'\n", "", "needs parameter vaultName"),
    "a module gets an unknown parameter": (MAIN, "    vaultName: 'kv-${suffix}'\n", "    vaultName: 'kv'\n    skuName: 'x'\n", "no parameter skuName"),
    "a module gets a text for a number": (MAIN, "softDeleteDays: softDeleteDays", "softDeleteDays: '7'", "takes a int"),
    "a module gets a parameter of another type": (MAIN, "isPrivate: hasNetwork\n    workspaceId: monitoring.outputs.workspaceId\n  }\n}\n\nmodule scheduler", "isPrivate: name\n    workspaceId: monitoring.outputs.workspaceId\n  }\n}\n\nmodule scheduler", "takes a bool"),
    "a module gets a value that is not allowed": (MAIN, "plan: checkedPlan\n", "plan: 'flexible'\n", "plan may not be flexible"),
    "a module file does not exist": (MAIN, "'modules/vault.bicep'", "'modules/vaults.bicep'", "no file"),
    "an output does not exist": (MAIN, "vault.outputs.url", "vault.outputs.uri", "no output uri"),
    "a property of a resource does not exist": (VAULT, "vault.properties.vaultUri", "vault.properties.uri", "no property uri"),
    "a default is of another type": (MAIN, "param softDeleteDays int = 7", "param softDeleteDays int = '7'", "is a int, not a string"),
    "a default is not allowed": (MAIN, "param network string = 'public'", "param network string = 'open'", "may not be open"),
    "something is declared twice": (VAULT, "param vaultName string\n", "param vaultName string\nparam vaultName string\n", "declared twice"),
    "a setting is there twice": (MAIN, "        DICOM_ROLES_FILE: rolesFile\n", "        DICOM_ROLES_FILE: rolesFile\n        DICOM_TRUST_FORWARDED: 'false'\n", "DICOM_TRUST_FORWARDED is there twice"),
    "something is never used": (VAULT, "param vaultName string\n", "param vaultName string\nparam extra string\n", "never used"),
    "a key is in an app setting": (APP, "AZURE_CLIENT_ID: identityClientId", "DICOM_COSMOS_KEY: identityClientId", "would hold a key"),
    "a connection string is in an app setting": (APP, "AzureWebJobsStorage__accountName: hostAccountName", "DICOM_BLOB_CONNECTION: hostAccountName", "would hold a key"),
    "a key is read": (DATA, "output id string = account.id", "output id string = account.listKeys().keys[0].value", "reads keys"),
    "a key is in a text": (APP, "'~4'", "'AccountName=x;AccountKey=abc'", "looks like a key"),
    "a secret is an output": (VAULT, "output url string", "output vaultKey string", "would show a key"),
}  # fmt: skip


@pytest.fixture(scope="module")
def catalog():
    return Catalog.load()


def test_nothing_is_wrong(catalog):
    assert check(paths(), catalog, {}) == []


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_is_seen(name, catalog):
    file, there, instead, words = MUTATIONS[name]
    path = INFRA / file
    text = path.read_text(encoding="utf-8")
    assert there in text
    mutated = {path: text.replace(there, instead, 1)}
    mistakes = check(paths(), catalog, mutated)
    assert any(words in mistake for mistake in mistakes), mistakes


def test_every_file_is_checked():
    assert {path.name for path in paths()} >= {
        "main.bicep",
        *(path.name for path in Path(INFRA / "modules").iterdir()),
    }
