"""Rows of a comparison, as the tests make them."""

from dataclasses import replace

from batvit.compare.rows import Row, RowAccuracy, RowGroup, RowTiming
from batvit.config import BATConfig

ACCURACY = RowAccuracy(
    top1=80.0,
    top5=95.0,
    difference=-1.0,
    difference_low=-1.5,
    difference_high=-0.5,
    agreement=94.0,
    kl=0.1,
)


def timing(**fields):
    known = RowTiming(
        step_time=10.0,
        step_time_iqr=0.5,
        samples_per_sec=100.0,
        speedup=2.0,
        speedup_low=1.9,
        speedup_high=2.1,
        unsteady=False,
        off_target=False,
        realised_share=1.0,
        peak_memory_mb=None,
        latency_ms=1.0,
        latency_iqr=0.1,
        latency_speedup=1.5,
        rounds=15,
    )
    return replace(known, **fields)


def row(plan="bat", target=0.5, at="macs", **fields):
    config = None if plan == "dense" else BATConfig(keep_rate=0.5)
    return Row(plan, RowGroup(target, at), config, (3, 6), (98, 49), 0.6, 0.5, **fields)
