"""The routes for people, over a real connection to a process of its own."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from timesformer_runtime import VideoClassifier, VideoDecoder, Views
from timesformer_runtime.input.sampling import Sampling

from tests.patience import PATIENCE
from tests.service import ServiceProcess, served
from tests.tiny_graphs import write_exported_model


def without_seconds(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "seconds"}


def pieces(data: bytes, size: int = 1000) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Reads server-sent events."""
    kind = ""
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            kind = value
        elif field == "data":
            yield kind, json.loads(value)


def test_classify_answers_as_the_command_does(
    client: httpx.Client, folder: Path, classifier: VideoClassifier
) -> None:
    video = folder / "short.mp4"
    expected = without_seconds(classifier.classify(video, 2).to_dict())
    data = video.read_bytes()
    bodies: tuple[dict[str, Any], ...] = (
        {"content": data},
        {"content": pieces(data)},  # without Content-Length
        {"files": {"video": ("short.mp4", data)}},
        {"files": {"anything": ("deep/../short.mp4", data)}, "data": {"other": "field"}},
    )
    for body in bodies:
        answer = client.post("/v1/classify", params={"top_k": 2}, **body)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found.pop("video") == ("short.mp4" if "files" in body else "upload")
        assert found["seconds"].keys() == {"decode", "preprocess", "inference"}
        assert without_seconds(found) == expected


def test_the_query_has_the_options_of_the_command(
    client: httpx.Client, folder: Path, classifier: VideoClassifier
) -> None:
    views = Views(Sampling("center", 2, short="wrap"), resize="fast", channel_order="bgr")
    model = classifier.model
    other = VideoClassifier(model, views, {})
    expected = without_seconds(other.classify(folder / "short.mp4").to_dict())
    query: dict[str, Any] = {
        "sampling": "center",
        "frame_sampling_rate": 2,
        "short": "wrap",
        "resize": "fast",
        "channel_order": "bgr",
        "square_pixels": "false",
        "model": "shots",
    }
    data = (folder / "short.mp4").read_bytes()
    answer = client.post("/v1/classify", params=query, content=data)
    assert answer.status_code == 200, answer.text
    assert without_seconds(answer.json()) == {"video": "upload", **expected}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"samplin": "center"}, ["samplin", "did you mean `sampling`"]),
        ({"zzz": "1"}, ["zzz", "top_k"]),
        ({"top_k": "0"}, ["`top_k`", "'0'"]),
        ({"top_k": "many"}, ["`top_k`", "'many'"]),
        ({"sampling": "random"}, ["`sampling`", "'random'", "uniform"]),
        ({"crops": "2"}, ["`crops`", "'2'"]),
        ({"square_pixels": "perhaps"}, ["`square_pixels`", "'perhaps'"]),
        ({"clips": "3"}, ["clip", "dense"]),
        ({"top_k": ["1", "2"]}, ["`top_k`"]),
    ],
)
def test_a_wrong_option_is_one_line(
    client: httpx.Client, query: dict[str, Any], words: list[str]
) -> None:
    answer = client.post("/v1/classify", params=query, content=b"x")
    assert answer.status_code == 400, answer.text
    message = answer.json()["error"]
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_wrong_duration_is_named_once(client: httpx.Client) -> None:
    answer = client.post("/v1/timeline", params={"window": "0s"}, content=b"x")
    assert answer.status_code == 400
    message = answer.json()["error"]
    assert message.startswith("`window`: ")
    assert message.count("'0s'") == 1


def test_advice_is_what_a_client_can_do(folder: Path) -> None:
    data = (folder / "short.mp4").read_bytes()
    model = (folder / "shots", "--device", "cpu")
    for limit in ("--max-pixels", "--max-packets", "--max-bytes"):
        with served(*model, limit, "1") as service, service.client() as client:
            for route in ("/v1/classify", "/v1/timeline"):
                answer = client.post(route, content=data)
                assert answer.status_code == 413, answer.text
                assert "max_" not in answer.json()["error"]


def test_an_unknown_model_is_not_found(client: httpx.Client, folder: Path) -> None:
    for name in ("other", "../shots", str(folder / "shots"), "x" * 10_000):
        answer = client.post("/v1/classify", params={"model": name}, content=b"x")
        assert answer.status_code == 404
        assert "there is shots" in answer.json()["error"]
        assert len(answer.json()["error"]) < 500


