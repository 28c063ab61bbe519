"""Down-sampling of a series for drawing: minimum and maximum per bucket, so that no peak is lost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mmtui.domain.views import Bucket, Point


def bucketise(points: Iterable[Point], resumed: Mapping[int, int], max_buckets: int) -> tuple[Bucket, ...]:
    """At most about ``max_buckets`` buckets per line, in order of x.

    Bucket borders are multiples of a power of two of steps, so that a growing series keeps its old buckets and a
    chart does not jump.

    Args:
        points: by global step, of all attempts.
        resumed: {attempt: global step it went on from}.
        max_buckets: how many are wanted at most.
    """
    by_line: dict[tuple[int, bool], list[Point]] = {}
    for point in points:
        superseded = any(number > point.attempt and start < point.global_step for number, start in resumed.items())
        by_line.setdefault((point.attempt, superseded), []).append(point)
    buckets: list[Bucket] = []
    for (attempt, superseded), line in by_line.items():
        buckets += _line(line, attempt, superseded, max_buckets)
    return tuple(sorted(buckets, key=lambda bucket: (bucket.x, bucket.attempt)))


def _line(line: Sequence[Point], attempt: int, superseded: bool, max_buckets: int) -> list[Bucket]:
    width = 1
    span = line[-1].global_step - line[0].global_step + 1
    while len(line) > max_buckets and span / width > max_buckets:
        width *= 2
    groups: dict[int, list[Point]] = {}
    for point in line:
        groups.setdefault(point.global_step // width, []).append(point)
    return [
        Bucket(
            x=float(group[-1].global_step),
            low=min(point.value for point in group),
            high=max(point.value for point in group),
            first=group[0].value,
            last=group[-1].value,
            count=len(group),
            attempt=attempt,
            superseded=superseded,
        )
        for group in groups.values()
    ]
