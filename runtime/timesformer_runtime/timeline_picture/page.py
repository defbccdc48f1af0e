"""The picture of a timeline as an HTML page that tells times and scores under the pointer."""

from __future__ import annotations

import json
from html import escape

import numpy as np

from timesformer_runtime.errors import printable
from timesformer_runtime.timeline_picture.bands import Bands
from timesformer_runtime.timeline_picture.drawing import COLOURS, WIDTH, Drawing
from timesformer_runtime.timeline_picture.svg import DARK, LIGHT, svg_element


def html(drawing: Drawing, bands: Bands) -> str:
    """Writes a page that needs no other file and no network, for light and dark screens."""
    scores = np.round(np.nan_to_num(bands.scores.T, nan=-1.0), 3)
    data = {
        "labels": [printable(label) for label in bands.labels],
        "colours": COLOURS[: len(bands.labels)],
        "scores": scores.tolist(),
        "start": bands.start,
        "end": bands.end,
        "chart": drawing.chart,
        "width": WIDTH,
    }
    # "<" would end the script where a label has "</script>".
    values = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return _PAGE.format(
        title=escape(drawing.title),
        light=_variables(LIGHT),
        dark=_variables(DARK),
        inks="".join(f".{name}{{fill:var(--{name})}}" for name in LIGHT),
        picture=svg_element(drawing),
        data=values,
        script=_SCRIPT,
    )


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root{{color-scheme:light dark;{light}}}
@media (prefers-color-scheme:dark){{:root{{{dark}}}}}
@media print{{:root{{{light}}}}}
{inks}
body{{margin:0;background:var(--paper);color:var(--ink);
font:13px/1.45 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}}
#scroll{{overflow-x:auto}}
#picture{{position:relative;min-width:860px;max-width:1600px;margin:0 auto;
touch-action:pan-x pan-y}}
svg{{display:block;width:100%;height:auto}}
#line{{position:absolute;width:1px;background:var(--ink);opacity:.65;pointer-events:none}}
#tip{{position:absolute;min-width:9em;max-width:22em;padding:8px 10px;pointer-events:none;
background:var(--paper);border:1px solid var(--grid);border-radius:6px;
box-shadow:0 4px 14px #0004}}
#tip b{{display:block;margin-bottom:2px;font-variant-numeric:tabular-nums}}
#tip div{{display:flex;gap:8px;align-items:baseline}}
#tip i{{flex:none;width:9px;height:9px;border-radius:2px}}
#tip span{{flex:1;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}}
#tip em{{font-style:normal;font-variant-numeric:tabular-nums;color:var(--soft)}}
</style>
</head>
<body>
<div id="scroll"><div id="picture">
{picture}<div id="line" hidden></div><div id="tip" hidden></div>
</div></div>
<script type="application/json" id="data">{data}</script>
<script>
{script}
</script>
</body>
</html>
"""

_SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
const picture = document.getElementById("picture");
const line = document.getElementById("line");
const tip = document.getElementById("tip");
const [left, top_, width, height] = data.chart;

function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const whole = Math.floor(tenths / 10);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const digits = parts.map((part) => String(part).padStart(2, "0"));
  const minutes = parts[0] ? parts[0] + ":" + digits[1] : String(parts[1]);
  return minutes + ":" + digits[2] + "." + (tenths % 10);
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function hide() {
  line.hidden = tip.hidden = true;
}

function show(event) {
  const box = picture.getBoundingClientRect();
  const scale = box.width / data.width;
  const x = (event.clientX - box.left) / scale;
  const y = (event.clientY - box.top) / scale;
  if (x < left || x >= left + width || y > top_ + height + 30) return hide();
  const part = (x - left) / width;
  const columns = data.scores.length;
  const scores = data.scores[Math.min(columns - 1, Math.floor(part * columns))];
  const rows = scores.map((score, row) => [score, row]).filter(([score]) => score > 0.005);
  rows.sort((a, b) => b[0] - a[0]);
  const time = clock(data.start + (data.end - data.start) * part);
  tip.replaceChildren(element("b", time));
  for (const [score, row] of rows.slice(0, 6)) {
    const item = document.createElement("div");
    const mark = document.createElement("i");
    mark.style.background = data.colours[row];
    const value = element("em", score.toFixed(2));
    item.append(mark, element("span", data.labels[row]), value);
    tip.append(item);
  }
  if (!rows.length) tip.append(element("div", "no label of these"));
  line.hidden = tip.hidden = false;
  line.style.left = x * scale + "px";
  line.style.top = (top_ - 4) * scale + "px";
  line.style.height = (height + 8) * scale + "px";
  const atRight = x < data.width * 0.7;
  tip.style.left = atRight ? (x + 12) * scale + "px" : "auto";
  tip.style.right = atRight ? "auto" : box.width - (x - 12) * scale + "px";
  tip.style.top = Math.max(0, Math.min(y * scale + 12, box.height - tip.offsetHeight - 4)) + "px";
}

picture.addEventListener("pointermove", show);
picture.addEventListener("pointerdown", show);
picture.addEventListener("pointerleave", hide);
"""
