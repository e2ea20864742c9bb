"""What each plan and network gets: the templates evaluated for every combination."""

from itertools import product

import pytest
from bicep.__main__ import INFRA
from bicep.evaluate import Evaluator, Failed
from bicep.syntax import parse

RELEASE = "https://example.org/releases/download/v1.0.0"
MAIN = parse(INFRA / "main.bicep")
APP = parse(INFRA / "modules" / "app.bicep")
PLANS = ("flex", "consumption", "premium")
NETWORKS = ("public", "private-data", "private")


def server(**parameters):
    """The evaluated body of the module `app` of main.bicep."""
    given = {"authority": "https://login.example", "audience": "api://x", **parameters}
    main = Evaluator(MAIN, given)
    return main.body(MAIN.named("module")["app"])["params"]


def site(**parameters):
    """Settings, site and plan that come of these parameters."""
    app = Evaluator(APP, server(**parameters))
    resources = APP.named("resource")
    body = app.body(resources["site"])["properties"]
    pairs = body["siteConfig"].pop("appSettings")
    settings = {pair["name"]: pair["value"] for pair in pairs}
    assert len(settings) == len(pairs)
    return settings, body, app.body(resources["farm"]), app, resources


ALL = [
    {"plan": plan, "network": network, "durable": durable, "releaseUrl": RELEASE}
    for plan, network, durable in product(PLANS, NETWORKS, ("storage", "scheduler"))
    if plan != "consumption" or network == "public"
]


@pytest.mark.parametrize("given", ALL, ids=lambda each: "-".join(each.values())[:40])
def test_settings_are_texts_closed_and_without_keys(given):
    settings, body, *_ = site(**given)
    assert all(isinstance(value, str) for value in settings.values())
    assert settings["DICOM_SECURITY"] == "true"
    assert settings["DICOM_AUTHORITY"] == "https://login.example"
    assert settings["AzureWebJobsStorage__credential"] == "managedidentity"
    assert "AzureWebJobsStorage" not in settings
    assert "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING" not in settings
    assert ("DURABLE_TASK_SCHEDULER_CONNECTION_STRING" in settings) == (
        given["durable"] == "scheduler"
    )
    private = given["network"] == "private"
    assert body["publicNetworkAccess"] == ("Disabled" if private else "Enabled")
    assert (body["virtualNetworkSubnetId"] is None) == (given["network"] == "public")


def test_flex_has_its_runtime_scale_and_package_in_its_own_place():
    settings, body, farm, app, resources = site(releaseUrl=RELEASE, httpConcurrency=20)
    assert not set(settings) & {
        "FUNCTIONS_EXTENSION_VERSION",
        "FUNCTIONS_WORKER_RUNTIME",
        "WEBSITE_RUN_FROM_PACKAGE",
        "PYTHON_ENABLE_INIT_INDEXING",
    }
    assert not set(body["siteConfig"]) & {
        "linuxFxVersion",
        "preWarmedInstanceCount",
        "vnetRouteAllEnabled",
        "functionsRuntimeScaleMonitoringEnabled",
        "functionAppScaleLimit",
    }
    config = body["functionAppConfig"]
    assert config["runtime"] == {"name": "python", "version": "3.13"}
    scale = config["scaleAndConcurrency"]
    assert scale["triggers"] == {"http": {"perInstanceConcurrency": 20}}
    assert scale["alwaysReady"] == []
    assert farm["sku"] == {"name": "FC1", "tier": "FlexConsumption"}
    assert app.condition(resources["code"])
    code = app.body(resources["code"])["properties"]
    assert code == {
        "packageUri": f"{RELEASE}/released-package.zip",
        "remoteBuild": True,
    }


def test_flex_without_a_release_is_for_azd():
    *_, app, resources = site()
    assert not app.condition(resources["code"])


def test_flex_keeps_instances_ready_when_asked():
    _, body, *_ = site(alwaysReadyInstances=2)
    ready = body["functionAppConfig"]["scaleAndConcurrency"]["alwaysReady"]
    assert ready == [{"name": "http", "instanceCount": 2}]


def test_consumption_runs_from_a_package_on_its_last_python():
    settings, body, farm, app, resources = site(plan="consumption", releaseUrl=RELEASE)
    assert body["functionAppConfig"] is None
    assert body["siteConfig"]["linuxFxVersion"] == "Python|3.12"
    package = f"{RELEASE}/ready-package-py312.zip"
    assert settings["WEBSITE_RUN_FROM_PACKAGE"] == package
    assert settings["PYTHON_ENABLE_INIT_INDEXING"] == "1"
    assert settings["FUNCTIONS_WORKER_RUNTIME"] == "python"
    assert farm["sku"]["name"] == "Y1"
    assert not app.condition(resources["code"])


