"""What a benchmark's results say: medians, and medians of the ratios within each round."""

import statistics


def value(entry, unit):
    return entry["iops"] if unit == "IOPS" else entry["bytes_per_second"] / 1e6


def quartiles(numbers):
    if len(numbers) < 2:
        return numbers[0], numbers[0]
    low, _, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return low, high


def reference_of(result):
    """Whom the others are compared with."""
    peers = result["settings"]["peers"]
    return "ib_srp" if "ib_srp" in peers else peers[min(1, len(peers) - 1)]


def cpu_of(entries):
    """The median of the guest's CPU time per I/O; nothing where peers were measured in turns."""
    known = [entry["guest_cpu_us_per_io"] for entry in entries if "guest_cpu_us_per_io" in entry]
    return statistics.median(known) if known else None


def summary(result):
    """By point and peer: the median of the figure, of its ratio to the reference in the same round, and its spread."""
    peers = result["settings"]["peers"]
    reference = reference_of(result)
    found = {}
    for point in result["points"]:
        entries = [entry for entry in result["results"] if entry["point"] == point["name"]]
        base = {entry["round"]: value(entry, point["unit"]) for entry in entries if entry["peer"] == reference}
        for peer in peers:
            own = [entry for entry in entries if entry["peer"] == peer]
            if not own:
                continue
            ratios = [value(entry, point["unit"]) / base[entry["round"]] for entry in own if entry["round"] in base]
            base_cpu = cpu_of(entry for entry in entries if entry["peer"] == reference)
            cpu = cpu_of(own)
            daemon = [entry["daemon"] for entry in own if "daemon" in entry]
            found[point["name"], peer] = {
                "value": statistics.median(value(entry, point["unit"]) for entry in own),
                "ratio": statistics.median(ratios),
                "spread": quartiles(ratios),
                "latency_us": {
                    key: statistics.median(entry["latency_us"][key] for entry in own) for key in own[0]["latency_us"]
                },
                "cpu_us": cpu,
                "cpu_ratio": cpu / base_cpu if cpu and base_cpu else 1,
                "daemon": {key: statistics.median(each[key] for each in daemon) for key in daemon[0]} if daemon else None,
            }
    return found


def rows(header, lines):
    table = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(table + ["| " + " | ".join(line) + " |" for line in lines]) + "\n"


def growth(entries):
    """The rows of a measurement of growth, as they were measured."""

    def cell(figure):
        return "" if figure is None else f"{figure:.1f}" if isinstance(figure, float) else str(figure)

    return rows(list(entries[0]), [[cell(figure) for figure in entry.values()] for entry in entries])


def turns(measurements):
    """What was measured in turns: each way's median, and the ratio to the first of the same measurement."""
    lines = []
    for measured in measurements:
        first = next(iter(measured["figures"].values()))
        for way, own in measured["figures"].items():
            ratios = [figure / reference for figure, reference in zip(own, first, strict=True)]
            low, high = quartiles(ratios)
            told = "" if own is first else f"**{statistics.median(ratios):.2f}** ({low:.2f}-{high:.2f})"
            lines.append([measured["what"], way, f"{statistics.median(own):.0f}", told])
    return rows(["of", "used", "4 KiB reads a second, 32 readers", "ratio"], lines)


def markdown(result, found):
    peers = result["settings"]["peers"]
    reference = reference_of(result)
    versions = result["versions"]
    out = [
        f"`{result['command']}`; kernel {versions['kernel']}, {versions['processors']} processors, {versions['fio']}, "
        f"{versions['nvme-cli']}, {versions['open-iscsi']}, {versions['ublk-srp']}; {result['settings']['rounds']} rounds "
        f"of {result['settings']['seconds']} s.\n"
    ]
    if result["settings"]["counted"]:
        out.append("A second is 10^9 instructions, of all processors together: 10,000 IOPS are 100,000 for a request.\n")
    out.append(f"Ratio to {reference} (median over rounds, quartiles), and the median itself:\n")
    lines = []
    for point in result["points"]:
        line = [point["name"]]
        for peer in peers:
            cell = found.get((point["name"], peer))
            if cell is None:
                line.append("")
                continue
            figure = f"{cell['value']:.0f} {point['unit']}"
            low, high = cell["spread"]
            line.append(figure if peer == reference else f"**{cell['ratio']:.2f}** ({low:.2f}-{high:.2f}) {figure}")
        lines.append(line)
    out.append(rows(["point", *peers], lines))
    out.append("Completion latency in microseconds (median over rounds): 50 / 99 / 99.9 %\n")
    lines = [
        [point["name"]]
        + [
            " / ".join(f"{each:.0f}" for each in found[point["name"], peer]["latency_us"].values())
            if (point["name"], peer) in found
            else ""
            for peer in peers
        ]
        for point in result["points"]
        if not point["file"]
    ]
    out.append(rows(["point", *peers], lines))
    out.append("CPU time of the whole guest per I/O in microseconds, target included (ratio); of it the daemon's in user\n"
               "and system mode, and its voluntary context switches per I/O:\n")  # fmt: skip
    lines = []
    for point in result["points"]:
        if point["turns"]:
            continue
        line = [point["name"]]
        for peer in peers:
            cell = found.get((point["name"], peer))
            text = f"{cell['cpu_us']:.0f} ({cell['cpu_ratio']:.2f})" if cell else ""
            if cell and cell["daemon"]:
                own = cell["daemon"]
                text += f"; {own['user_us']:.0f} + {own['system_us']:.0f}, {own['voluntary_switches']:.3f} switches"
            line.append(text)
        lines.append(line)
    out.append(rows(["point", *peers], lines))
    if result.get("limits"):
        out.append("The port itself (perftest): " + "; ".join(f"{k}: {v:.0f}" for k, v in result["limits"].items()) + "\n")
    return "\n".join(out)
