#!/usr/bin/env python3
"""Draws all panels of a Grafana dashboard as one SVG, from the answers of a Prometheus; dev/dashboard-picture prepares what it needs.

Owns: places, units, axes, legends, thresholds, as near to Grafana's as a reader needs. Does not own: the queries (dashboard_check.py).

usage: dashboard_picture.py DASHBOARD PROMETHEUS_URL SECONDS OUTPUT     SECONDS: how far back the picture goes
"""

import html
import json
import math
import re
import sys
import time

from dashboard_check import ask, query_of

# A dashboard has 24 columns; its rows are flatter than Grafana's, so that the picture fits a page.
COLUMN, ROW, GAP, MARGIN, HEAD, FOOT = 48, 26, 8, 12, 46, 34
WIDTH = 2 * MARGIN + 24 * COLUMN - GAP
POINTS = 150
INK, FAINT, LINE, PAGE, PANEL = "#24292e", "#6a737d", "#e3e5e8", "#f4f5f5", "#ffffff"
COLOURS = ["#3b8f3e", "#c48a00", "#2f6fd0", "#d9600a", "#c4162a", "#8a3ab9", "#12879b", "#7a6352"]
NAMED = {"green": "#2f8f33", "red": "#d0021b", "orange": "#d9600a", "yellow": "#b88700", "blue": "#2f6fd0", "text": INK}
# What Grafana takes where a panel says nothing.
THRESHOLDS = [{"color": "green", "value": None}, {"color": "red", "value": 80}]
# What each step of a unit is worth, and its name.
THOUSANDS = [(1000**n, name) for n, name in enumerate(["", "K", "Mil", "Bil", "Tri"])]
UNITS = {
    "none": [(1, "")],
    "short": THOUSANDS,
    "percentunit": [(0.01, "%")],
    "s": [(1, " s"), (60, " min"), (3600, " h"), (86400, " d")],
    "bytes": [(1024**n, f" {name}") for n, name in enumerate(["B", "KiB", "MiB", "GiB", "TiB"])],
    "Bps": [(1000**n, f" {name}") for n, name in enumerate(["B/s", "kB/s", "MB/s", "GB/s"])],
    "cps": [(1000**n, f" {name}c/s") for n, name in enumerate(["", "K ", "M "])],
    "reqps": [(1000**n, f" {name}req/s") for n, name in enumerate(["", "K ", "M "])],
}


def scale_of(value, unit):
    return max((each for each in UNITS[unit] if each[0] <= abs(value) * 1.000001), default=UNITS[unit][0])


def shown(value, unit, beside=()):
    """A value with its unit, and as many digits as those beside it with the same unit have."""
    scale, name = scale_of(value, unit)
    exact = [each / scale for each in [value, *beside] if scale_of(each, unit) == (scale, name)]
    most = 3 if beside else 1
    digits = max(next((n for n in range(most) if math.isclose(each, round(each, n), rel_tol=1e-6, abs_tol=1e-9)), most) for each in exact)
    if name and name[0].isalpha():
        name = f" {name}"
    return f"{value / scale:.{digits}f}{name}"


def steps_of(unit, whole):
    """Distances between lines of a grid that read well; there is no half of what is counted in whole numbers."""
    if unit == "s":
        yield from (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600, 86400)
    if unit == "bytes":
        yield from (2.0**power for power in range(50))
    least = 0 if whole else -6
    yield from (digit * 10.0**power for power in range(least, 15) for digit in (1, 2, 5))


def width_of(text, size):
    """About what Helvetica and its like take."""
    narrow, slim, wide = "fijlt.,:;|!'/ ()[]", "cksvxyzrJ-", "mMW%@"
    return size * sum(0.29 if c in narrow else 0.5 if c in slim else 0.86 if c in wide else 0.72 if c in "w" or c.isupper() else 0.57 for c in text)


def shortened(text, size, room):
    if width_of(text, size) <= room:
        return text
    while text and width_of(text + "…", size) > room:
        text = text[:-1]
    return text + "…"


def words(x, y, text, kind="", **more):
    """Some text; what its `kind` looks like is in the style of the picture. `_` in a name is the `-` of the attribute."""
    more = {"class": kind, **more} if kind else more
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return f'<text x="{x:.0f}" y="{y:.0f}"{attributes}>{html.escape(text, quote=False)}</text>'


def no_data(x, y, w, h):
    return [words(x + w / 2, y + h / 2 + 14, "No data", "n", text_anchor="middle")]


def legend_of(target, labels):
    if "legendFormat" not in target:
        return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), target["legendFormat"])


