"""Holds every number that a report shows against what run.json says: `shown.py run.json report.md`.

The tables of report.md are those of index.html. A number is read as it stands there, with its unit; it must be the one that Python's
standard library finds, rounded to the digits shown. A number that nothing here computes is an error too: none is left out. Those of the
answers, which stand in sentences, must be among all that were found, each with its interval. Writes a JSON object: how many numbers there were (`shown`), and
what was found with all digits, for the CSV files (`files`: {file: {row: {column: number}}}).
"""

import json
import re
import statistics
import sys

import recompute
from recompute import quantile

UNITS = {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "×": 1, "%": 0.01}
NUMBER = re.compile(r"(?<![\w.])−?\d+(?:\.\d+)?")
UNIT = re.compile(r"\u00a0?(ns|µs|ms|s|B|KiB|MiB|GiB|×|%)(?!\w)")
WITHIN = re.compile(r"(?<![\w.])[\d.]+(?:×| times as (?:long|much)) \([^()]*–[^()]*×\)")
ALONE = re.compile(NUMBER.pattern + r"(?:\u00a0\w+|×)?")
JOIN = re.compile(r"–|\u00a0?to | to ")
# What stands in these was not computed, but seen, or written by hand.
PLAIN = ("Failed starts.", "Copies that failed.", "Left out.", "The machine, as", "Ladders that ended", "Noisy rounds.")
MIB = 2**20


def numbers(text):
    """Each number of a text, in its unit's base, and half of its last digit."""
    found, scale = [], None
    for match in reversed(list(NUMBER.finditer(text))):
        unit = UNIT.match(text, match.end())
        if unit:
            scale = UNITS[unit[1]]
        elif not JOIN.match(text, match.end()):
            scale = 1
        digits = match[0].replace("−", "-")
        half = 0.5 * 10 ** -len(digits.partition(".")[2])
        found.append((float(digits) * scale, half * scale))
    return found[::-1]


def tables(markdown):
    caption, rows = "", []
    for line in markdown.splitlines() + [""]:
        if line.startswith("| "):
            rows.append([re.sub(r"\\(.)", r"\1", cell.strip()) for cell in re.split(r"(?<!\\) \| ", line[2:-2])])
        else:
            if rows:
                yield caption, rows[0], rows[2:]
            caption, rows = (line or caption), []


def known(*values):
    return [value for value in values if value is not None]


