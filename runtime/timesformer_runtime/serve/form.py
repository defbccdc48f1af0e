"""Form: finds the one file in the body of a form, while the body arrives."""

from __future__ import annotations

from typing import Protocol

from timesformer_runtime.errors import named
from timesformer_runtime.extras import needs_extra

with needs_extra("serve"):
    from fastapi import HTTPException
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

_MOST_HEADERS = 16  # of one part of a form
_LONGEST_NAME = 200


class _Writer(Protocol):
    """Takes the bytes of a file, piece by piece."""

    def write(self, data: bytes, /) -> object:
        """Takes the next bytes."""


class Form:
    """Writes the one file of a form to a file, and drops all other fields.

    Args:
        boundary: What stands between the fields, as the header of the request says.
        file: Takes the bytes of the file.

    Raises:
        HTTPException: The boundary cannot be one.
    """

    def __init__(self, boundary: bytes, file: _Writer) -> None:
        self._file = file
        self._names: list[str] = []
        self._is_video = False
        self._is_whole = False
        self._field, self._value = b"", b""
        self._disposition = b""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._add_to_field,
                    "on_header_value": self._add_to_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._take,
                    "on_end": self._end,
                },
                max_header_count=_MOST_HEADERS,
            )
        except FormParserError as error:
            raise _not_a_form(str(error)) from error

    def write(self, data: bytes | bytearray) -> None:
        """Takes the next bytes of the form.

        Raises:
            HTTPException: They are not those of a form.
        """
        try:
            self._parser.write(bytes(data))
        except FormParserError as error:
            raise _not_a_form(str(error)) from error

    def name_of_file(self) -> str:
        """The client's name of the file, after the last byte.

        Raises:
            HTTPException: The form is cut short, or does not have exactly one file.
        """
        if not self._is_whole:
            raise _not_a_form("its end is missing")
        if len(self._names) != 1:
            raise _not_a_form(f"it has {len(self._names)} files")
        return self._names[0]

    def _begin(self) -> None:
        self._disposition = b""
        self._is_video = False

    def _add_to_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field, self._value = b"", b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"filename")
        if name is not None:
            text = name.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
            self._names.append(text[:_LONGEST_NAME] or "upload")
            self._is_video = len(self._names) == 1

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._is_video:
            self._file.write(data[start:end])

    def _end(self) -> None:
        self._is_whole = True


def _not_a_form(reason: str) -> HTTPException:
    return HTTPException(
        400, f"the body is not a form with one file ({named(reason)}); send one, or the bytes alone"
    )