def test_what_is_not_there_is_named(client: httpx.Client) -> None:
    for method, route, status, words in (
        ("GET", "/v2/models", 404, ["/v2/models", "/docs"]),
        ("GET", "/" + "x" * 10_000, 404, ["/docs"]),
        ("GET", "/static/other.js", 404, ["/static/other.js", "/docs"]),
        ("PUT", "/v1/classify", 405, ["/v1/classify", "PUT", "it takes POST"]),
    ):
        answer = client.request(method, route)
        assert answer.status_code == status
        message = answer.json()["error"]
        assert all(word in message for word in words), message
        assert len(message) < 500


def test_the_timeline_is_that_of_the_command(
    client: httpx.Client, folder: Path, classifier: VideoClassifier
) -> None:
    video = folder / "long.mp4"
    options: dict[str, Any] = {"window": 1.0, "stride": 0.5, "merge": True, "top_k": 2}
    expected = [
        without_seconds(segment.to_dict()) for segment in classifier.timeline(video, **options)
    ]
    query = {"window": "1s", "stride": "500ms", "merge": "true", "top_k": "2"}
    with client.stream("POST", "/v1/timeline", params=query, content=video.read_bytes()) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        *found, end = events(answer)
    assert end == ("end", {"duration": 10.0, "problems": []})
    assert {kind for kind, _ in found} == {"segment"}
    for _, values in found:
        assert values.pop("duration") == 10.0
    assert [without_seconds(values) for _, values in found] == expected


@pytest.mark.parametrize("route", ["/v1/classify", "/v1/timeline"])
def test_a_broken_video_is_the_clients_fault(
    client: httpx.Client, folder: Path, route: str
) -> None:
    data = (folder / "text.mp4").read_bytes()
    answer = client.post(route, files={"video": ("my.mp4", data)})
    assert answer.status_code == 422
    message = answer.json()["error"]
    assert message.startswith("my.mp4 ")
    assert "\n" not in message
    assert str(folder) not in message


def test_a_name_that_does_not_print_is_escaped_in_messages(client: httpx.Client) -> None:
    answer = client.post("/v1/classify", files={"video": ("\u202e\x1b[2J.mp4", b"no video")})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("\\u202e")
    assert answer.json()["error"].isprintable()


def test_models_and_health(client: httpx.Client, classifier: VideoClassifier) -> None:
    (described,) = client.get("/v1/models").json()["models"]
    assert described["name"] == "shots"
    assert described["labels"] == list(classifier.labels or ())
    for route in ("/v2/health/live", "/v2/health/ready"):
        assert client.get(route).status_code == 200
        assert client.head(route).status_code == 200


def test_pictures_of_the_frames(
    client: httpx.Client, folder: Path, classifier: VideoClassifier
) -> None:
    data = (folder / "short.mp4").read_bytes()
    answer = client.post("/v1/classify", params={"pictures": "true"}, content=data).json()
    frames = answer["frames"]
    assert [picture["index"] for picture in answer["pictures"]] == frames["indices"]
    assert [picture["time"] for picture in answer["pictures"]] == frames["times"]
    with VideoDecoder(folder / "short.mp4") as decoder:
        expected = decoder.frames(frames["indices"]).pixels
    for picture, pixels in zip(answer["pictures"], expected, strict=True):
        head, _, text = picture["jpeg"].partition(",")
        assert head == "data:image/jpeg;base64"
        found = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), dtype=float)
        assert found.shape == pixels.shape
        assert np.abs(found - pixels).mean() < 10


@pytest.mark.skipif(sys.platform != "linux", reason="reads in another process on Linux only")
def test_isolated(folder: Path, classifier: VideoClassifier) -> None:
    data = (folder / "short.mp4").read_bytes()
    model = (folder / "shots", "--device", "cpu", "--threads", "1", "--isolated")
    with served(*model) as service, service.client() as client:
        answer = client.post("/v1/classify", params={"pictures": "true"}, content=data).json()
        expected = classifier.classify(folder / "short.mp4").to_dict()
        assert answer["predictions"] == expected["predictions"]
        assert len(answer["pictures"]) == len(answer["frames"]["indices"])
        text = (folder / "text.mp4").read_bytes()
        for route in ("/v1/classify", "/v1/timeline"):
            answer = client.post(route, files={"video": ("my.mp4", text)})
            assert answer.status_code == 422
            assert answer.json()["error"].startswith("my.mp4 ")
        with client.stream("POST", "/v1/timeline", content=data) as stream:
            assert [kind for kind, _ in events(stream)] == ["segment", "end"]


