"""What the benchmarks share: repeated timing, a table, a JSON file."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def median_seconds(work: Callable[[], Any], repeats: int = 5, warmup: int = 1) -> float:
    """Median wall time of a call, after warm-up calls."""
    for _ in range(warmup):
        work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def report(name: str, rows: list[dict[str, Any]], notes: dict[str, Any], results: Path = RESULTS) -> None:
    """Print rows as a table and write them, with the notes, to <name>.json in the folder of results."""
    table = Table(title=name, title_justify="left", caption=", ".join(f"{k}: {v}" for k, v in notes.items()))
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)
    results.mkdir(exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps({"rows": rows, "notes": notes}, indent=2) + "\n")
