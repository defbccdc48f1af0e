"""Service: the engine, settings and folder that all routes share."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path

from timesformer_runtime.errors import TimesformerError
from timesformer_runtime.extras import needs_extra
from timesformer_runtime.serve.engine import Engine
from timesformer_runtime.serve.failures import kind_of, line_of, status_of
from timesformer_runtime.serve.settings import ServiceSettings

with needs_extra("serve"):
    from fastapi import HTTPException

_log = logging.getLogger("uvicorn.error")  # which the command prints


@dataclasses.dataclass(frozen=True)
class Service:
    """The engine, the settings and the folder that all routes share.

    Attributes:
        engine: Works for the requests.
        settings: Limits and access.
        folder: For uploads, until their requests are answered.
    """

    engine: Engine
    settings: ServiceSettings
    folder: Path

    def new_path(self) -> Path:
        """Gives the path of a file that is not there yet, for a request."""
        return self.folder / secrets.token_hex()

    @contextlib.contextmanager
    def explained(self, names: dict[str, str], model: str) -> Iterator[None]:
        """Turns an error of the runtime into an answer with a status and one line.

        Args:
            names: For texts in messages, such as paths, the text to write in their place.
            model: The public name of the model.

        Raises:
            HTTPException: In place of the error.
        """
        try:
            yield
        except (TimesformerError, MemoryError) as error:
            status, line = self.noted(error, names, model)
            headers = {"Retry-After": "1"} if status == 503 else None
            raise HTTPException(status, line, headers) from error

    def noted(self, error: Exception, names: dict[str, str], model: str) -> tuple[int, str]:
        """Counts an error of the runtime, and logs it where it is not the client's fault.

        Args:
            error: The error.
            names: As for ``explained``.
            model: As for ``explained``.

        Returns:
            Its status, and the error on one line, without the server's own paths.
        """
        self.engine.metrics.count_error(kind_of(error))
        classifier = self.engine.models[model]
        own = {classifier.name: model, str(classifier.model.graph): model}
        status, line = status_of(error), line_of(error, {**own, **names})
        if status >= 500:
            _log.error("%s", line)
        return status, line
