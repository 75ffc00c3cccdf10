"""Seeds that are a function of the step, so that a resumed run draws what the uninterrupted one would have drawn."""

from __future__ import annotations

from typing import Literal

import numpy as np

_PURPOSES = {"network": 0, "policy": 1}


def step_seed(seed: int, step: int, rank: int, purpose: Literal["network", "policy"]) -> int:
    """A seed, unrelated to that of any other step, rank and purpose.

    Args:
        seed: seed of the run.
        step: number of optimiser steps done.
        rank: number of the process, from 0.
        purpose: what draws from it: the network's dropout and drop path, or the policy's estimator.
    """
    state = np.random.SeedSequence((seed, step, rank, _PURPOSES[purpose])).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))  # torch takes signed 64 bits
