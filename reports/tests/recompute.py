"""Computes the statistics of a report again, from run.json alone and with Python's standard library alone.

Nothing is shared with the Rust code but what is published: the generator (SplitMix64, which makes the resamples the same), the
definition of a quantile (linear between order statistics), least squares, Student's t, Fieller's interval. Rows and columns are named
as in the report's CSV files; `shown.py` holds them against the tables.
"""

import math
import statistics

MASK = (1 << 64) - 1


class SplitMix64:
    """Steele, Lea, Flood, 'Fast splittable pseudorandom number generators' (2014)."""

    def __init__(self, seed):
        self.state = seed & MASK

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        bits = self.state
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
        return bits ^ (bits >> 31)

    def below(self, bound):
        return (self.next() * bound) >> 64


def quantile(numbers, p):
    numbers = sorted(numbers)
    place = p * (len(numbers) - 1)
    below = math.floor(place)
    above = min(below + 1, len(numbers) - 1)
    return numbers[below] + (place - below) * (numbers[above] - numbers[below])


def student_quantile(p, freedom):
    """By bisection of the distribution function, which Simpson's rule integrates."""
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    density = lambda t: constant * (1 + t * t / freedom) ** (-(freedom + 1) / 2)

    def distribution(t, steps=2000):
        width = t / steps
        inner = sum((4 if step % 2 else 2) * density(step * width) for step in range(1, steps))
        return 0.5 + width / 3 * (density(0) + inner + density(t))

    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if distribution(middle) < p else (low, middle)
    return (low + high) / 2


def interval(name, rounds, values, unit=""):
    """The ends of a 95 % interval; of fewer than six rounds there is none, which the report shows by an empty field."""
    ends = [quantile(values, p) for p in (0.025, 0.975)] if rounds >= 6 else [None, None]
    return {f"{name}_low{unit}": ends[0], f"{name}_high{unit}": ends[1]}