class Expected:
    """What the columns of a row should hold: a list of numbers; a word, which must be the same; or None for what is told, not computed."""

    def __init__(self, run):
        self.run = run
        self.starts, self.ratio = recompute.startup(run)
        self.cells = {cell["name"]: place for place, cell in enumerate(run["cells"])}
        warmup = {r["index"] for r in run["rounds"] if r["warmup"]}
        counted = [s for s in run["samples"] if s["round"] not in warmup]
        self.ready = [[s for s in counted if s["cell"] == it and s["outcome"] == "ready"] for it in self.cells.values()]
        self.failed = [sum(s["cell"] == it and s["outcome"] != "ready" for s in counted) for it in self.cells.values()]
        twins = [self.starts[c["name"]] for c in run["cells"] if c["role"] == "control" and c["name"] in self.starts]
        self.floor = max((floor(row) for row in twins), default=0.0)
        self.slopes, self.compared = recompute.density(run) if run.get("density") else ({}, "")
        self.costs, self.lines, self.found = {}, {}, []
        for suite in ("snapshot", "clone"):
            if run.get(suite):
                costs, lines = recompute.copies(run[suite], run["plan"]["seed"])
                self.costs |= {cell["name"]: (suite, place, costs[cell["name"]]) for place, cell in enumerate(run[suite]["cells"])}
                self.lines |= lines

    def files(self):
        plain = lambda rows: {name: {key: it[key] for key in it if key not in ("error", "t")} for name, it in rows.items()}
        costs = {name: it for name, (_, _, it) in self.costs.items()}
        files = {"summary.csv": self.starts, "slopes.csv": plain(self.slopes), "costs.csv": costs, "trends.csv": self.lines}
        return {file: rows for file, rows in files.items() if rows}

    def told(self):
        """What the answers' sentences tell, besides what the tables show."""
        yield from ([value] for values in self.found for value in values)
        yield from self.found
        slopes = [it for name, it in self.slopes.items() if name.endswith("/" + self.compared)]
        for above in slopes:
            for below in slopes:
                # Slopes that are not sure have no interval, and are in no sentence.
                if all(it["slope_high"] - it["slope"] < it["slope"] / 2 for it in (above, below)):
                    yield list(recompute.fieller(above, below).values())
        for suite, place, it in self.costs.values():
            cell = self.run[suite]["cells"][place]
            yield from ([cell[name + "_bytes"]] for name in ("size", "dirty", "touch"))
            yield [len({s["round"] for s in self.run[suite]["samples"] if s["round"] >= self.run[suite]["warmup_rounds"]})]
            yield [it.get("disk_bytes", 0) + it.get("memory_bytes", 0)]
            yield known(it.get("ratio"))

    def of(self, caption, head, row):
        forms = {
            "Every cell. Times": self.summary,
            "Start-up times. Outliers": self.distribution,
            "Medians of the first and": self.drift,
            "Ratios of median start-up": self.ratios,
            "Start-up times of each of N": self.parallel,
            "Slopes by least squares of": self.density,
            "What one more instance adds": self.memory,
            "Median start-up times by how many": self.crowded,
            "Lines by least squares.": self.trend,
            "Every cell.": self.copy,
        }
        if caption.startswith("How many times as long"):
            return [self.pair(row[0], name) for name in head[1:]]
        if " by instances alive, medians of" in caption:
            return [self.rung(row[0], int(alive)) for alive in head[1:]]
        if ": a typical start of " in caption:
            return self.step(caption.split(": a typical")[0], row)
        return next(form for start, form in forms.items() if caption.startswith(start))(row)

    def role(self, name):
        return self.run["cells"][self.cells[name]]["role"]

    def word(self, name):
        """The verdict: said only where the whole interval bears it out."""
        row = self.starts[name]
        if "ratio" not in row:
            return None
        if self.role(name) == "control":
            return "A/A twin" if row["ratio_low"] is not None else None
        if row["ratio_low"] is None:
            return "inconclusive"
        return bearing(row, self.floor, "faster", "slower")

    def summary(self, row):
        it, place = self.starts.get(row[0], {}), self.cells[row[0]]
        counts = [[len(self.ready[place])], [self.failed[place]]]
        if not it:
            return [[]] * 5 + [None] + [[]] * 3 + counts
        tail = it.get("p99_ns", it["max_ns"])
        interval = known(it["median_low_ns"], it["median_high_ns"])
        ratio, cpu = known(it.get("ratio")), it["user_ns"] + it["system_ns"]
        first = [[it["median_ns"]], interval, [it["p90_ns"]], [tail], ratio, self.word(row[0])]
        return first + [[it["teardown_ns"]], [cpu], [it["peak_rss_bytes"]]] + counts

    def distribution(self, row):
        times = [s["ready_ns"] for s in self.ready[self.cells[row[0]]]]
        low, high = quantile(times, 0.25), quantile(times, 0.75)
        beyond = lambda fence: sum(not low - fence * (high - low) <= t <= high + fence * (high - low) for t in times)
        inner, outer = beyond(1.5), beyond(3.0)
        it = self.starts[row[0]]
        quantiles = [[quantile(times, p)] for p in (0, 0.25, 0.5, 0.75, 0.9)]
        return [[len(times)]] + quantiles + [[it.get("p99_ns", max(times))], [inner - outer], [outer]]

    def drift(self, row):
        it = self.starts[row[0]]
        first, second, p = it["first_half_ns"], it["second_half_ns"], it["drift_p"]
        return [[first], [second], [second / first], [0.001] if p < 0.001 else [p]]

    def ratios(self, row):
        it = self.starts[row[0]]
        return [None, [it["ratio"]], known(it["ratio_low"], it["ratio_high"]), self.word(row[0])]

    def pair(self, slower, faster):
        places = self.cells[slower], self.cells[faster]
        if self.starts[slower]["median_ns"] < self.starts[faster]["median_ns"] or slower == faster:
            return []
        it = self.ratio(*places)
        return known(it["ratio"], it["ratio_low"], it["ratio_high"])

    def parallel(self, row):
        rungs = {c["parallel"]: c["name"] for c in self.run["cells"] if c["subject"] == row[0] and c["role"] != "control"}
        rungs = {parallel: name for parallel, name in rungs.items() if name in self.starts}
        it, alone = self.starts[rungs[int(row[1])]], self.starts[rungs[min(rungs)]]
        starts = len(self.ready[self.cells[rungs[int(row[1])]]])
        tail = it.get("p99_ns", it["max_ns"])
        return [[int(row[1])], [starts], [it["median_ns"]], [tail], [it["median_ns"] / alone["median_ns"]]]

    def step(self, cell, row):
        starts = self.ready[self.cells[cell]]
        middle = statistics.median(s["ready_ns"] for s in starts)
        typical = sorted(starts, key=lambda s: abs(s["ready_ns"] - middle))[: -(-len(starts) // 10)]
        depth, name = row[0].count("· "), row[0].replace("· ", "")
        seen = [laid_out(start).get((name, depth)) for start in typical]
        own = sum(part["own"] for part in seen if part) / len(typical)
        begins = [statistics.fmean(part["start"] for part in seen if part)] if not name.startswith("(") else []
        return [None, begins, [own], [own / statistics.fmean(s["ready_ns"] for s in typical)], None]

    def ladders(self, name):
        place = next(place for place, cell in enumerate(self.run["density"]["cells"]) if cell["name"] == name)
        return [ladder["rungs"] for ladder in self.run["density"]["ladders"] if ladder["cell"] == place]

    def density(self, row):
        it, rungs = self.slopes.get(f"{row[0]}/{self.compared}"), sum(self.ladders(row[0]), [])
        top = max(rungs, key=lambda rung: (rung["alive"], rungs.index(rung)), default={"alive": 0})
        if not top["alive"] or not it:
            return [[]] * 6 + [None, [top["alive"]], []]
        sure = it["slope_high"] - it["slope"] < it["slope"] / 2
        cell = next(cell for cell in self.run["density"]["cells"] if cell["name"] == row[0])
        twin = next((c["name"] for c in self.run["density"]["cells"] if c["role"] == "control"), None)
        noise = floor(self.slopes.get(f"{twin}/{self.compared}", {}))
        word = bearing(it, noise, "lighter", "heavier") if "ratio" in it and cell["role"] != "control" else None
        ratio = [known(it.get("ratio")), known(it.get("ratio_low"), it.get("ratio_high"))]
        fits = [2**30 / it["slope"]] if sure else []
        first = [[it["slope"]], [it["slope_low"], it["slope_high"]], [it["r_squared"]], fits]
        return first + ratio + [word, [top["alive"]], [top["processes"] / top["alive"]]]

    def memory(self, row):
        figures = ("uss", "pss", "rss", "kernel", "accounted", "available", "cgroup", "cgroup_kernel")
        return [known(self.slopes.get(f"{row[0]}/{figure}", {}).get("slope")) for figure in figures]

    def rung(self, name, alive):
        own = [recompute.FIGURES[self.compared](rung, rungs[0]) for rungs in self.ladders(name) for rung in rungs if rung["alive"] == alive]
        return [statistics.median(own)] if own else []

    def crowded(self, row):
        starts = []
        for rungs in self.ladders(row[0]):
            starts += enumerate(start for rung in rungs for start in rung.get("starts_ns", []))
        most = max(rungs[-1]["alive"] for rungs in self.ladders(row[0]))
        first = statistics.median(time for alive, time in starts if alive < 8)
        last = statistics.median(time for alive, time in starts if alive >= most / 2)
        return [[first], [last], [last / first], [len(starts)]]

    def trend(self, row):
        sweep, scale = {"its size": ("size", 1), "what it writes": ("touch", MIB), "its depth": ("depth", 1)}[row[1]]
        it = self.lines[f"{row[0]}/{sweep}"]
        return [None, [it[name] * scale for name in ("slope", "slope_low", "slope_high")], [it["r_squared"]], known(it.get("crossing_bytes"))]

    def copy(self, row):
        suite, place, it = self.costs[row[0]]
        cell, samples = self.run[suite]["cells"][place], [s for s in self.run[suite]["samples"] if s["cell"] == place]
        warmup = self.run[suite]["warmup_rounds"]
        done = sum(s["outcome"] == "done" and s["round"] >= warmup for s in samples)
        counts = [[done], [sum(s["outcome"] != "done" for s in samples)]]
        if not done:
            return [[]] * 9 + counts
        both = lambda name: [[it[name + "_ns"]], known(it[name + "_low_ns"], it[name + "_high_ns"])]
        whole = both("whole") if cell["writes"] else [[], []]
        ratio = known(it.get("ratio"), it.get("ratio_low"), it.get("ratio_high"))
        first = [max(0.0, it["first_write_ns"])] if "first_write_ns" in it else []
        return both("ready") + whole + [ratio, first] + [known(it.get(name + "_bytes")) for name in ("disk", "apparent", "memory")] + counts


def floor(row):
    """How far from 1 the farther end of a twin's interval lies."""
    return max(abs(row[end] - 1) for end in ("ratio_low", "ratio_high")) if row.get("ratio_low") is not None else 0.0


def bearing(row, floor, less, more):
    low, high, alike = row["ratio_low"], row["ratio_high"], max(0.05, floor)
    if 1 - alike <= low and high <= 1 + alike:
        return "no difference"
    return more if low > 1 + floor else less if high < 1 - floor else "inconclusive"


def laid_out(start):
    """The steps of one start, by name and depth: of depth 0 each has what no earlier one has taken; what nobody took lies between."""
    parts, taken, between, end_of_all = {}, 0, 0, start["ready_ns"]
    for phase in sorted(start.get("phases", []), key=lambda phase: (phase["start_ns"], phase["depth"])):
        begin, end = (min(at, end_of_all) for at in (phase["start_ns"], phase["start_ns"] + phase["duration_ns"]))
        if phase["depth"] == 0:
            between += max(0, begin - taken)
            own = max(0, end - max(taken, begin))
            taken = max(taken, end)
        else:
            own = max(0, end - begin)
        part = parts.setdefault((phase["name"], phase["depth"]), {"own": 0, "start": phase["start_ns"]})
        part["own"] += own
    for name in ("(between spans)", "(no spans)"):
        parts[name, 0] = {"own": between + max(0, end_of_all - taken), "start": end_of_all}
    return parts


def wrong(shown, expected):
    """Why what a cell shows is not what it should; None where it is, and how many numbers there were."""
    if expected is None:
        return None, 0
    if isinstance(expected, str):
        return (None, 1) if shown == expected else (f"shows {shown!r}, not {expected!r}", 0)
    found = numbers(shown)
    if not same(found, expected):
        return f"shows {shown!r} for {expected}", 0
    return None, len(found)


def same(found, expected):
    near = lambda number, half, right: abs(number - right) <= half * (1 + 1e-6) + 1e-9 * abs(right)
    return len(found) == len(expected) and all(near(*number, right) for number, right in zip(found, expected))


def answers(markdown, expected):
    """Each number of an answer, and each with its interval: `1.26 times as long (1.19–1.35×)`."""
    told, compared = list(expected.told()), 0
    for line in markdown.partition("\n## ")[0].splitlines()[1:]:
        line = re.sub(r"^\*\*W.*\?\*\* |^- ", "", line)
        for text in WITHIN.findall(line) + ALONE.findall(WITHIN.sub("", line)):
            if not any(same(numbers(text), right) for right in told):
                sys.exit(f"the answer tells {text!r}, which nothing here finds: {line}")
            compared += 1
    return compared


def main():
    with open(sys.argv[1]) as file:
        expected = Expected(json.load(file))
    with open(sys.argv[2]) as file:
        markdown = file.read()
    compared = 0
    for caption, head, rows in tables(markdown):
        if caption.startswith(PLAIN):
            continue
        for row in rows:
            right = expected.of(caption, head, row)
            assert len(right) == len(row) - 1, (caption, row, right)
            for column, shown, value in zip(head[1:], row[1:], right):
                reason, count = wrong(shown, value)
                if reason:
                    sys.exit(f"{caption} {row[0]}, {column}: {reason}")
                compared += count
                expected.found += [value] if isinstance(value, list) else []
    json.dump({"shown": compared + answers(markdown, expected), "files": expected.files()}, sys.stdout)


main()
