"""The settings of a service."""

from __future__ import annotations

import dataclasses

from timesformer_runtime.video.limits import DecodeLimits


@dataclasses.dataclass(frozen=True)
class ServiceSettings:
    """Limits and access of a service.

    Attributes:
        limits: The limits of reading one video, and of the model's runs for it.
        queue: How many requests may wait for a worker; the next one is refused with status 503.
        max_upload: Bytes of a request's body.
        upload_seconds: How long a body may take to arrive.
        timeline_seconds: How long a timeline may take.
        send_seconds: How long a client may take to accept a part of an answer.
        token: The bearer token that a client has to send; None lets everybody in.
    """

    limits: DecodeLimits
    queue: int = 16
    max_upload: int = 1 << 29
    upload_seconds: float = 60.0
    timeline_seconds: float = 3600.0
    send_seconds: float = 60.0
    token: str | None = None
