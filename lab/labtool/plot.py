"""Bar charts as SVG: the ratio of every peer to the reference, point by point."""

from xml.sax.saxutils import escape

from .report import reference_of

COLOURS = ("#0b6e4f", "#444444", "#c84c09", "#e2a72e", "#4062bb", "#9a9a9a", "#7b3e9e", "#b56576")
BAR, GAP, LEFT, TOP, HEIGHT = 14, 22, 60, 60, 260


def pictures(result, found):
    """By name: one for small requests, one for large ones and files."""
    small = [point for point in result["points"] if point["unit"] == "IOPS"]
    large = [point for point in result["points"] if point["unit"] != "IOPS"]
    sets = {"small-requests": small, "large-requests": large}
    return {name: chart(name.replace("-", " "), result, found, points) for name, points in sets.items() if points}


def chart(title, result, found, points):
    peers = result["settings"]["peers"]
    reference = reference_of(result)
    highest = max(cell["spread"][1] for (name, _), cell in found.items() if name in {p["name"] for p in points})
    highest = max(1.0, highest) * 1.05
    group = len(peers) * BAR + GAP
    width = LEFT + group * len(points) + 20

    def y(ratio):
        return TOP + HEIGHT * (1 - ratio / highest)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{TOP + HEIGHT + 60}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="18" font-size="14">'
        f"{escape(title)}: ratio to {escape(reference)}, median and quartiles; kernel "
        f"{escape(result['versions']['kernel'])}</text>",
    ]
    for number, peer in enumerate(peers):
        x = LEFT + number * 120
        parts.append(f'<rect x="{x}" y="28" width="10" height="10" fill="{COLOURS[number % len(COLOURS)]}"/>')
        parts.append(f'<text x="{x + 14}" y="37">{escape(peer)}</text>')
    step = 0.25 if highest < 3 else 1.0
    mark = 0.0
    while mark <= highest:
        colour = "#888" if mark == 1.0 else "#ddd"
        parts.append(f'<line x1="{LEFT}" x2="{width - 10}" y1="{y(mark):.1f}" y2="{y(mark):.1f}" stroke="{colour}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{mark:.2f}</text>')
        mark += step
    for place, point in enumerate(points):
        start = LEFT + place * group + GAP / 2
        for number, peer in enumerate(peers):
            cell = found.get((point["name"], peer))
            if cell is None:
                continue
            x, top = start + number * BAR, y(cell["ratio"])
            parts.append(
                f'<rect x="{x:.1f}" y="{top:.1f}" width="{BAR - 2}" height="{y(0) - top:.1f}" '
                f'fill="{COLOURS[number % len(COLOURS)]}"/>'
            )
            low, high = (y(ratio) for ratio in cell["spread"])
            middle = x + BAR / 2 - 1
            parts.append(f'<line x1="{middle}" x2="{middle}" y1="{low:.1f}" y2="{high:.1f}" stroke="black"/>')
        middle = start + len(peers) * BAR / 2
        parts.append(f'<text x="{middle:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{escape(point["name"])}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
