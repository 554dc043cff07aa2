#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Draw the results of 'make bench': report.py RESULTS.json REPORT.html"""

import html
import io
import json
import statistics
import sys

import matplotlib
matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402  pylint: disable=wrong-import-position

# Of Okabe and Ito: told apart by everybody
COLOURS = {"base": "#000000", "cdm-0": "#56b4e9", "cdm-1": "#0072b2", "cdm-8": "#009e73",
           "flag": "#d55e00", "kmem": "#777777", "kmem-8": "#aaaaaa"}
MARKERS = {"base": "s", "cdm-0": "o", "cdm-1": "D", "cdm-8": "^", "flag": "X", "kmem": "s",
           "kmem-8": "P"}
NAMES = {"base": "pristine kernel", "cdm-0": "CDM, no node", "cdm-1": "CDM, one node",
         "cdm-8": "CDM, eight nodes", "flag": "flag of the VMA", "kmem": "ordinary node (kmem)",
         "kmem-8": "eight ordinary nodes"}

plt.rcParams.update({
    "font.family": "sans-serif", "font.size": 9, "svg.fonttype": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e4e4e4", "axes.axisbelow": True, "legend.frameon": False,
    "axes.titlesize": 9, "axes.titleweight": "bold", "axes.titlelocation": "left",
})


def svg(figure):
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight")
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg"):]


def percents(results, configs, against):
    """(workload, {config: percent more than against}), the dearest first"""
    lines = []
    for name, columns in results["table"].items():
        if against not in columns or name == "calibration":
            continue
        # From boot to boot, as bench does
        base = columns[against]["boots"]
        more = {config: statistics.median((columns[config]["boots"][seed] / base[seed] - 1) * 100
                                          for seed in base)
                for config in configs if config in columns
                and all(seed in columns[config]["boots"] for seed in base)}
        if more:
            lines.append((name, more))
    return sorted(lines, key=lambda line: max(abs(v) for v in line[1].values()))


def dots(results, configs, against, band):
    lines = percents(results, configs, against)
    if not lines:
        return ""
    figure, axes = plt.subplots(figsize=(8.6, 0.8 + 0.21 * len(lines)))
    if band:
        axes.axvspan(-band, band, color="#eef5ea", zorder=0, label=f"within {band} %")
    axes.axvline(0, color="#000000", linewidth=0.8)
    for config in configs:
        points = [(more[config], y) for y, (_, more) in enumerate(lines) if config in more]
        if points:
            axes.scatter(*zip(*points), s=26, color=COLOURS[config], label=NAMES[config],
                         marker=MARKERS[config], alpha=0.85, linewidths=0, zorder=3)
    axes.set_yticks(range(len(lines)), [name for name, _ in lines])
    axes.set_ylim(-0.7, len(lines) - 0.3)
    axes.set_xscale("symlog", linthresh=1, linscale=1.5)
    far = max(abs(value) for _, more in lines for value in more.values())
    ticks = [tick for tick in (0.1, 0.5, 1, 3, 10, 30, 100, 300) if tick <= max(far, 0.5)]
    axes.set_xticks([-tick for tick in ticks if tick <= 100] + [0] + ticks)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+g} %" if value else "0")
    axes.tick_params(axis="x", which="minor", bottom=False)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(f"instructions, more than {NAMES[against]}")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return svg(figure)


def lines(axes, series, field, scale=lambda n, value: value):
    """Draws one line per (label, {n: fields}, config, style)."""
    for label, points, config, style in series:
        xy = sorted((int(n), scale(int(n), float(fields[field])))
                    for n, fields in points.items() if field in fields
                    and not (field == "merged" and int(n) < 4))
        if xy:
            axes.plot(*zip(*xy), style, color=COLOURS[config], label=label,
                      marker=MARKERS[config], markersize=4, linewidth=1.4)
    axes.set_xscale("log", base=2)


def mixed(results):
    sweep = results.get("sweep", {})
    series = []
    for config, how, label, style in (
            ("cdm-1", "one", "mask of the node, one VMA", "-"),
            ("flag", "one", "flag of the VMA, one VMA", "-"),
            ("flag", "split", "flag of the VMA, split by mbind()", "--"),
            ("kmem", "one", "no protection at all, one VMA", ":")):
        points = sweep.get(config, {}).get(how)
        if points:
            series.append((label, points, config, style))
    if not series:
        return ""
    figure, grid = plt.subplots(2, 3, figsize=(10.4, 6.2))
    what = (
        ("vmas", "VMAs", lambda n, v: v, "log"),
        ("slab_kb", "slab memory, kB", lambda n, v: max(v, 0.5), "log"),
        ("setup", "to set up, instructions per page", lambda n, v: v, "log"),
        ("merged", "pages merged, per RAM page that can be", lambda n, v: v / (n / 4), None),
        ("marked", "pages prepared to follow, per RAM page",
         lambda n, v: v / (n / 2), None),
        ("scan", "NUMA scan, instructions per page", lambda n, v: v, None),
    )
    for axes, (field, title, scale, log) in zip(grid.flat, what):
        lines(axes, series, field, scale)
        if log:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_title(title)
        axes.set_xlabel("pages in the area")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.06))
    figure.tight_layout()
    return svg(figure)


