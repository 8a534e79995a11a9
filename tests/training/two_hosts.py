"""One of several processes that read the same batches; run as a program.

Arguments: number of this process, number of processes, address of the first. Prints a line of JSON:
the sizes of the batches that it took, and the losses.
"""

from __future__ import annotations

import json
import sys

import grain
import jax
import numpy as np
from flax import nnx

from m4m_jax.config import make_config
from m4m_jax.data.supply import SIZING_BATCHES
from m4m_jax.models.lm import LM
from m4m_jax.music import PLAIN
from m4m_jax.music.simunote import encode
from m4m_jax.training import sharding
from m4m_jax.training.feed import Feed, placed
from m4m_jax.training.state import split
from m4m_jax.training.step import make_evaluation
from tests.models.small import MICRO

STEPS, BATCH, WINDOW, N = 6, 4, 12, 3


def window(number: int) -> dict[str, np.ndarray]:
    """Of a batch of 4, the first two are full in even steps, and the last two in odd ones.

    So the hosts' own needs are never the same, and neither has always the larger one. Step 6 needs
    more rows than any of those that sizes are chosen from, on the second host only.
    """
    step, place = divmod(number, BATCH)
    dense = (place < BATCH // 2) == (step % 2 == 0) if step != SIZING_BATCHES + 2 else place > 1
    rng = np.random.default_rng(number)
    count = WINDOW * N if dense else 2
    steps = np.sort(rng.integers(0, WINDOW, count))
    kinds = 40 if step == SIZING_BATCHES + 2 else 2
    columns = [steps, np.ones(count), 60 + rng.integers(0, kinds, count), np.zeros(count)]
    notes = np.stack([*columns, np.full(count, 80), np.zeros(count)], axis=1)
    return {"target": encode(notes.astype(np.int32), WINDOW, N, PLAIN)}


def main() -> None:
    number, processes, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if processes > 1:
        jax.distributed.initialize(address, processes, number)
    fields = {"data": "x", "task": "continuation", "batch": BATCH, "window": WINDOW}
    config = make_config(fields | {"steps": STEPS}, "the test")
    mesh = sharding.make_mesh(config.mesh)
    windows = [window(k) for k in range(BATCH * (SIZING_BATCHES + STEPS))]
    feed = Feed(config, grain.MapDataset.source(windows), mesh, masked=False)
    batches = feed.batches()
    # Past those that the sizes are chosen from.
    batches.set_state({"next_index": SIZING_BATCHES})
    own = [feed.packer(feed.stream[SIZING_BATCHES + k]).rows.shape[-2] for k in range(STEPS)]

    graph, params, base = split(LM(MICRO, rngs=nnx.Rngs(0)))
    params, base = (sharding.place(x, mesh) for x in (params, base))
    evaluate = jax.jit(make_evaluation(graph))
    sizes, losses, states = [], [], []
    for batch in placed(batches, mesh):
        value, tokens = evaluate(base, params, batch)
        sizes.append((batch.rows.shape[-2], batch.tokens.shape[-2]))
        losses.append(float(value) / int(tokens))
        states.append(batches.get_state()["next_index"])
    print(json.dumps({"sizes": sizes, "losses": losses, "states": states, "own": own,
                      "offered": feed.sizes}))  # fmt: skip


if __name__ == "__main__":
    main()
