"""Session descriptions of WebRTC: what an offer asks for, and the answer that sends to it.

Only what a sender of one picture and one sound needs is read (RFC 8866, 8829, 8842); every
number is bounded, and what is not understood is refused with one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

MOST: Final = 64 << 10
"""characters of an offer"""

_MOST_LINES: Final = 4000
_MOST_SECTIONS: Final = 16
_MOST_FORMATS: Final = 128
_MOST_FINGERPRINTS: Final = 8
_PROFILES: Final = ("42e0", "42c0", "4200")  # constrained baseline, best first, then baseline
_DIRECTIONS: Final = ("sendrecv", "recvonly", "sendonly", "inactive")
_MEDIA = re.compile(r"([a-z]{1,16}) (\d{1,5})(?:/\d{1,5})? ([A-Za-z/]{1,32}) ([!-~][ -~]{0,600})")
_TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]{1,64}")
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PASSWORD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_FINGERPRINT = re.compile(r"([A-Za-z0-9\-]{1,16}) ([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){15,63})")
_RTPMAP = re.compile(r"(\d{1,3}) ([A-Za-z0-9\-]{1,32})/(\d{1,9})(?:/(\d{1,3}))?")
_NUMBERED = re.compile(r"(\d{1,3}) ([ -~]{1,1000})")
_KNOWN_HASHES: Final = ("sha-256", "sha-384", "sha-512")


class OfferError(ValueError):
    """An offer that cannot be answered; the message is one sentence."""


@dataclass(slots=True)
class Section:
    """One section of an offer.

    Attributes:
        kind: `video`, `audio`, `application` or another.
        protocol: of the transport, `UDP/TLS/RTP/SAVPF` say.
        formats: numbers or names, as they stand in its first line.
        mid: its name in the session.
        direction: as the one who offers sees it.
        codecs: by payload type: name in lower case, clock rate in hertz.
        parameters: by payload type, as written.
        feedback: lines of RTCP feedback by payload type.
        mux: whether RTCP goes the way of RTP.
        refused: whether it was offered as refused.
    """

    kind: str
    protocol: str
    formats: tuple[str, ...]
    refused: bool
    mid: str = ""
    direction: str = "sendrecv"
    codecs: dict[int, tuple[str, int]] = field(default_factory=dict)
    parameters: dict[int, str] = field(default_factory=dict)
    feedback: dict[int, list[str]] = field(default_factory=dict)
    mux: bool = False


@dataclass(frozen=True, slots=True)
class Credentials:
    """How the two ends know each other.

    Attributes:
        ufrag: ICE's user name.
        password: ICE's password.
        fingerprints: hash function and value of the certificate.
        setup: who begins DTLS: `active`, `passive` or `actpass`.
    """

    ufrag: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    setup: str


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that can be answered.

    Attributes:
        sections: all of them, in order.
        credentials: of the one who offers.
        video: index of the section to send pictures in.
        video_type: payload type of H.264.
        audio: index of the section to send sound in, None if none is asked for.
        audio_type: payload type of Opus.
    """

    sections: tuple[Section, ...]
    credentials: Credentials
    video: int
    video_type: int
    audio: int | None
    audio_type: int


@dataclass(frozen=True, slots=True)
class Local:
    """What the answer says of this end.

    Attributes:
        credentials: `setup` is `active` or `passive`.
        candidates: addresses to reach it at: host, port, priority and foundation.
        ssrcs: numbers of the streams of pictures and sound.
        name: of both streams together, so that they are played in step.
    """

    credentials: Credentials
    candidates: Sequence[tuple[str, int, int, str]]
    ssrcs: dict[Literal["video", "audio"], int]
    name: str


