"""What the fleet's bookkeeping costs a request, by how many models there are:
`python -m tests.bench.fleet_scale`.

The real Fleet and APScheduler's timers over fake engines that answer at once. Two loads for each number of
models: requests for a hundred of them that stay awake, and requests for any of them where a hundred fit, so
that most must be woken. Prints a table and one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence

from engine import GenerateRequest, MemoryState, SamplingParams
from gateway.config import Config, MemoryConfig, ModelConfig, Size, TurnConfig
from gateway.fleet import Fleet, SchedulerTimers
from tests.fake_engine import MIB, FakeBackend, FakeSpec

MODELS = (10, 100, 1_000, 10_000)
AWAKE = 100
CLIENTS = 16


class Backend(FakeBackend):
    """Its own bookkeeping is not what is measured."""

    def memory_state(self, device: str = "cpu") -> MemoryState:
        return MemoryState(total=self.total, available=self.total, shared_with_host=True)


def make_fleet(models: int) -> Fleet:
    names = [f"m{number}" for number in range(models)]
    spec = FakeSpec(weights=100 * MIB, first_kv=0, residue=0, reply="ok")
    backend = Backend(dict.fromkeys(names, spec), total=AWAKE * 100 * MIB)
    config = Config(
        models=tuple(ModelConfig(name=name, path=name, level=2) for name in names),
        memory=MemoryConfig(device_limit=Size(share=1.0), host_limit=Size(share=1.0)),
        turns=TurnConfig(min_awake=0.0, turn=0.0),
    )
    return Fleet(config, SchedulerTimers(), backend=backend)


async def ask(fleet: Fleet, name: str) -> None:
    async with fleet.lease(name) as lease:
        request = GenerateRequest(prompt_ids=[65], sampling=SamplingParams(max_tokens=2))
        async for _ in lease.generate(request):
            pass


async def seconds_each(fleet: Fleet, names: Sequence[str]) -> float:
    """Of this process's CPU, for one of these requests."""
    left = iter(names)

    async def client() -> None:
        for name in left:
            await ask(fleet, name)

    began = time.process_time()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return (time.process_time() - began) / len(names)


async def measure(models: int, requests: int) -> dict[str, float]:
    fleet, numbers = make_fleet(models), random.Random(1)
    await fleet.start()
    for number in range(models):
        await fleet.opened(f"m{number}")
    few = [f"m{number}" for number in range(min(models, AWAKE))]
    await seconds_each(fleet, few)
    awake = await seconds_each(fleet, numbers.choices(few, k=requests))
    everyone = [f"m{number}" for number in range(models)]
    await seconds_each(fleet, everyone)
    any_one = await seconds_each(fleet, numbers.choices(everyone, k=requests // 4))
    await fleet.close()
    return {"models": models, "awake_us": awake * 1e6, "any_us": any_one * 1e6}


def main() -> None:
    rows = [asyncio.run(measure(models, 4_000)) for models in MODELS]
    print(f"{'models':>8} {'awake, µs':>12} {'any, µs':>12}")
    for row in rows:
        print(f"{row['models']:>8} {row['awake_us']:>12.0f} {row['any_us']:>12.0f}")
    print(json.dumps({"requests": rows}))


if __name__ == "__main__":
    main()
