"""Damages JSON: puts values that no configuration should have anywhere into it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.fuzz.models.hostile import PATHS, TEXTS, pick
from tests.fuzz.mutations import Random

# json.dumps cannot write all of these texts, so they replace a marker in its output.
_NUMBERS = (
    *("0", "-1", "1", "2", "3", "16", "224", "0.5", "8.0", "-0.0", "8192", "8193", "65536"),
    *("1000000", "1000001", "2147483648", "9223372036854775807", "9223372036854775808"),
    *("18446744073709551616", "-9223372036854775809", "1e308", "1e999", "-1e999", "1e-320"),
    *("NaN", "Infinity", "-Infinity", "1" + "0" * 400, "-1" + "0" * 5000, "0." + "3" * 5000),
)
_STRINGS = tuple(json.dumps(text) for text in (*TEXTS, *PATHS))
_OTHERS = (
    *("null", "true", "false", "[]", "{}", "[[]]", "[1, 2]", "[0, 0, 0]", "[1e-30, 1e30, 1]"),
    *('{"height": 24, "width": 24}', '{"shortest_edge": 24}', '{"0": "a"}', '{"-1": "a"}'),
    *('{"a": 0}', '{"0": null}', "[" * 70 + "]" * 70, "[" * 100_000 + "]" * 100_000),
    *('{"a":' * 9999 + "1" + "}" * 9999, "[" + "0," * 50_000 + "0]"),
    *('{"0": "' + "x" * 100_000 + '"}', '{"' + "x" * 100_000 + '": 0}'),
)
_VALUES = (*_NUMBERS, *_STRINGS, *_OTHERS)
# Keys of the configurations of models and processors, of indexes and of tensor files.
_KEYS = (
    *("model_type", "num_frames", "num_channels", "image_size", "patch_size", "hidden_size"),
    *("num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    *("layer_norm_eps", "initializer_range", "drop_path_rate", "qkv_bias", "attention_type"),
    *("id2label", "label2id", "num_labels", "problem_type", "size", "crop_size", "resample"),
    *("image_mean", "image_std", "rescale_factor", "do_resize", "do_rescale", "do_normalize"),
    *("do_center_crop", "do_pad", "offset", "crop_pct", "default_to_square", "auto_map"),
    *("video_processor", "image_processor", "video_processor_type", "image_processor_type"),
    *("feature_extractor_type", "do_sample_frames", "fps", "seed", "shape", "output", "values"),
    *("method", "generator", "weight_map", "metadata", "dtype", "data_offsets", "__metadata__"),
)
_TYPES = (
    *("VideoMAEImageProcessor", "ViTFeatureExtractor", "ConvNextImageProcessor"),
    *("CLIPImageProcessor", "VivitImageProcessor", "DeiTImageProcessor", "SiglipImageProcessor"),
    *("TimesformerVideoProcessor", "VivitVideoProcessor", "DetrImageProcessor"),
)
_MARKERS = {"a hostile value": _VALUES, "a hostile number": _NUMBERS, "a hostile text": _STRINGS}
_ANY, _NUMBER, _STRING = _MARKERS


def damage_json(text: str, random: Random) -> bytes:
    """Damages a JSON text; damages a text that is not JSON any more as plain text.

    Returns:
        The damaged text, mostly in UTF-8.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _as_text(text, random)
    if not isinstance(value, dict | list) or not value or random.random() < 0.1:
        return _as_text(text, random)
    pick(_DAMAGES, random)(pick(_containers(value), random), random)
    damaged = json.dumps(value)
    for marker, values in _MARKERS.items():
        damaged = damaged.replace(json.dumps(marker), pick(values, random))
    return damaged.encode()


def _containers(value: Any) -> list[Any]:
    """Lists a container and all containers in it that are not empty."""
    found = [value]
    for container in found:
        inner = container.values() if isinstance(container, dict) else container
        found += [item for item in inner if isinstance(item, dict | list) and item]
    return found


def _pick_key(container: Any, random: Random) -> Any:
    return pick(list(container) if isinstance(container, dict) else range(len(container)), random)


def _replace(container: Any, random: Random) -> None:
    container[_pick_key(container, random)] = _ANY


def _replace_by_its_kind(container: Any, random: Random) -> None:
    key = _pick_key(container, random)
    is_text = isinstance(container[key], str)
    container[key] = _STRING if is_text else _NUMBER


def _remove(container: Any, random: Random) -> None:
    del container[_pick_key(container, random)]


def _add(container: Any, random: Random) -> None:
    if isinstance(container, dict):
        container[pick(_KEYS, random)] = _ANY
    else:
        container.append(_ANY)


def _name_type(container: Any, random: Random) -> None:
    if isinstance(container, dict):
        container[pick(("image_processor_type", "video_processor_type"), random)] = pick(
            _TYPES, random
        )


def _rename(container: Any, random: Random) -> None:
    if isinstance(container, dict):
        value = container.pop(_pick_key(container, random))
        container[pick((*TEXTS, *PATHS, *_KEYS), random)] = value


def _exchange(container: Any, random: Random) -> None:
    first, second = _pick_key(container, random), _pick_key(container, random)
    container[first], container[second] = container[second], container[first]


_DAMAGES: tuple[Callable[[Any, Random], None], ...] = (
    _replace,
    _replace,
    _replace_by_its_kind,
    _replace_by_its_kind,
    _add,
    _add,
    _remove,
    _name_type,
    _rename,
    _exchange,
)


def _as_text(text: str, random: Random) -> bytes:
    offset = int(random.integers(len(text) + 1))
    whole = str(pick(_VALUES, random))
    others = (
        whole.encode(),
        text[:offset].encode("utf-8", "surrogatepass"),
        text.encode("utf-16", "surrogatepass"),
        text.encode("utf-8-sig", "surrogatepass"),
        f"{text}{text}".encode("utf-8", "surrogatepass"),
        f'[{text}, {{"a": {text}}}]'.encode("utf-8", "surrogatepass"),
        f"{text[:offset]}{whole}{text[offset:]}".encode("utf-8", "surrogatepass"),
        f"{text[:offset]}\0{text[offset:]}".encode("utf-8", "surrogatepass"),
        f"// {text}".encode("utf-8", "surrogatepass"),
        b"\xff" + text.encode("utf-8", "surrogatepass"),
    )
    return bytes(pick(others, random))
