"""Classes that a recipe speaks of, by name or by number: whether there are such is known where the data set is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from engine.config.best import class_of, class_problem
from engine.config.sections import RecipeFields


@dataclass(frozen=True)
class NamedClasses:
    """What a recipe says of classes.

    Attributes:
        background: number of the class that ``match.background`` names; None = none.
        weighted: names in ``segment.class_weights``.
        kept_by: ``segment.keep_best`` where it goes by a class, else "".
    """

    background: int | None = None
    weighted: tuple[str, ...] = ()
    kept_by: str = ""

    def problems(self, classes: Sequence[str]) -> Iterator[str]:
        """Sentences about what is no class of a data set.

        Args:
            classes: its class names, in index order.
        """
        yield from background_problem(self.background, len(classes))
        unknown = [name for name in self.weighted if name not in classes]
        if unknown:
            there = ", ".join(classes[:6]) + (" ..." if len(classes) > 6 else "")
            lost = f"segment.class_weights names {unknown[0]!r}, which is no class of the data set"
            yield f"{lost}: write names of {there}"
        yield from class_problem(self.kept_by, classes)


def named_classes(recipe: RecipeFields, taken: Collection[str] = ()) -> NamedClasses:
    """Those of a recipe.

    Args:
        taken: stages that are not trained: what they say counts for nothing any more.
    """
    match = None if "match" in taken else recipe.match
    segment = None if "segment" in taken else recipe.segment
    metric = (segment.keep_best if segment is not None else None) or ""
    return NamedClasses(
        background=None if match is None else match.background,
        weighted=() if segment is None else tuple(segment.class_weights),
        kept_by=metric if class_of(metric) else "",
    )


def background_problem(background: int | None, classes: int | None) -> Iterator[str]:
    """A background class that a data set of so many classes does not have; None = not known yet."""
    if background is not None and (background < 0 or (classes is not None and background >= classes)):
        there = "" if classes is None else f", which has 0 to {classes - 1}"
        yield (
            f"match.background {background} is no class of the data set{there}: write the number of one, or null for no"
            " background class"
        )
