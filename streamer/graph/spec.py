"""What may stand in a graph file, as pydantic models; the published JSON Schema comes from them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

NAME_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_-]{0,31}$"
"""Names of nodes, inputs and workers."""
TITLE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_. -]{0,63}$"
"""Names of graphs."""
MAX_NODES: Final = 256
"""Nodes that a graph may have."""
MAX_LATEST: Final = 8
"""Largest depth of a `latest` link."""
MAX_WAIT: Final = 64
"""Largest depth of a `wait` link."""


def _no_bool(value: Any) -> Any:
    # Python counts True as 1; a graph file does not.
    if isinstance(value, bool):
        raise PydanticCustomError("number_not_bool", "must be a number")
    return value


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Reference = Annotated[str, Field(min_length=1, max_length=200)]


class Spec(BaseModel):
    """Base of the models; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class LinkSpec(Spec):
    """A link with a policy of its own."""

    node: Reference
    """name of the node that sends"""
    queue: Literal["latest", "wait"] | None = None
    """`latest`: a newer picture replaces one that waits; `wait`: the sender waits, nothing is
    lost; by default `latest` behind live sources and `wait` behind files"""
    depth: Annotated[int, Field(ge=1, le=MAX_WAIT), BeforeValidator(_no_bool)] | None = None
    """pictures that may wait or be under way: 1 to 8 for `latest` (1 by default), 1 to 64 for
    `wait` (4 by default)"""


def _form(value: Any) -> str:
    if isinstance(value, list):
        return "list"
    if isinstance(value, dict):
        return "link" if value.keys() & {"node", "queue", "depth"} else "inputs"
    return "link" if isinstance(value, LinkSpec) else "name"


def _feed_form(value: Any) -> str:
    return "link" if isinstance(value, dict | LinkSpec) else "name"


Feed = Annotated[
    Annotated[Reference, Tag("name")] | Annotated[LinkSpec, Tag("link")],
    Discriminator(_feed_form),
]
From = Annotated[
    Annotated[Reference | None, Tag("name")]
    | Annotated[LinkSpec, Tag("link")]
    | Annotated[list[Feed], Field(min_length=1, max_length=MAX_NODES), Tag("list")]
    | Annotated[
        dict[Name, Feed],
        Field(
            min_length=1,
            max_length=MAX_NODES,
            # A mapping with one of these keys is a link.
            json_schema_extra={"propertyNames": {"not": {"enum": ["node", "queue", "depth"]}}},
        ),
        Tag("inputs"),
    ],
    Discriminator(_form),
]


class RestartSpec(Spec):
    """When a node whose process died is started again."""

    policy: Literal["never", "on-failure", "always"] | None = None
    """`on-failure`: after a crash, a hang, an unforeseen error, or when a camera or a server went
    away; `always`: that, and it is never given up. By default `always` in live graphs, else
    `on-failure`, and `never` for files being read, whose beginning would come twice"""
    max: Annotated[int, Field(ge=0, le=1000), BeforeValidator(_no_bool)] = 5
    """quick restarts within `window`; one more ends the run (`on-failure`) or has the node rest
    before it is tried again (`always`)"""
    window: Annotated[float, Field(gt=0, le=86_400), BeforeValidator(_no_bool)] = Field(
        default=60.0, json_schema_extra={"unit": "s"}
    )
    """seconds; also how long a node must hold out to count as well again"""
    rest: Annotated[float, Field(gt=0, le=86_400), BeforeValidator(_no_bool)] = Field(
        default=30.0, json_schema_extra={"unit": "s"}
    )
    """seconds of the first rest; it doubles up to 5 minutes"""
    hang: Annotated[float, Field(ge=0, le=86_400), BeforeValidator(_no_bool)] = Field(
        default=20.0, json_schema_extra={"unit": "s"}
    )
    """seconds that the node may stand still before its process is taken for hung and ended, 2 at
    least; 0 for any time"""


class NodeSpec(Spec):
    """One node."""

    uses: Reference
    """kind of the node (`streamer nodes` lists them), or `package.module:Class`"""
    from_: From = Field(default=None, alias="from")
    """where its pictures come from: a node, a list of nodes, or nodes by input name; the first
    one leads"""
    with_: dict[str, Any] | None = Field(default=None, alias="with")
    """parameters of the node"""
    gpu: Annotated[int, Field(ge=0, le=63), BeforeValidator(_no_bool)] | None = None
    """number of the CUDA device"""
    restart: RestartSpec | None = None
    """when a node whose process died is started again"""


class GraphSpec(Spec):
    """A graph of nodes through which pictures flow."""

    version: Annotated[Literal[1], BeforeValidator(_no_bool)]
    """version of the format of this file; write `version: 1`"""
    name: Annotated[str, Field(pattern=TITLE_PATTERN)] | None = None
    """name of the graph; by default that of the file"""
    nodes: Annotated[dict[Name, NodeSpec], Field(min_length=1, max_length=MAX_NODES)]
    """the nodes by name"""
    workers: dict[Name, Annotated[list[Reference], Field(min_length=1)]] | None = None
    """nodes that share a process, by name of the process; every other node has its own"""
