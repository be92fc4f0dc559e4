"""A graph as text for a terminal, and as a Mermaid flowchart."""

from __future__ import annotations

from streamer.graph.plan import LinkPlan, NodePlan, Plan


def policy(link: LinkPlan) -> str:
    """How a link queues: `latest 1`, `wait 4`, or `sound`."""
    return "sound" if link.media == "audio" else f"{link.queue} {link.depth}"


def traits(node: NodePlan) -> str:
    """A node's kind, and what is special about it."""
    special = [node.uses]
    if node.role == "source" and node.live:
        special.append("live")
    if node.gpu is not None:
        special.append(f"gpu {node.gpu}")
    return " · ".join(special)


def text(plan: Plan) -> str:
    """A tree that hangs from each source, with every node in full once.

    A node of several inputs stands under its leading one; under the others it is only named.
    """
    worker_of = {name: worker.name for worker in plan.workers for name in worker.nodes}
    rows: list[tuple[str, str, str]] = []

    def add(name: str, lead: str, indent: str) -> None:
        node = plan.node(name)
        rows.append((lead + name, traits(node), worker_of[name]))
        outputs = plan.outputs(name)
        for number, link in enumerate(outputs):
            last = number == len(outputs) - 1
            arrow = f"{indent}{'└' if last else '├'}─ {policy(link)} ─▶ "
            inner = indent + ("   " if last else "│  ")
            if link.media == "audio":
                rows.append((arrow.replace("─ sound ─", "┄ sound ┄") + link.target, "", ""))
            elif link.leading:
                add(link.target, arrow, inner)
            else:
                named = link.target if link.input == name else f"{link.target}.{link.input}"
                rows.append((f"{arrow}{named} (another input)", "", ""))

    for node in plan.nodes:
        if node.role == "source":
            add(node.name, "", "")
    left = max(len(row[0]) for row in rows if row[1])
    middle = max(len(row[1]) for row in rows)
    lines = [plan.name, ""]
    for tree, kind, worker in rows:
        place = f"worker {worker}" if worker else ""
        lines.append(f"{tree:<{left}}  {kind:<{middle}}  {place}".rstrip())
    return "\n".join(lines)


def mermaid(plan: Plan) -> str:
    """A flowchart for Mermaid; processes with several nodes are boxes around them."""
    lines = ["---", f"title: {plan.name}", "---", "flowchart LR"]
    # Names of the file may be words that Mermaid keeps for itself (`end`), so nodes get numbers.
    numbers = {node.name: f"n{number}" for number, node in enumerate(plan.nodes)}
    for worker in plan.workers:
        several = len(worker.nodes) > 1
        if several:
            lines.append(f'    subgraph w_{worker.nodes[0].replace("-", "_")} ["{worker.name}"]')
        for name in worker.nodes:
            node = plan.node(name)
            opening, closing = {
                "source": ("([", "])"),
                "sink": ("[/", "/]"),
                "join": ("[[", "]]"),
            }.get(node.role, ("[", "]"))
            label = f'"<b>{name}</b><br/>{traits(node)}"'
            lines.append(f"    {'    ' * several}{numbers[name]}{opening}{label}{closing}")
        if several:
            lines.append("    end")
    for link in plan.links:
        arrow = "-.->" if link.media == "audio" else "-->"
        lines.append(f'    {numbers[link.source]} {arrow}|"{policy(link)}"| {numbers[link.target]}')
    return "\n".join(lines)