def parse_offer(text: str) -> Offer:
    """Reads an offer.

    Raises:
        OfferError: it is no session description, or asks for nothing that can be sent.
    """
    if len(text) > MOST:
        raise OfferError(f"the offer has more than {MOST} characters")
    lines = text.splitlines()
    if not lines or lines[0].strip() != "v=0":
        raise OfferError("the body is no session description: it does not begin with v=0")
    if len(lines) > _MOST_LINES:
        raise OfferError(f"the offer has more than {_MOST_LINES} lines")
    session, sections, keys = _read(lines)
    bundle = next((v.split()[1:] for v in session if v.startswith("BUNDLE ")), [])
    video = _first(sections, "video", "h264")
    if video is None:
        raise OfferError("the offer has no video section to receive H.264 in packetization mode 1")
    index, video_type = video
    audio = _first(sections, "audio", "opus")
    if audio is not None and not {sections[audio[0]].mid, sections[index].mid} <= set(bundle):
        audio = None  # it would need a connection of its own
    credentials = _credentials(keys, index)
    if not sections[index].mux:
        raise OfferError("the offer lacks a=rtcp-mux")
    return Offer(
        tuple(sections),
        credentials,
        index,
        video_type,
        audio[0] if audio is not None else None,
        audio[1] if audio is not None else 0,
    )


_Keys = dict[str, list[str]]


def _read(lines: list[str]) -> tuple[list[str], list[Section], list[_Keys]]:
    """Groups of the session, its sections, and the keys of the session and of each section."""
    groups: list[str] = []
    sections: list[Section] = []
    keys: list[_Keys] = [{}]
    for line in lines:
        line = line.rstrip()
        if line.startswith("m="):
            if len(sections) == _MOST_SECTIONS:
                raise OfferError(f"the offer has more than {_MOST_SECTIONS} sections")
            sections.append(_section(line[2:]))
            keys.append({})
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            if name in ("ice-ufrag", "ice-pwd", "fingerprint", "setup"):
                keys[-1].setdefault(name, []).append(value)
            elif not sections:
                if name == "group":
                    groups.append(value)
            else:
                _attribute(sections[-1], name, value)
    return groups, sections, keys


def _section(line: str) -> Section:
    found = _MEDIA.fullmatch(line)
    if found is None:
        raise OfferError(f"the offer has a section that cannot be read: m={line[:60]}")
    formats = tuple(found[4].split())
    if len(formats) > _MOST_FORMATS:
        raise OfferError(f"a section of the offer has more than {_MOST_FORMATS} formats")
    return Section(found[1], found[3], formats, found[2] == "0")


def _attribute(section: Section, name: str, value: str) -> None:
    if name in _DIRECTIONS:
        section.direction = name
    elif name == "mid":
        if not _TOKEN.fullmatch(value):
            raise OfferError(f"the offer has a mid that cannot be read: {value[:40]!r}")
        section.mid = value
    elif name == "rtcp-mux":
        section.mux = True
    elif name == "rtpmap":
        found = _RTPMAP.fullmatch(value)
        if found is None:
            raise OfferError(f"the offer has an rtpmap that cannot be read: {value[:40]!r}")
        if found[1] in section.formats and int(found[1]) < 128:
            section.codecs[int(found[1])] = (found[2].lower(), int(found[3]))
    elif name in ("fmtp", "rtcp-fb"):
        numbered = _NUMBERED.fullmatch(value)
        if numbered is None:
            return  # feedback for all formats, say; nothing here depends on it
        if name == "fmtp":
            section.parameters[int(numbered[1])] = numbered[2]
        else:
            section.feedback.setdefault(int(numbered[1]), []).append(numbered[2])


def _first(sections: list[Section], kind: str, codec: str) -> tuple[int, int] | None:
    """The first section that takes a codec, and its best payload type there."""
    for index, section in enumerate(sections):
        if (
            section.kind != kind
            or section.refused
            or section.direction in ("sendonly", "inactive")
            or not section.mid
        ):
            continue
        types = [number for number, known in section.codecs.items() if known[0] == codec]
        if codec == "h264":
            types = [n for n in types if _parameter(section, n, "packetization-mode") == "1"]
            types.sort(key=lambda n: _rank(_parameter(section, n, "profile-level-id")))
        else:
            types = [number for number in types if section.codecs[number][1] == 48000]
        if types:
            return index, types[0]
    return None


def _parameter(section: Section, number: int, name: str) -> str:
    for part in section.parameters.get(number, "").split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value.lower()
    return ""