def startup(run):
    rounds = {r["index"]: r["warmup"] for r in run["rounds"]}
    measured = [r["index"] for r in run["rounds"] if not r["warmup"]]
    samples = [
        [s for s in run["samples"] if s["cell"] == place and s["outcome"] == "ready" and not rounds[s["round"]]]
        for place in range(len(run["cells"]))
    ]
    times = [[(s["round"], s["ready_ns"]) for s in cell] for cell in samples]

    # The same resamples for every cell: a ratio is taken within each.
    random = SplitMix64(run["plan"]["seed"])
    medians = [[] for _ in times]
    count = min(10_000, max(1_000, 20_000_000 // max(1, len(measured))))
    for _ in range(count if measured else 0):
        drawn = {}
        for _ in measured:
            index = measured[random.below(len(measured))]
            drawn[index] = drawn.get(index, 0) + 1
        for place, cell in enumerate(times):
            numbers = [time for index, time in cell for _ in range(drawn.get(index, 0))]
            medians[place].append(statistics.median(numbers) if numbers else None)

    say = [len({index for index, _ in cell}) for cell in times]

    def ratio(above, below):
        estimate = statistics.median(t for _, t in times[above]) / statistics.median(t for _, t in times[below])
        pairs = [a / b for a, b in zip(medians[above], medians[below]) if a is not None and b is not None]
        return {"ratio": estimate} | interval("ratio", min(say[above], say[below]), pairs)

    rows = {}
    for place, cell in enumerate(run["cells"]):
        ready = [time for _, time in times[place]]
        if not ready:
            continue
        values = [median for median in medians[place] if median is not None]
        row = rows[cell["name"]] = {
            "median_ns": statistics.median(ready),
            "min_ns": min(ready),
            "p90_ns": quantile(ready, 0.9),
            "max_ns": max(ready),
        }
        row.update(interval("median", say[place], values, "_ns"))
        if len(ready) >= 100:
            row["p99_ns"] = quantile(ready, 0.99)
        for column, field in [("teardown_ns", "teardown_ns"), ("user_ns", "user_ns"), ("system_ns", "system_ns")]:
            row[column] = statistics.median(s[field] for s in samples[place])
        row["peak_rss_bytes"] = statistics.median(s["peak_rss_bytes"] for s in samples[place])
        against = next(
            (
                other
                for other, it in enumerate(run["cells"])
                if it["parallel"] == cell["parallel"]
                and (
                    it["role"] == "baseline"
                    if cell["role"] in ("subject", "peer")
                    else it["role"] != "control" and it["subject"] == cell["subject"]
                )
            ),
            None,
        )
        if cell["role"] != "baseline" and against is not None and times[against]:
            row.update(ratio(place, against))
        if cell["parallel"] == 1 and len(ready) >= 8:
            row.update(drift(sorted(times[place]), run["plan"]["seed"]))
    return rows, ratio


def drift(times, seed):
    times = [time for _, time in times]
    size = -(-len(times) // 256)
    times = [statistics.median(times[at : at + size]) for at in range(0, len(times), size)]
    half = len(times) // 2
    first, second = statistics.median(times[:half]), statistics.median(times[half:])
    observed = abs(first - second) * (1 - 1e-12)
    pool, random, extreme = list(times), SplitMix64(seed), 1
    for _ in range(9_999):
        for last in range(len(pool) - 1, 0, -1):
            other = random.below(last + 1)
            pool[last], pool[other] = pool[other], pool[last]
        extreme += abs(statistics.median(pool[:half]) - statistics.median(pool[half:])) >= observed
    return {"first_half_ns": first, "second_half_ns": second, "drift_p": extreme / 10_000}


def line(points):
    xs, ys = zip(*points)
    fit = statistics.linear_regression(xs, ys)
    mean = statistics.fmean(xs)
    spread = sum((x - mean) ** 2 for x in xs)
    left = sum((y - fit.intercept - fit.slope * x) ** 2 for x, y in points)
    freedom = len(points) - 2
    error = math.sqrt(left / freedom / spread)
    t = student_quantile(0.975, freedom)
    whole = sum((y - statistics.fmean(ys)) ** 2 for y in ys)
    return {
        "error": error,
        "t": t,
        "slope": fit.slope,
        "slope_low": fit.slope - t * error,
        "slope_high": fit.slope + t * error,
        "intercept": fit.intercept,
        "r_squared": 1 - left / whole if whole else 1.0,
    }


def fieller(above, below):
    a, b = above["slope"], below["slope"]
    t = max(above["t"], below["t"])
    va, vb = (t * above["error"]) ** 2, (t * below["error"]) ** 2
    square = b * b - vb
    root = math.sqrt((a * b) ** 2 - square * (a * a - va))
    return {"ratio": a / b, "ratio_low": (a * b - root) / square, "ratio_high": (a * b + root) / square}


def kernel(rung):
    return sum(rung[name + "_bytes"] for name in ("slab", "page_tables", "kernel_stacks", "percpu"))


def charged(of):
    """Where there is no instance there is no group, and nothing charged to one."""
    return lambda rung, _: rung.get(of) if rung["alive"] else rung.get(of) or 0


# Bytes of a rung, beside its ladder's foot.
FIGURES = {
    "available": lambda rung, foot: foot["available_bytes"] - rung["available_bytes"]
    - (rung["others_bytes"] - foot["others_bytes"]),
    "rss": lambda rung, foot: rung["rss_bytes"] - foot["rss_bytes"],
    "pss": lambda rung, foot: rung["pss_bytes"] - foot["pss_bytes"],
    "uss": lambda rung, foot: rung["uss_bytes"] - foot["uss_bytes"],
    "kernel": lambda rung, foot: kernel(rung) - kernel(foot),
    "accounted": lambda rung, foot: rung["pss_bytes"] + kernel(rung) - foot["pss_bytes"] - kernel(foot),
    "cgroup": charged("cgroup_bytes"),
    "cgroup_kernel": charged("cgroup_kernel_bytes"),
}


def density(run):
    lines, alive = {}, {}
    for place, cell in enumerate(run["density"]["cells"]):
        ladders = [ladder["rungs"] for ladder in run["density"]["ladders"] if ladder["cell"] == place]
        alive[cell["name"]] = max((rungs[-1]["alive"] for rungs in ladders), default=0)
        for name, bytes_of in FIGURES.items():
            points = [(rung["alive"], bytes_of(rung, rungs[0])) for rungs in ladders for rung in rungs]
            points = [(x, bytes) for x, bytes in points if bytes is not None]
            if not any(x for x, _ in points):
                continue
            if len(points) >= 3 and len({x for x, _ in points}) > 1:
                lines[cell["name"], name] = line(points)
    sure = lambda it: it["slope_high"] - it["slope"] < it["slope"] / 2
    busy = any(alive[name] and not sure(it) for (name, figure), it in lines.items() if figure == "available")
    compared = "accounted" if busy else "available"
    rows = {f"{name}/{figure}": it for (name, figure), it in lines.items()}
    cells = run["density"]["cells"]
    for cell in cells:
        against = next(
            it["name"]
            for it in cells
            if (it["role"] == "baseline" if cell["role"] != "control" else it["role"] != "control" and it["subject"] == cell["subject"])
        )
        own, below = lines.get((cell["name"], compared)), lines.get((against, compared))
        if cell["role"] != "baseline" and own and below and sure(own) and sure(below):
            rows[f"{cell['name']}/{compared}"] = own | fieller(own, below)
    return rows, compared


def copies(part, seed):
    """Snapshots or clones: medians, intervals and ratios of each cell; a line through each trend, and where two cross."""
    cells = part["cells"]
    rounds = sorted({s["round"] for s in part["samples"] if s["round"] >= part["warmup_rounds"]})
    done = [
        [s for s in part["samples"] if s["cell"] == place and s["outcome"] == "done" and s["round"] in rounds]
        for place in range(len(cells))
    ]
    say = [len({s["round"] for s in samples}) for samples in done]
    whole = lambda s: s["ready_ns"] + s.get("write_ns", 0)
    random, drawn = SplitMix64(seed), []
    for _ in range(min(10_000, max(1_000, 20_000_000 // max(1, len(rounds)))) if rounds else 0):
        counts = dict.fromkeys(rounds, 0)
        for _ in rounds:
            counts[rounds[random.below(len(rounds))]] += 1
        drawn.append(counts)

    def resampled(place, figure):
        for counts in drawn:
            numbers = [figure(s) for s in done[place] for _ in range(counts[s["round"]])]
            yield statistics.median(numbers) if numbers else None

    figures, wholes = {}, []
    for place, cell in enumerate(cells):
        row = figures[cell["name"]] = {}
        wholes.append(list(resampled(place, whole)))
        if not done[place]:
            continue
        for name, figure, medians in [
            ("ready", lambda s: s["ready_ns"], list(resampled(place, lambda s: s["ready_ns"]))),
            ("whole", whole, wholes[place]),
        ]:
            values = [median for median in medians if median is not None]
            row[name + "_ns"] = statistics.median(map(figure, done[place]))
            row.update(interval(name, say[place], values, "_ns"))
        for name in ("disk_bytes", "apparent_bytes", "memory_bytes"):
            known = [s[name] for s in done[place] if name in s]
            if known:
                row[name] = statistics.median(known)
        extra = [(s["write_ns"] - s["rewrite_ns"]) / cell["writes"] for s in done[place] if "rewrite_ns" in s]
        if extra:
            row["first_write_ns"] = statistics.median(extra)
    beside = {"lazy": "eager", "prefetched": "eager", "served": "eager", "linked": "full", "diff": "create"}
    beside["create"] = "plain"
    alike = ("subject", "sweep", "size_bytes", "dirty_bytes", "touch_bytes", "depth", "together")
    for place, cell in enumerate(cells):
        for other, it in enumerate(cells):
            if it["act"] != beside.get(cell["act"]) or any(it[key] != cell[key] for key in alike):
                continue
            if done[place] and done[other]:
                row, pairs = figures[cell["name"]], zip(wholes[place], wholes[other])
                row["ratio"] = row["whole_ns"] / figures[it["name"]]["whole_ns"]
                ratios = [a / b for a, b in pairs if a is not None and b is not None]
                row.update(interval("ratio", min(say[place], say[other]), ratios))
    return figures, trends(cells, done, whole, beside)


def named(subject, act):
    return f"{subject} {dict(diff='changes', plain='plain write').get(act, act)}"


def trends(cells, done, whole, beside):
    points, most = {}, {}
    for cell, samples in zip(cells, done):
        share = cell["size_bytes"] // max(1, cell["dirty_bytes"]) if cell["sweep"] == "size" else 1
        told = f" · 1 in {share}" if cell["dirty_bytes"] else " · nothing written"
        name = named(cell["subject"], cell["act"]) + (told if share > 1 else "")
        key = (cell["subject"], cell["act"], cell["sweep"], name)
        most[key] = max(most.get(key, 0), cell["touch_bytes"])
        for s in samples:
            point = {
                "size": lambda: (math.log(max(1, cell["size_bytes"])), math.log(s["ready_ns"])),
                "touch": lambda: (cell["touch_bytes"], whole(s)),
                "depth": lambda: (cell["depth"], whole(s)),
                "together": lambda: (cell["together"], whole(s)),
            }[cell["sweep"]]()
            points.setdefault(key, []).append(point)
    lines = {key: line(of) for key, of in points.items() if len(of) >= 3 and len({x for x, _ in of}) > 1}
    rows = {}
    for key, it in lines.items():
        subject, act, sweep, name = key
        row = rows[f"{name}/{sweep}"] = {of: it[of] for of in it if of not in ("error", "t")}
        full = lines.get((subject, beside.get(act), "touch", named(subject, beside.get(act))))
        if sweep == "touch" and full:
            ahead, closing = full["intercept"] - it["intercept"], it["slope"] - full["slope"]
            if (ahead > 0) != (ahead - closing * most[key] > 0):
                row["crossing_bytes"] = ahead / closing
    return rows