def test_premium_stays_warm_and_asks_for_health():
    settings, body, farm, *_ = site(
        plan="premium", releaseUrl=RELEASE, durable="scheduler", network="private"
    )
    package = f"{RELEASE}/ready-package-scheduler-py313.zip"
    assert settings["WEBSITE_RUN_FROM_PACKAGE"] == package
    assert "PYTHON_ENABLE_INIT_INDEXING" not in settings
    config = body["siteConfig"]
    assert config["minimumElasticInstanceCount"] == 1
    assert config["healthCheckPath"] == "/health/check"
    assert config["vnetRouteAllEnabled"] is True
    assert config["functionsRuntimeScaleMonitoringEnabled"] is True
    assert farm["kind"] == "elastic"
    assert farm["properties"]["maximumElasticWorkerCount"] == 40


def test_what_cannot_work_is_refused_before_anything_is_made():
    with pytest.raises(Failed, match="no virtual network"):
        server(plan="consumption", network="private", releaseUrl=RELEASE)
    for plan in ("consumption", "premium"):
        with pytest.raises(Failed, match="need releaseUrl"):
            server(plan=plan)


def test_further_settings_cannot_open_the_server():
    opening = {"DICOM_SECURITY": "false", "DICOM_ALLOW_ANONYMOUS": "true"}
    extra = {
        **opening,
        "DICOM_AUTHORITY": "https://evil.example",
        "DICOM_RATE_LIMIT": "9",
    }
    settings, *_ = site(extraSettings=extra)
    assert settings["DICOM_SECURITY"] == "true"
    assert settings["DICOM_ALLOW_ANONYMOUS"] == "false"
    assert settings["DICOM_AUTHORITY"] == "https://login.example"
    assert settings["DICOM_RATE_LIMIT"] == "9"


def test_urls_follow_no_header_that_a_client_may_write():
    settings, *_ = site()
    url = "https://func-dicom-abcdefghijklm.azurewebsites.net"
    assert settings["DICOM_PUBLIC_URL"] == url
    assert settings["DICOM_TRUST_FORWARDED"] == "true"
    settings, *_ = site(publicUrl="https://dicom.hospital.example")
    assert settings["DICOM_PUBLIC_URL"] == "https://dicom.hospital.example"


def evaluated(module, **parameters):
    """The parameters that main.bicep gives a module."""
    given = {"authority": "https://login.example", "audience": "api://x", **parameters}
    return Evaluator(MAIN, given).body(MAIN.named("module")[module])["params"]


def test_the_index_is_serverless_unless_throughput_is_asked_for():
    assert evaluated("index")["isServerless"] is True
    assert evaluated("index")["databaseOptions"] == {}
    asked = evaluated("index", cosmosAutoscaleRU=4000)
    assert asked["isServerless"] is False
    assert asked["databaseOptions"] == {"autoscaleSettings": {"maxThroughput": 4000}}


def lifecycle(**parameters):
    file = parse(INFRA / "modules" / "datastorage.bicep")
    module = Evaluator(file, evaluated("dataStorage", **parameters))
    resource = file.named("resource")["lifecycle"]
    if not module.condition(resource):
        return None
    [rule] = module.body(resource)["properties"]["policy"]["rules"]
    return rule["definition"]["actions"]["baseBlob"]


def test_old_instances_move_when_asked_and_only_then():
    assert lifecycle() is None
    assert lifecycle(coolAfterDays=90, coldAfterDays=365) == {
        "tierToCool": {"daysAfterModificationGreaterThan": 90},
        "tierToCold": {"daysAfterModificationGreaterThan": 365},
    }


@pytest.mark.parametrize("network", NETWORKS)
def test_data_services_are_closed_in_private_networks(network):
    for module in ("hostStorage", "dataStorage", "index", "vault"):
        assert evaluated(module, network=network)["isPrivate"] is (network != "public")


def test_every_private_service_has_an_endpoint_and_a_zone():
    given = evaluated("privateNetwork", network="private")
    file = parse(INFRA / "modules" / "network.bicep")
    zones = Evaluator(file, given).variable("zones")
    assert len(zones) == len(set(zones))
    assert {service["zone"] for service in given["services"]} < set(zones)
    assert "privatelink.azurewebsites.net" in zones
    groups = {service["groupId"] for service in given["services"]}
    assert groups == {"blob", "queue", "table", "Sql", "vault"}


def test_names_fit_the_services():
    long = {"name": "Abcdefgh-12345678"}
    assert len(evaluated("hostStorage", **long)["accountName"]) <= 24
    assert len(evaluated("dataStorage", **long)["accountName"]) <= 24
    assert len(evaluated("vault", **long)["vaultName"]) <= 24
    assert len(evaluated("index", **long)["accountName"]) <= 44
    assert len(server(**long)["appName"]) <= 60
    assert server(**long)["appName"].islower()