def test_several_models(folder: Path) -> None:
    data = (folder / "short.mp4").read_bytes()
    other = write_exported_model(folder / "other", ("fp32",))
    with served(folder / "shots", other, "--device", "cpu") as service, service.client() as client:
        names = [model["name"] for model in client.get("/v1/models").json()["models"]]
        assert names == ["shots", "other"]
        for name in names:
            answer = client.post("/v1/classify", params={"model": name}, content=data)
            assert answer.status_code == 200
            assert client.get(f"/v2/models/{name}/ready").status_code == 200
        answer = client.post("/v1/classify", content=data)
        assert answer.status_code == 400
        assert "`model` is missing" in answer.json()["error"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL", "MODEL"], "two models have the name shots"),
        (["MODEL/nothing"], "nothing"),
        (["MODEL", "--port", "99999"], "99999"),
        (["MODEL", "--host", "no such host"], "no such host"),
        (["MODEL", "--token-file", "MODEL/nothing"], "cannot be read"),
        (["MODEL", "--token-file", "MODEL/config.json"], "does not hold a token"),
        (["MODEL", "--upload-time", "soon"], "'soon' is not a duration"),
        ([], "MODEL"),
    ],
)
def test_a_command_that_cannot_serve(folder: Path, arguments: list[str], words: str) -> None:
    filled = [argument.replace("MODEL", str(folder / "shots")) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "timesformer_runtime", "serve", "--port", "0", *filled],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken(folder: Path, service: ServiceProcess) -> None:
    command = [sys.executable, "-m", "timesformer_runtime", "serve"]
    done = subprocess.run(
        [*command, "--port", str(service.port), folder / "shots"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "choose another --host or --port" in done.stderr


def test_pages_ask_no_other_server(client: httpx.Client) -> None:
    for route in ("/", "/docs", "/static/page.js", "/static/docs.js", "/static/style.css"):
        answer = client.get(route)
        assert answer.status_code == 200
        assert "http:" not in answer.text
        assert "https:" not in answer.text
        assert "//cdn" not in answer.text
    for route in ("/", "/docs"):
        assert "default-src 'none'" in client.get(route).headers["content-security-policy"]


def test_openapi_describes_the_options(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    options = {one["name"]: one for one in paths["/v1/classify"]["post"]["parameters"]}
    assert set(options) >= {"top_k", "sampling", "protocol", "crops", "short", "resize", "model"}
    assert "dense" in json.dumps(options["sampling"])
    assert options["top_k"]["schema"]["default"] == 5
    assert {"/v1/timeline", "/v2/models/{name}/infer", "/metrics"} <= paths.keys()


def test_openapi_describes_the_answers(client: httpx.Client) -> None:
    description = client.get("/openapi.json").json()
    assert "HTTPValidationError" not in json.dumps(description)
    kinds = {
        "/v1/classify": {"application/json"},
        "/v1/timeline": {"text/event-stream"},
        "/v2/models/{name}/infer": {"application/json", "application/octet-stream"},
    }
    for path, expected in kinds.items():
        answers = description["paths"][path]["post"]["responses"]
        assert answers["200"]["content"].keys() == expected
        error = answers["default"]["content"]["application/json"]["schema"]
        assert error["required"] == ["error"]
    assert description["paths"]["/metrics"]["get"]["responses"]["200"]["content"].keys() == {
        "text/plain"
    }
    options = {
        option["name"]: option["schema"]
        for option in description["paths"]["/v1/timeline"]["post"]["parameters"]
    }
    assert (options["window"]["default"], options["stride"]["default"]) == ("4s", "2s")


def test_the_description_comes_without_warnings(service: ServiceProcess) -> None:
    said = len(service.lines)
    with service.client() as client:
        assert client.get("/openapi.json").status_code == 200
    assert service.lines[said:] == []


def test_no_redirect_leads_to_a_route(client: httpx.Client) -> None:
    """Behind a proxy for HTTPS, the redirect of a slash would lead to plain HTTP."""
    for route in ("/v1/classify/", "/v2/models/shots/infer/", "/docs/"):
        answer = client.post(route, headers={"X-Forwarded-Proto": "https"}, content=b"x")
        assert answer.status_code in {404, 405}
        assert "location" not in answer.headers