def scale(results):
    points = results.get("scale", {})
    figure, grid = plt.subplots(2, 2, figsize=(10.4, 6.2))

    def grown(axes, config, series, field, scale, **style):
        """What a field comes to with more of something, from the first on"""
        xy = sorted((int(n), float(fields[field])) for n, fields in
                    points.get(config, {}).get(series, {}).items()
                    if int(n) and float(fields.get(field, 0)))
        if xy:
            axes.plot([n for n, _ in xy], [scale(v, xy[0][1]) for _, v in xy],
                      markersize=4, linewidth=1.4, **style)

    kinds = (("scale", "", "-"), ("scale-kmem", ", ordinary nodes", ":"))
    axes = grid[0][0]
    for i, (field, label) in enumerate((("fault", "fault"), ("fork", "fork"),
                                        ("gup", "get_user_pages_fast"), ("scan", "NUMA scan"),
                                        ("fault_dev", "fault on the last device"))):
        for config, kind, line in kinds if field in ("fork", "fault_dev") else kinds[:1]:
            grown(axes, config, "nodes", field, lambda v, first: v / first * 100 - 100,
                  label=label + kind, marker="os^DX"[i], color=f"C{i}", linestyle=line)
    axes.set_title("instructions per page, % more than with one node")
    axes.set_xlabel("nodes of devices")
    axes.set_ylim(-5, 24)
    axes.legend(loc="upper left")

    axes = grid[0][1]
    for i, (field, label) in enumerate((("register", "register"), ("unregister", "unregister"))):
        for config, kind, line in kinds:
            grown(axes, config, "size", field, lambda v, _: v / 1e6,
                  label=label + kind, marker="os"[i], color=f"C{i}", linestyle=line)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_title("million instructions per GiB")
    axes.set_xlabel("GiB")
    axes.legend()

    for axes, what, title in ((grid[1][0], "vmas", "VMAs of an area of 4096 pages"),
                              (grid[1][1], "tasks", "tasks that fault")):
        for config in ("base", "cdm-0", "cdm-1"):
            series = points.get(config, {}).get(what)
            if series:
                lines(axes, [(f"fault, {NAMES[config]}", series, config, "-")], "fault")
                lines(axes, [(f"NUMA scan, {NAMES[config]}", series, config, "--")], "scan")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
        axes.set_title("instructions per page")
        axes.set_xlabel(title)
        axes.legend(loc=(0.02, 0.08))
    figure.tight_layout()
    return svg(figure)


def number(value):
    if value >= 1e6:
        return f"{value / 1e6:.3f} M"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def table(results):
    configs = ["base", "kmem", "kmem-8", "cdm-0", "cdm-1", "cdm-8", "flag"]
    rows = ["<tr><th>per page or call</th>" + "".join(
        f"<th>{html.escape(NAMES[config])}</th>" for config in configs) + "</tr>"]
    for name, columns in results["table"].items():
        reference = columns.get("base") or columns.get("kmem")
        cells = []
        for config in configs:
            column = columns.get(config)
            if not column:
                cells.append("<td></td>")
                continue
            text = number(column["instructions"])
            if reference and column is not reference and reference["instructions"]:
                more = (column["instructions"] / reference["instructions"] - 1) * 100
                text += f" <small>{more:+.2f} %</small>"
            cells.append(f"<td>{text}</td>")
        rows.append(f"<tr><th>{html.escape(name)}</th>{''.join(cells)}</tr>")
    return "<table>" + "".join(rows) + "</table>"


PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>What coherent device memory costs</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; color: #1a1a1a; background: #fff }}
h1 {{ font-size: 1.6rem }} h2 {{ font-size: 1.15rem; margin-top: 2.4rem }}
svg {{ width: 100%; height: auto }}
table {{ border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums }}
th, td {{ padding: 2px 9px; text-align: right; border-bottom: 1px solid #eee }}
th:first-child {{ text-align: left; font-weight: normal }}
small {{ color: #777 }} .scroll {{ overflow-x: auto }}
</style>
<h1>What coherent device memory costs</h1>
<p>Executed instructions, per page or per call: medians of {boots} boot(s) of a guest in which
the clock counts instructions. {note}</p>
<h2>Ordinary memory: against the pristine kernel</h2>{ordinary}
<p><small>By the wall clock under plain TCG, which is no measurement, median over all workloads:
{wall}.</small></p>
<h2>Memory of the device: against the same memory as an ordinary node</h2>{device}
<h2>Every other page is the device's</h2>
<p>A mask of the node is asked for each page; a flag of the VMA can only speak for all of its pages.
Either the RAM pages between are lost to KSM and NUMA balancing, or each page needs a VMA. More than one
page per RAM page: it is done to the device's, too.</p>{mixed}
<h2>Scale</h2>{scale}
<h2>All figures</h2><div class="scroll">{table}</div>
<h2>Conditions</h2><ul>{conditions}</ul>
</html>
"""


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        results = json.load(f)
    page = PAGE.format(
        boots=results["boots"],
        note="Less of each workload than in a full run." if results.get("quick") else "",
        ordinary=dots(results, ["flag", "cdm-8", "cdm-1", "cdm-0"], "base", 0.1),
        device=dots(results, ["flag", "cdm-8", "cdm-1"], "kmem", None),
        wall=html.escape(results["wall_line"]), mixed=mixed(results), scale=scale(results), table=table(results),
        conditions="".join(f"<li>{html.escape(name)}: {html.escape(str(value))}"
                           for name, value in results["conditions"].items()))
    with open(sys.argv[2], "w", encoding="utf-8") as f:
        f.write(page)


main()
