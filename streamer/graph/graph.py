"""A graph: read, checked in full, and ready to be planned."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

from streamer.errors import GraphError, Problem
from streamer.graph.check import check
from streamer.graph.draft import read_draft
from streamer.graph.overrides import apply
from streamer.graph.plan import LinkPlan, NodePlan, Plan, WorkerPlan
from streamer.graph.planning import plan
from streamer.graph.reading import read_text, read_tree
from streamer.graph.tree import Place, Scalar, Value, tree_of, walk

MAX_PROBLEMS: Final = 100
"""Mistakes that are told at once; more of them come from one cause."""


class Graph:
    """A graph without mistakes; made by `load`, `parse` or `from_dict`.

    Attributes:
        name: of the graph.
        file: path as given, or what stands in its place.
        nodes: nodes by name, senders before receivers.
        links: links in the order of the nodes that they lead to, those of sound last.
        workers: processes with the nodes in them.
    """

    __slots__ = ("_plan", "file")

    def __init__(self, plan: Plan, *, file: str = "") -> None:
        self._plan = plan
        self.file = file

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        overrides: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """The graph of a YAML file of at most 1 MiB.

        Args:
            path: of the file.
            overrides: parameters in place of the file's, each `NODE.KEY=VALUE`.
            environ: variables for `${NAME}`; those of the process by default.

        Raises:
            GraphError: the file cannot be read or is wrong; it holds every mistake.
        """
        text = read_text(path)
        name = re.sub(r"[^A-Za-z0-9_. -]", "-", Path(path).stem).strip(" .-_")[:64] or "graph"
        return cls.parse(text, file=str(path), name=name, overrides=overrides, environ=environ)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        file: str = "<string>",
        name: str = "graph",
        overrides: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """The graph of a YAML text.

        Args:
            text: of a graph file.
            file: what messages call it.
            name: of the graph, if the text gives none.
            overrides: parameters in place of the text's, each `NODE.KEY=VALUE`.
            environ: variables for `${NAME}`; those of the process by default.

        Raises:
            GraphError: the text is wrong; it holds every mistake.
        """
        problems: list[Problem] = []
        variables = os.environ if environ is None else environ
        root = read_tree(text, file=file, environ=variables, report=problems.append)
        return cls._of(root, problems, file=file, name=name, overrides=overrides)

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, name: str = "graph", overrides: Iterable[str] = ()
    ) -> Self:
        """The graph of a mapping as in a graph file; `version` may be left out.

        Nothing is substituted: a value is what it is.

        Args:
            data: lists, mappings, texts, paths, numbers, True, False and None.
            name: of the graph, if the mapping gives none.
            overrides: parameters in place of the mapping's, each `NODE.KEY=VALUE`.

        Raises:
            GraphError: the mapping is wrong; it holds every mistake.
        """
        problems: list[Problem] = []
        root = tree_of({"version": 1, **data}, Place("graph"), problems.append)
        return cls._of(root, problems, file="graph", name=name, overrides=overrides)

    @classmethod
    def _of(
        cls,
        root: Value,
        problems: list[Problem],
        *,
        file: str,
        name: str,
        overrides: Iterable[str],
    ) -> Self:
        apply(root, overrides, problems.append)
        # A variable that is not set is missed only where no override stands in its place.
        problems += (m for item in walk(root) if isinstance(item, Scalar) for m in item.mistakes)
        draft = read_draft(root, problems.append)
        check(draft, problems.append)
        made = None if problems else plan(draft, name, problems.append)
        if made is None:
            # The file's first, from top to bottom; then those of the command line.
            unique = sorted(
                dict.fromkeys(problems),
                key=lambda item: (item.file != file, item.line, item.column),
            )
            if (more := len(unique) - MAX_PROBLEMS) > 0:
                unique[MAX_PROBLEMS:] = [Problem(file, 0, 0, f"{more} more mistakes")]
            raise GraphError(unique)
        return cls(made, file=file)

    @property
    def name(self) -> str:
        """Name of the graph."""
        return self._plan.name

    @property
    def nodes(self) -> dict[str, NodePlan]:
        """Nodes by name, senders before receivers."""
        return {node.name: node for node in self._plan.nodes}

    @property
    def links(self) -> tuple[LinkPlan, ...]:
        """Links, those of sound last."""
        return self._plan.links

    @property
    def workers(self) -> tuple[WorkerPlan, ...]:
        """Processes with the nodes in them."""
        return self._plan.workers

    def plan(self, *, frames: int | None = None) -> Plan:
        """What is to be started.

        Args:
            frames: every source ends after this many pictures, 1 or more; None for no such end.

        Raises:
            ValueError: `frames` is below 1.
        """
        if frames is not None and frames < 1:
            raise ValueError(f"frames must be at least 1, not {frames}")
        return replace(self._plan, frames=frames)

    def __repr__(self) -> str:
        nodes, links = self._plan.nodes, self._plan.links
        chain = [link for link in links if link.media == "video"]
        straight = len(chain) == len(nodes) - 1 and all(
            link.source == nodes[i].name and link.target == nodes[i + 1].name
            for i, link in enumerate(chain)
        )
        if straight:
            return f"<Graph {self.name}: {' → '.join(node.name for node in nodes)}>"
        return f"<Graph {self.name}: {len(nodes)} nodes, {len(chain)} links>"
