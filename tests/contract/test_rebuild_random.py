"""Random histories of an archive: a rebuilt index shows what the lost one showed.

`FULL=1` plays 60 histories instead of 4.
"""

import os
import shutil
from pathlib import Path
from random import Random

import pytest
from archive import Archive, later, opened, small
from faults import Faults
from scenarios import memory_folder

from dicomweb.errors import NotFound, StoreUnavailable
from services import cleanup, rebuild, scrub

HISTORIES = 60 if os.environ.get("FULL") == "1" else 4
STEPS = 30
STUDIES = 4


class History:
    """Does something to an archive, again and again.

    Instances of a study agree on the study's attributes, and those of a series on the
    series': what only a deleted instance said does not come back.
    """

    def __init__(self, here: Archive, random: Random) -> None:
        self.here = here
        self.random = random
        self.there: dict[tuple[str, int], bytes] = {}
        self.jobs = iter("0123456789abcdefghijklmnopqrstuvwxyz" * 9)
        self.patients = {f"1.2.{n}": f"P{n}" for n in range(STUDIES)}

    async def step(self) -> None:
        work = self.random.choices(
            [self.store, self.delete_instance, self.delete_study, self.update],
            [6, 2, 1, 2],
        )[0]
        await work()

    async def store(self) -> None:
        files = {}
        for _ in range(self.random.randint(1, 4)):
            study, number = self.any_study(), self.random.randint(0, 9)
            if (study, number) not in self.there:
                files[study, number] = small(
                    study,
                    number,
                    PatientID=self.patients[study],
                    Modality="CT" if number % 2 else "MR",
                    SeriesNumber=number % 2,
                )
        if files:
            await self.here.put(*files.values())
            self.there |= files

    async def delete_instance(self) -> None:
        if self.there:
            study, number = self.random.choice(sorted(self.there))
            scope = (study, f"{study}.{1 + number % 2}", f"{study}.9.{number}")
            await self.here.delete(*scope)
            del self.there[study, number]

    async def delete_study(self) -> None:
        study = self.any_study()
        try:
            await self.here.delete(study)
        except NotFound:
            assert not any(key[0] == study for key in self.there)
        self.there = {k: v for k, v in self.there.items() if k[0] != study}

    async def update(self) -> None:
        study = self.any_study()
        if any(key[0] == study for key in self.there):
            self.patients[study] = f"P{self.random.randrange(10**6)}"
            element = {"vr": "LO", "Value": [self.patients[study]]}
            await self.here.update(study, next(self.jobs), t00100020=element)

    def any_study(self) -> str:
        return self.random.choice(sorted(self.patients))


@pytest.mark.timeout(60 + 10 * HISTORIES)
@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_a_rebuilt_index_shows_what_the_lost_one_showed(
    tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    with memory_folder(tmp_path) as folder:
        async with opened(folder) as runtime:
            here = Archive(runtime)
            history = History(here, random)
            for _ in range(STEPS):
                await history.step()
                if random.random() < 0.1:
                    await cleanup.clean_up(later(runtime, days=4))
            before = await here.seen()
            totals = await runtime.feed.totals()
        shutil.rmtree(folder / "index")
        async with opened(folder) as runtime:
            here = Archive(runtime)
            report = await rebuild.rebuild(runtime, lambda _: None)
            after = await here.seen()
            assert report.problems == []
            assert report.instances == len(history.there)
            for what in ("studies", "series", "instances"):
                assert in_any_order(after[what]) == in_any_order(before[what])
            assert after["instances"] == before["instances"]
            contents = before.keys() - {"studies", "series"}
            assert {k: after[k] for k in contents} == {k: before[k] for k in contents}
            found = await runtime.feed.totals()
            assert found.instances == totals.instances == len(history.there)
            assert (found.studies, found.size_bytes) == (
                totals.studies,
                totals.size_bytes,
            )
            look = await scrub.look_at_instances(
                runtime, 10**18, hashes=True, record_hashes=False
            )
            assert look.findings == []


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_stores_that_fail_all_the_time_make_a_rebuild_no_worse(
    tmp_path: Path, seed: int
) -> None:
    """It is repeated until it says that it is done: nothing is lost or doubled."""
    with memory_folder(tmp_path) as folder:
        async with opened(folder) as runtime:
            here = Archive(runtime)
            history = History(here, Random(seed))
            for _ in range(STEPS):
                await history.step()
            before = await here.seen()
        shutil.rmtree(folder / "index")
        faults = Faults()
        async with opened(folder, faults=faults) as runtime:
            faults.random(seed=seed, share=0.05)
            for _ in range(200):
                try:
                    report = await rebuild.rebuild(runtime, lambda _: None)
                except StoreUnavailable:
                    continue
                break
            else:
                raise AssertionError("it never ends")
            faults.stop()
            assert report.problems == []
            await runtime.publisher.heal(minimum_age_seconds=-1)
            after = await Archive(runtime).seen()
            assert after["instances"] == before["instances"]
            contents = before.keys() - {"studies", "series"}
            assert {k: after[k] for k in contents} == {k: before[k] for k in contents}
            entries = await runtime.feed.by_sequence(rebuild.FEED_START - 1, 1000)
            sops = [entry.sop_instance_uid for entry in entries]
            assert len(sops) == len(set(sops)) == len(history.there)
            assert (await runtime.feed.totals()).instances == len(history.there)


def in_any_order(rows: list[object]) -> list[str]:
    """Studies and series whose first instance was deleted are newer than they were."""
    return sorted(map(repr, rows))
