"""Why frames are dropped: a closed vocabulary, so that every report can be added up."""

from __future__ import annotations

from enum import StrEnum


class Drop(StrEnum):
    """Reason for which a frame did not go on.

    `captured = delivered + Σ dropped[reason]` holds for every sink, with these reasons.
    """

    REPLACED = "replaced"
    """a newer frame took its place in a `latest` mailbox: the consumer was busy or away"""
    NO_SLOT = "no_slot"
    """all slots of the producer's slab were in use"""
    RATE = "rate"
    """a frame-rate limit"""
    CORRUPT = "corrupt"
    """a stretch of the input that could not be decoded"""
    FILTERED = "filtered"
    """a node returned nothing for it"""
    UNMATCHED = "unmatched"
    """a node of several inputs had no partner for it"""
    FAILED = "failed"
    """a node could not process this one frame"""
    FLUSHED = "flushed"
    """made with parameters that have changed since"""
    DISCONNECTED = "disconnected"
    """an output's server was away, or went away before it had the picture"""
    CONGESTED = "congested"
    """an output's connection was too slow for it"""
    NO_SPACE = "no_space"
    """the disk was as full as it may get"""
    CONSUMER_GONE = "consumer_gone"
    """the next node had ended for good"""
    CRASHED = "crashed"
    """it was inside a process, or on its way into one, when that process died"""
    ABORTED = "aborted"
    """in flight when the run was stopped at once"""
    IN_FLIGHT = "in_flight"
    """on its way when an interim report was written; 0 in a final report"""
    UNACCOUNTED = "unaccounted"
    """missing without a reason: a defect of streamer; 0 in a correct run"""


COUNTED = tuple(
    reason for reason in Drop if reason not in (Drop.CRASHED, Drop.IN_FLIGHT, Drop.UNACCOUNTED)
)
"""Reasons that a worker counts when it happens; the others are found by the balance of counts."""
