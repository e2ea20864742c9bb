"""Keys of an issuer: fetched once, again when needed, and not too often."""

import httpx
import pytest
from issuer import URL, Issuer, new_key, public_jwk

from dicomweb.errors import StoreUnavailable
from stores import token_keys
from stores.token_keys import HttpTokenKeys


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def issuer():
    return Issuer()


@pytest.fixture
def keys(issuer, clock):
    transport = httpx.ASGITransport(issuer.application)
    return HttpTokenKeys(URL, transport=transport, clock=clock)


async def test_keys_are_fetched_once_and_again_after_an_hour(keys, issuer, clock):
    assert await keys.issuer() == URL
    assert (await keys.key("first"))["kid"] == "first"
    clock.now += token_keys.FRESH_SECONDS - 1
    await keys.key("first")
    assert issuer.asked == 1
    clock.now += 1
    await keys.key("first")
    assert issuer.asked == 2


async def test_a_new_key_is_found_at_once_and_the_old_one_is_gone(keys, issuer):
    assert await keys.key("first") is not None
    issuer.rotate("second")
    assert (await keys.key("second"))["kid"] == "second"
    assert await keys.key("first") is None


async def test_strangers_cannot_make_us_ask_without_end(keys, issuer, clock):
    await keys.issuer()
    for number in range(50):
        assert await keys.key(f"invented {number}") is None
    assert issuer.asked == 1 + token_keys.ASKS_AT_ONCE
    clock.now += token_keys.ASK_SECONDS
    issuer.rotate("second")
    assert await keys.key("second") is not None


async def test_an_issuer_that_fails_is_left_alone_for_longer_and_longer(
    keys, issuer, clock
):
    issuer.broken = True
    waits = []
    for _ in range(9):
        with pytest.raises(StoreUnavailable) as caught:
            await keys.key("first")
        waits.append(caught.value.retry_after_seconds)
        clock.now += caught.value.retry_after_seconds
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    issuer.broken = False
    assert await keys.key("first") is not None


async def test_while_it_waits_the_issuer_is_not_asked(keys, issuer, clock):
    issuer.extra = {"issuer": None}
    with pytest.raises(StoreUnavailable):
        await keys.issuer()
    issuer.extra = {}
    with pytest.raises(StoreUnavailable):
        await keys.issuer()
    clock.now += 1
    assert await keys.issuer() == URL


async def test_what_was_said_counts_for_a_day_after_an_issuer_fell_silent(
    keys, issuer, clock
):
    await keys.issuer()
    issuer.broken = True
    clock.now += token_keys.STALE_SECONDS - 100
    assert await keys.key("first") is not None
    clock.now += 200
    with pytest.raises(StoreUnavailable):
        await keys.key("first")


async def test_many_at_once_share_one_fetch(keys, issuer):
    import asyncio

    await asyncio.gather(*(keys.key("first") for _ in range(20)))
    assert issuer.asked == 1


async def test_a_token_without_kid_gets_the_only_key(keys, issuer):
    assert (await keys.key(None))["kid"] == "first"


async def test_a_token_without_kid_gets_none_of_several(issuer, clock):
    issuer.private["other"] = new_key()
    keys = HttpTokenKeys(
        URL, transport=httpx.ASGITransport(issuer.application), clock=clock
    )
    assert await keys.key(None) is None
    assert await keys.key("other") is not None


WEAK = "A" * (token_keys.MIN_RSA_DIGITS - 1)


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"alg": "HS256"},
        {"alg": "RS512"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"n": WEAK},
        {"kty": "EC", "crv": "P-521"},
    ],
)
async def test_keys_for_other_purposes_or_too_weak_are_ignored(
    issuer, clock, monkeypatch, change
):
    bad = public_jwk(issuer.private["first"], "bad") | change
    monkeypatch.setattr(issuer, "published", lambda: {"keys": [bad, "no key"]})
    keys = HttpTokenKeys(
        URL, transport=httpx.ASGITransport(issuer.application), clock=clock
    )
    assert await keys.key("bad") is None


@pytest.mark.parametrize(
    "extra", [{"jwks_uri": "http://issuer.example/keys"}, {"jwks_uri": 7}]
)
async def test_keys_must_be_published_over_https(keys, issuer, extra):
    issuer.extra = extra
    with pytest.raises(StoreUnavailable):
        await keys.issuer()
