"""Which of several training processes this is, before they are joined."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this process is the one that writes files and speaks; True where there is only one.

    Of the variables that say so, torchrun sets RANK. A process that Lightning or SLURM started is the first one where
    none of the others says that it is not.
    """
    if "RANK" in os.environ:
        return int(os.environ["RANK"]) == 0
    return all(int(os.environ.get(name, "0")) == 0 for name in ("NODE_RANK", "LOCAL_RANK", "SLURM_PROCID"))
