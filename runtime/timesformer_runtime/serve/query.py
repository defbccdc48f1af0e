"""The options of a request: those of a command, read from the query of a URL."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import click

from timesformer_runtime.errors import InvalidOptionError, quoted
from timesformer_runtime.extras import needs_extra

with needs_extra("serve"):
    from pydantic import (
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        ValidationError,
        WithJsonSchema,
        create_model,
    )

Options = dict[str, Any]

_OPTION = re.compile(r"--([a-z][a-z-]*)")  # in help texts, which are those of the command line


@dataclasses.dataclass(frozen=True)
class Queries:
    """The options of requests.

    Attributes:
        classify: Of ``/v1/classify``.
        timeline: Of ``/v1/timeline``.
        infer: Of a video in a request of the Open Inference Protocol.
    """

    classify: OptionReader
    timeline: OptionReader
    infer: OptionReader


class OptionReader:
    """Reads the options of a click command from a query or from JSON.

    Names, defaults, allowed values and help texts are those of the command.

    Args:
        command: The command; its callback turns the options into what the service works with.
    """

    def __init__(self, command: click.Command) -> None:
        self._callback = command.callback
        with command.make_context(command.name, []) as context:
            defaults = context.params  # as every version of click fills them in
        fields: Any = {
            option.name: _field(option, defaults[option.name])
            for option in command.params
            if isinstance(option, click.Option) and option.name
        }
        config = ConfigDict(extra="forbid")
        self._model: type[BaseModel] = create_model(str(command.name), __config__=config, **fields)

    def from_mapping(self, values: Mapping[str, Any]) -> Options:
        """Reads options from JSON.

        Raises:
            InvalidOptionError: An option is unknown, or its value is not allowed.
        """
        # In a query all values are texts, so the numbers of JSON may be texts, too.
        return self._read({name: str(v) if type(v) is int else v for name, v in values.items()})

    def from_query(self, query: Sequence[tuple[str, str]]) -> Options:
        """Reads options from the names and values of a URL's query.

        (FastAPI can read them, too, but takes a fifth of the event loop's time for a request.)

        Raises:
            InvalidOptionError: An option is unknown or given twice, or its value is not allowed.
        """
        options = self._read(dict(query))
        if query:
            name, count = Counter(name for name, _ in query).most_common(1)[0]
            if count > 1:
                raise InvalidOptionError(f"`{name}` is given {count} times; give it once")
        return options

    @property
    def parameters(self) -> list[dict[str, Any]]:
        """The options as parameters of OpenAPI."""
        return [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in self._model.model_json_schema()["properties"].items()
        ]

    def _read(self, values: Mapping[str, Any]) -> Options:
        try:
            read = self._model.model_validate(values)
        except ValidationError as error:
            names = [*self._model.model_fields]
            raise InvalidOptionError(_why_invalid(error.errors(), names)) from error
        assert self._callback is not None  # noqa: S101  # a command has one
        options: Options = self._callback(**read.model_dump())
        return options


def _why_invalid(errors: Sequence[Any], names: Sequence[str]) -> str:
    """Says on one line what is wrong with the first wrong option.

    Args:
        errors: The errors that pydantic found.
        names: The names of the known options.
    """
    first = errors[0]
    name = str(first["loc"][-1])
    if first["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean `{nearest[0]}`?" if nearest else f"there are {', '.join(names)}"
        return f"there is no option {quoted(name)}; {hint}"
    if first["type"] == "missing":
        return f"`{name}` is missing"
    if first["type"] == "value_error":  # of `_converted`: it names the value, too
        return f"`{name}`: {first['ctx']['error']}"
    reason = first["msg"][:1].lower() + first["msg"][1:]
    return f"`{name}` is {quoted(first.get('input'))}: {reason}"


def _field(option: click.Option, default: Any) -> tuple[Any, Any]:
    """The type and default of an option, as pydantic takes them."""
    kind = option.type
    shown: dict[str, Any] | None = None  # what differs in the description
    annotation: Any
    if option.is_flag:
        annotation = bool
    elif isinstance(kind, click.Choice):
        annotation = Literal[tuple(kind.choices)]
    elif isinstance(kind, click.IntRange):
        annotation = Annotated[int, Field(ge=kind.min, le=kind.max)]
    elif isinstance(kind, click.types.StringParamType):
        annotation = str
    else:  # a duration, which is written as text
        schema = WithJsonSchema({"type": "string"})
        annotation = Annotated[Any, BeforeValidator(_converted(kind)), schema]
        shown = {"default": f"{default:g}s"} if default is not None else None
    if default is None:
        annotation = annotation | None
    description = _OPTION.sub(lambda found: found[1].replace("-", "_"), option.help or "")
    return annotation, Field(default, description=description, json_schema_extra=shown)


def _converted(kind: click.ParamType[Any]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        try:
            return kind.convert(value, None, None)
        except click.BadParameter as error:
            raise ValueError(error.message) from error

    return convert