class Times:
    """The span of the picture; all panels have the same."""

    def __init__(self, url, seconds):
        self.url, self.end = url, math.floor(time.time())
        self.start, self.step = self.end - seconds, max(1, seconds // POINTS)

    def series(self, panel):
        """Legend and points of each; those that are 0 all the time come last."""
        series = []
        for target in panel["targets"]:
            found = ask(self.url, query_of(target), "query_range", start=self.start, end=self.end, step=self.step)
            for one in sorted(found, key=lambda one: legend_of(target, one["metric"])):
                points = [(at, float(value)) for at, value in one["values"]]
                series.append((legend_of(target, one["metric"]), [point for point in points if math.isfinite(point[1])]))
        return sorted(series, key=lambda one: not any(value for _, value in one[1]))

    def now(self, target):
        return ask(self.url, query_of(target), time=self.end)

    def ticks(self):
        step = next(step for step in (60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400) if (self.end - self.start) / step <= 6)
        return range(-(-self.start // step) * step, self.end + 1, step)


def range_of(series, limits):
    """The lowest and highest value that a panel shows. As in Grafana, zero only where the values come near it."""
    values = [value for _, points in series for _, value in points]
    low, high = min(values, default=0), max(values, default=1)
    if low == high:
        low, high = min(0, 2 * low), max(0, 2 * high) or 1
    pad = (high - low) * 0.1
    bottom, top = low - pad, high + pad
    if low >= 0 > bottom:
        bottom = 0
    return limits.get("min", bottom), limits.get("max", top)


def path_of(points, step, x_of, y_of):
    """A line with gaps where there is no value; points on a level line are left out."""
    drawn, before = [], None
    placed = [(at, f"{x_of(at):.1f}", f"{y_of(value):.1f}") for at, value in points]
    for number, (at, x, y) in enumerate(placed):
        new = before is None or at - before > 1.5 * step
        level = not new and drawn and number + 1 < len(placed) and placed[number - 1][2] == y == placed[number + 1][2]
        if not level or placed[number + 1][0] - at > 1.5 * step:
            drawn.append(f"{'M' if new else 'L'}{x} {y}")
        before = at
    return "".join(drawn)


def legend(series, x, y, room):
    """Lines of a legend from the bottom up, three at most; the parts and how many lines they take."""
    rows, at = [[]], 0
    for number, (name, _) in enumerate(series):
        name = shortened(name, 12, room - 18)
        wide = 18 + width_of(name, 12)
        if rows[-1] and at + wide > room:
            rows, at = [*rows, []], 0
        rows[-1].append((at, name, COLOURS[number % len(COLOURS)]))
        at += wide + 10
    left = sum(len(row) for row in rows[3:])
    if left:
        rows = rows[:3]
        at, _, _ = rows[2].pop()
        still = all(value == 0 for _, points in series[-left - 1 :] for _, value in points)
        rows[2].append((at, f"and {left + 1} more{' at 0' if still else ''}", None))
    parts = []
    for number, row in enumerate(rows):
        base = y - (len(rows) - 1 - number) * 16
        for at, name, colour in row:
            if colour:
                parts.append(f'<path d="M{x + at:.0f} {base - 4}h12" stroke="{colour}" stroke-width="3"/>')
            parts.append(words(x + at + (17 if colour else 0), base, name))
    return parts, len(rows)


def draw_series(panel, times, x, y, w, h):
    series = times.series(panel)
    if not any(points for _, points in series):
        return no_data(x, y, w, h)
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults["unit"]
    low, high = range_of(series, defaults)
    parts, lines = legend(series, x + 12, y + h - 10, w - 24)
    top, bottom = y + 38, y + h - 16 * lines - 28
    whole = unit in ("none", "short") and all(value == int(value) for _, points in series for _, value in points)
    step = next(step for step in steps_of(unit, whole) if (high - low) / step <= 5)
    levels = [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    names = [shown(level, unit, levels) for level in levels]
    left, right = x + 20 + max(width_of(name, 12) for name in names), x + w - 14
    x_of = lambda at: left + (at - times.start) / (times.end - times.start) * (right - left)
    y_of = lambda value: bottom - (value - low) / (high - low) * (bottom - top)
    for level, name in zip(levels, names):
        parts.append(f'<path class="g" d="M{left:.0f} {y_of(level):.1f}H{right:.0f}"/>')
        parts.append(words(left - 6, y_of(level) + 4, name, "a", text_anchor="end"))
    for at in times.ticks():
        parts.append(f'<path class="g" d="M{x_of(at):.1f} {top:.0f}V{bottom:.0f}"/>')
        if left + 8 < x_of(at) < right - 10:
            parts.append(words(x_of(at), bottom + 15, time.strftime("%H:%M", time.gmtime(at)), "a", text_anchor="middle"))
    for number, (_, points) in enumerate(series):
        line = path_of(points, times.step, x_of, y_of)
        parts.append(f'<path class="s" stroke="{COLOURS[number % len(COLOURS)]}" d="{line}"/>')
    return parts


def draw_stat(panel, times, x, y, w, h):
    target = panel["targets"][0]
    found = times.now(target)
    if not found:
        return no_data(x, y, w, h)
    defaults, value = panel["fieldConfig"]["defaults"], float(found[0]["value"][1])
    colour = "text"
    for threshold in defaults.get("thresholds", {}).get("steps", THRESHOLDS):
        if threshold["value"] is None or value >= threshold["value"]:
            colour = threshold["color"]
    return [words(x + w / 2, y + h / 2 + 28, shown(value, defaults["unit"]), "v", text_anchor="middle", fill=NAMED[colour])]


def draw_table(panel, times, x, y, w, h):
    """The answer now, a line for each series; of Grafana's transformations `organize` is known."""
    found = times.now(panel["targets"][0])
    table = [{"Time": time.strftime("%H:%M:%S", time.gmtime(one["value"][0])), **one["metric"], "Value": one["value"][1]} for one in found]
    if not table:
        return no_data(x, y, w, h)
    columns = {name: name for name in table[0]}
    for one in panel.get("transformations", []):
        options = one["options"]
        columns = {name: options.get("renameByName", {}).get(name, name) for name in columns if not options.get("excludeByName", {}).get(name)}
    parts, room = [], (w - 24) / len(columns)
    for number, (name, title) in enumerate(columns.items()):
        at = x + 12 + number * room
        parts.append(words(at, y + 48, shortened(title, 13, room - 6), "t", fill=FAINT))
        for line, row in enumerate(table[: int(h - 48) // 20]):
            parts.append(words(at, y + 70 + line * 20, shortened(row[name], 13, room - 6), "c"))
    return [*parts, f'<path class="g" d="M{x + 12} {y + 54}h{w - 24}"/>']


DRAWN = {"timeseries": draw_series, "stat": draw_stat, "table": draw_table}


def draw_panel(panel, times):
    place = panel["gridPos"]
    x, y = MARGIN + place["x"] * COLUMN, HEAD + place["y"] * ROW
    w, h = place["w"] * COLUMN - GAP, place["h"] * ROW - GAP
    if panel["type"] == "row":
        return [f'<path d="M{x + 2} {y + 6}l5 6l5-6" fill="none" stroke="{INK}" stroke-width="2"/>', words(x + 20, y + 14, panel["title"], "r")]
    return [
        f'<rect class="p" x="{x}" y="{y}" width="{w}" height="{h}" rx="3"/>',
        words(x + 12, y + 21, shortened(panel["title"], 13.5, w - 20), "t"),
        *DRAWN[panel["type"]](panel, times, x, y, w, h),
    ]


def draw(dashboard, times):
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    height = HEAD + bottom * ROW + FOOT
    minutes = (times.end - times.start) / 60
    variables = [f"{one['label']}: {one['current']['text']}" for one in dashboard["templating"]["list"] if one["type"] == "query"]
    day = time.strftime("%Y-%m-%d", time.gmtime(times.end))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="Helvetica, Arial, Liberation Sans, sans-serif" font-size="12" fill="{INK}">',
        f"<title>{html.escape(dashboard['title'])}: the panels of the dashboard with data of a real Prometheus</title>",
        f"<style>.p{{fill:{PANEL};stroke:{LINE}}}.g{{stroke:{LINE}}}.s{{fill:none;stroke-width:1.5;stroke-linejoin:round}}.a{{fill:{FAINT}}}"
        f".r{{font-size:15px;font-weight:bold}}.t{{font-size:13px;font-weight:bold}}.c{{font-size:13px}}.n{{font-size:16px;fill:{FAINT}}}"
        f".v{{font-size:40px;font-weight:bold}}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="{PAGE}"/>',
        words(MARGIN, 29, dashboard["title"], font_size=20),
        words(MARGIN + 90, 29, ", ".join(variables), "c", fill=FAINT),
        words(WIDTH - MARGIN, 29, f"Last {minutes:g} minutes, {day} UTC", "c", text_anchor="end", fill=FAINT),
    ]
    for panel in dashboard["panels"]:
        parts += ["<g>", *draw_panel(panel, times), "</g>"]
    note = "Drawn by dev/dashboard-picture from monitoring/dashboard.json and the answers of a real Prometheus, not by Grafana."
    return "\n".join([*parts, words(MARGIN, height - 12, note, "c", fill=FAINT), "</svg>", ""])


def main(file, url, seconds, output):
    with open(file, encoding="utf-8") as dashboard:
        picture = draw(json.load(dashboard), Times(url, int(seconds)))
    with open(output, "w", encoding="utf-8") as svg:
        svg.write(picture)
    print(f"picture: {output}, {len(picture.encode()) // 1000} kB")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
