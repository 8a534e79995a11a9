"""One of two processes that tell what they do; run as a program with an address and a number."""

from __future__ import annotations

import sys

import jax
from etils import epath

from m4m_jax.training.telling import own, quiet_unless, tells


def main() -> None:
    jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
    with quiet_unless(tells(all_hosts=False)):
        print("alone")
    with quiet_unless(tells(all_hosts=True)):
        print(own(epath.Path("run/metrics.jsonl")).name, own(epath.Path("run/tensorboard")).name)
        print("both")


if __name__ == "__main__":
    main()