def _rank(profile: str) -> int:
    return _PROFILES.index(profile[:4]) if profile[:4] in _PROFILES else len(_PROFILES)


def _credentials(keys: list[_Keys], index: int) -> Credentials:
    def last(name: str) -> str:
        return (keys[index + 1].get(name) or keys[0].get(name) or [""])[-1]

    ufrag, password, setup = last("ice-ufrag"), last("ice-pwd"), last("setup")
    if not _UFRAG.fullmatch(ufrag) or not _PASSWORD.fullmatch(password):
        raise OfferError("the offer has no ICE user name and password that can be read")
    if setup not in ("actpass", "active", "passive"):
        raise OfferError("the offer lacks a=setup:actpass")
    prints = []
    for text in (keys[index + 1].get("fingerprint") or keys[0].get("fingerprint") or [])[
        :_MOST_FINGERPRINTS
    ]:
        found = _FINGERPRINT.fullmatch(text)
        if found is not None and found[1].lower() in _KNOWN_HASHES:
            prints.append((found[1].lower(), found[2].upper()))
    if not prints:
        raise OfferError("the offer has no fingerprint of sha-256, sha-384 or sha-512")
    return Credentials(ufrag, password, tuple(prints), setup)


def answer(offer: Offer, local: Local, *, sound: bool) -> str:
    """The answer to an offer.

    Args:
        offer: to be answered.
        local: what it says of this end.
        sound: whether there is any to send; else its section stays inactive.
    """
    taken = [offer.video]
    if offer.audio is not None:
        taken.append(offer.audio)
    mids = " ".join(offer.sections[index].mid for index in sorted(taken))
    lines = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=streamer", "t=0 0", f"a=group:BUNDLE {mids}"]
    lines += ["a=ice-options:trickle", f"a=msid-semantic:WMS {local.name}"]
    for index, section in enumerate(offer.sections):
        if index in taken:
            number = offer.video_type if index == offer.video else offer.audio_type
            lines += _taken(section, number, local, sends=index == offer.video or sound)
        else:
            lines += [f"m={section.kind} 0 {section.protocol} {' '.join(section.formats)}"]
            lines += ["c=IN IP4 0.0.0.0", "a=inactive"]
            lines += [f"a=mid:{section.mid}"] if section.mid else []
    return "\r\n".join(lines) + "\r\n"


def _taken(section: Section, number: int, local: Local, *, sends: bool) -> list[str]:
    kind: Literal["video", "audio"] = "video" if section.kind == "video" else "audio"
    keys, ssrc = local.credentials, local.ssrcs[kind]
    lines = [f"m={kind} 9 {section.protocol} {number}", "c=IN IP4 0.0.0.0"]
    lines += [f"a=mid:{section.mid}", "a=sendonly" if sends else "a=inactive", "a=rtcp-mux"]
    if kind == "video":
        profile = _parameter(section, number, "profile-level-id") or "42e01f"
        lines += [
            f"a=rtpmap:{number} H264/90000",
            f"a=fmtp:{number} level-asymmetry-allowed=1;packetization-mode=1;"
            f"profile-level-id={profile}",
        ]
        offered = section.feedback.get(number, [])
        lines += [
            f"a=rtcp-fb:{number} {known}"
            for known in ("nack", "nack pli", "ccm fir")
            if known in offered
        ]
    else:
        lines += [f"a=rtpmap:{number} opus/48000/2", f"a=fmtp:{number} stereo=1;sprop-stereo=1"]
    if sends:
        lines += [f"a=msid:{local.name} {kind}", f"a=ssrc:{ssrc} cname:{local.name}"]
    lines += [f"a=ice-ufrag:{keys.ufrag}", f"a=ice-pwd:{keys.password}"]
    lines += [f"a=fingerprint:{name} {value}" for name, value in keys.fingerprints]
    lines += [f"a=setup:{keys.setup}"]
    lines += [
        f"a=candidate:{foundation} 1 udp {priority} {host} {port} typ host"
        for host, port, priority, foundation in local.candidates
    ]
    return [*lines, "a=end-of-candidates"]
