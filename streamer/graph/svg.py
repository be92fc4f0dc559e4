"""A graph as an SVG picture."""

from __future__ import annotations

from xml.sax.saxutils import escape

from streamer.graph.layout import Layout, lay_out
from streamer.graph.plan import Plan
from streamer.graph.render import policy, traits

_WIDTH, _HEIGHT = 168, 60
_GAP_X, _GAP_Y = 104, 34
_MARGIN, _TITLE = 28, 46
_FILLS = {"source": "#e6f4ea", "transform": "#e8f0fe", "join": "#f3e8fd", "sink": "#fef1e0"}
_STROKES = {"source": "#2f855a", "transform": "#2b6cb0", "join": "#7b4fb5", "sink": "#b7791f"}
_STYLE = """\
text { font-family: ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; }
.title { font-size: 17px; font-weight: 600; fill: #1f2933; }
.name { font-size: 14px; font-weight: 600; fill: #1f2933; }
.kind { font-size: 12px; fill: #52606d; }
.worker { font-size: 11px; fill: #7b8794; }
.policy { font-size: 11px; fill: #52606d; }
.link { fill: none; stroke: #7b8794; stroke-width: 1.6; }
.sound { stroke-dasharray: 2 4; stroke-linecap: round; }"""


def svg(plan: Plan) -> str:
    """The picture as an XML document: boxes by layer, colours by role, links with policies."""
    layout = lay_out(plan)
    width = 2 * _MARGIN + layout.layers * (_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _MARGIN + _TITLE + layout.rows * (_HEIGHT + _GAP_Y) - _GAP_Y + 18
    links = [_link(layout, number) for number in range(len(layout.routes))]
    nodes = [_node(plan, layout, node.name) for node in plan.nodes]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(plan.name)}">'
    )
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            head,
            f"<title>{escape(plan.name)}</title>",
            f"<style>{_STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0 L10 5 L0 10 z" fill="#7b8794"/>'
            "</marker></defs>",
            f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>',
            f'<text class="title" x="{_MARGIN}" y="{_MARGIN + 12}">{escape(plan.name)}</text>',
            *(path for path, _ in links),
            *(label for _, label in links),  # over all links, so that none crosses a word
            *nodes,
            "</svg>",
        ]
    )


def _corner(cell: tuple[int, float]) -> tuple[float, float]:
    layer, row = cell
    return _MARGIN + layer * (_WIDTH + _GAP_X), _MARGIN + _TITLE + row * (_HEIGHT + _GAP_Y)


def _node(plan: Plan, layout: Layout, name: str) -> str:
    node = plan.node(name)
    x, y = _corner(layout.cells[name])
    worker = next(worker for worker in plan.workers if name in worker.nodes)
    lines = [
        f'<g><rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" '
        f'fill="{_FILLS[node.role]}" stroke="{_STROKES[node.role]}" stroke-width="1.4"/>',
        _text("name", x + _WIDTH / 2, y + 25, name, 20),
        _text("kind", x + _WIDTH / 2, y + 44, traits(node), 26),
    ]
    if len(worker.nodes) > 1:
        # Nodes of one process bear its name.
        lines.append(_text("worker", x + _WIDTH / 2, y + _HEIGHT + 15, f"in {worker.name}", 26))
    return "".join(lines) + "</g>"


def _link(layout: Layout, number: int) -> tuple[str, str]:
    """The line of a link, and its label."""
    route = layout.routes[number]
    sound = route.link.media == "audio"
    twin = any(
        other.link.media != route.link.media
        and (other.link.source, other.link.target) == (route.link.source, route.link.target)
        for other in layout.routes
    )
    shift = (12 if sound else -12) if twin else 0
    points = []
    for cell in route.cells:
        x, y = _corner(cell)
        points.append((x, y + _HEIGHT / 2 + shift))
    x, y = points[0][0] + _WIDTH, points[0][1]
    path = [f"M{x:g} {y:g}"]
    for index, (to_x, to_y) in enumerate(points[1:], start=1):
        bend = (to_x - x) / 2
        path.append(f"C{x + bend:g} {y:g} {to_x - bend:g} {to_y:g} {to_x:g} {to_y:g}")
        x, y = to_x, to_y
        if index < len(points) - 1:  # straight through the cell of a layer that it passes
            x += _WIDTH
            path.append(f"L{x:g} {y:g}")
    # The label stands in the last gap, where links to one node come together from afar, at the
    # place of half the way, so that labels of several inputs do not lie on one another.
    from_y, to_y = points[-2][1], points[-1][1]
    label_x = points[-1][0] - _GAP_X / 2
    label_y = (from_y + to_y) / 2 + 4
    words = policy(route.link)
    half = 3.2 * len(words) + 3
    line = (
        f'<path class="link{" sound" if sound else ""}" d="{" ".join(path)}" '
        'marker-end="url(#tip)"/>'
    )
    label = (
        f'<rect x="{label_x - half:g}" y="{label_y - 11:g}" width="{2 * half:g}" height="15" '
        'rx="4" fill="#ffffff"/>' + _text("policy", label_x, label_y, words, 20)
    )
    return line, label


def _text(kind: str, x: float, y: float, text: str, limit: int) -> str:
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="middle">{escape(shown)}</text>'
