"""What backends say of their models: one that failed to load gets no calls, its server does."""

import grpc

from coalmine_router.table import Backend
from tests.doubles.backends_rig import alive, table
from tests.doubles.oip_backend import OipBackend, answering, failing
from tests.doubles.proxy_rig import ProxyRig
from tests.doubles.split_route import PIXELS, REQUEST, ended, split_route, table_of
from tests.doubles.waiting import eventually

BROKEN = failing(grpc.StatusCode.UNAVAILABLE, "model 'digits-next' failed to load")


async def test_a_canary_whose_model_is_broken_costs_no_caller_an_answer() -> None:
    async with (
        OipBackend(answering(logits=PIXELS), health=True) as stable,
        OipBackend(BROKEN, health=True) as canary,
    ):
        await canary.says(serving=True)
        await canary.says(serving=False, of="model/digits-next")
        route = split_route(5_000, fallback=True)
        async with ProxyRig(table_of(stable.address, canary.address, route)) as proxy:
            seen = [await ended(proxy.infer(REQUEST)) for _ in range(200)]
            assert {(each.code, each.variant) for each in seen} == {(grpc.StatusCode.OK, "stable")}
            assert len(canary.seen) <= 3
            reach = {each.variant: each for each in proxy.backends.reach()}
            assert "says NOT_SERVING of model 'digits-next'" in reach["canary"].troubles[0]
            canary.script = answering(logits=PIXELS)
            await canary.says(serving=True, of="model/digits-next")
            await eventually(lambda: bool(proxy.backends.endpoints("digits", "canary").is_ready))
            names = {(await ended(proxy.infer(REQUEST))).variant for _ in range(50)}
            assert names == {"stable", "canary"}


async def test_a_models_word_is_for_its_variants_alone() -> None:
    async with OipBackend(health=True) as one:
        await one.says(serving=True)
        await one.says(serving=False, of="model/another")
        async with alive(table(Backend("blue", (one.address,)))) as rig:
            await rig.available(1)
            await one.says(serving=False, of="model/digits")
            await rig.available(0)
            chosen = rig.stable.pick_any()
            assert chosen is not None
            await one.says(serving=True, of="model/digits")
            await rig.available(1)


async def test_a_lost_connection_takes_the_models_words_with_it() -> None:
    async with OipBackend(health=True) as one:
        await one.says(serving=True)
        async with alive(table(Backend("blue", (one.address,)))) as rig:
            await one.says(serving=False, of="model/digits")
            await rig.until(lambda: "of model 'digits'" in rig.stable.trouble)
            await one.stop()
            await rig.until(lambda: "no connection" in rig.stable.trouble)
            await one.says(serving=True, of="model/digits")
            await one.start()
            await rig.available(1)


async def test_a_backend_that_does_not_know_the_name_is_taken_to_serve() -> None:
    async with OipBackend(health=True) as one:
        await one.says(serving=True)
        async with alive(table(Backend("blue", (one.address,)))) as rig:
            await rig.available(1)
            assert rig.stable.is_ready
