"""Loads the models of an evaluation: the variants of one model, and of another one beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from timesformer_runtime.classifier import VideoClassifier
from timesformer_runtime.errors import InvalidOptionError, quoted
from timesformer_runtime.evaluate.memory import memory_of, warm_up
from timesformer_runtime.evaluate.models import EvaluatedModel, labels_of, places_in
from timesformer_runtime.model.locate import DTYPES
from timesformer_runtime.source_names import shown

# Loads a model's variant; None asks for the usual one.
Load = Callable[[str, str | None], VideoClassifier]


@dataclasses.dataclass(frozen=True)
class LoadedModels:
    """The models of an evaluation.

    Attributes:
        models: The models; those of the evaluated model come first.
        pairs: The names of the models to compare, the reference first.
    """

    models: tuple[EvaluatedModel, ...]
    pairs: tuple[tuple[str, str], ...]

    def close(self) -> None:
        """Frees the models' memory."""
        for model in self.models:
            model.pipeline.close()


def load_models(
    load: Load, model: str, dtypes: Sequence[str] = (), against: str | None = None
) -> LoadedModels:
    """Loads the variants of a model, and the model or variant to compare them with.

    Args:
        load: Loads a variant of a model.
        model: The evaluated model.
        dtypes: Its variants; none means the usual one.
        against: Another model, of which the same variants are loaded; or the name of a variant.

    Raises:
        InvalidOptionError: A variant is named twice, or the other model has other labels.
        TimesformerError: A model cannot be loaded.
    """
    wanted: list[str | None] = [*dtypes] or [None]
    if against is not None and against in DTYPES and not Path(against).exists():
        if against not in wanted:
            wanted.append(against)
        reference, against = against, None
    else:
        reference = None
    if len(set(wanted)) < len(wanted):
        raise InvalidOptionError(f"`dtypes` is {', '.join(map(str, wanted))}; name each only once")
    mine = [_evaluated(load, model, dtype) for dtype in wanted]
    names = [one.name for one in mine]
    if len(set(names)) < len(names) or names == [reference]:
        raise InvalidOptionError(
            f"`against` is {reference}, which is the evaluated variant; name another variant"
        )
    if reference is None:
        reference = "fp32" if "fp32" in names else names[0]
    pairs = [(reference, name) for name in names if name != reference]
    if against is None:
        return LoadedModels(tuple(mine), tuple(pairs))
    labels = labels_of(mine[0].pipeline)
    theirs = []
    for dtype, one in zip(wanted, mine, strict=True):
        other = _evaluated(load, against, dtype, f"{_short_name(against, model)} ")
        theirs.append(dataclasses.replace(other, places=places_in(labels, other.pipeline)))
        pairs.append((other.name, one.name))
    return LoadedModels((*mine, *theirs), tuple(pairs))


def _evaluated(load: Load, model: str, dtype: str | None, prefix: str = "") -> EvaluatedModel:
    """Loads a model, measures its memory, and runs it once."""
    classifier = load(model, dtype)
    warm_up(classifier)
    name = f"{prefix}{classifier.dtype or 'model'}"
    return EvaluatedModel(name, classifier, classifier.fingerprint(), memory=memory_of(classifier))


def _short_name(against: str, model: str) -> str:
    """Names the other model in the results: by its own name, or by its path if the names agree."""
    name, other = shown(against), shown(model)
    if Path(name).resolve() == Path(other).resolve():
        raise InvalidOptionError(
            f"`against` is {quoted(against)}, which is the evaluated model; name another model, or "
            "one of its variants, such as `against=fp32`"
        )
    return Path(name).name if Path(name).name != Path(other).name else name
