from __future__ import annotations

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.web import sdp

PRINT = "a=fingerprint:sha-256 " + ":".join(["0A"] * 32)
VIDEO = (
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99",
    "c=IN IP4 0.0.0.0",
    "a=mid:0",
    "a=recvonly",
    "a=rtcp-mux",
    "a=rtpmap:96 VP8/90000",
    "a=rtpmap:97 H264/90000",
    "a=rtcp-fb:97 nack",
    "a=rtcp-fb:97 nack pli",
    "a=rtcp-fb:97 goog-remb",
    "a=fmtp:97 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f",
    "a=rtpmap:98 H264/90000",
    "a=fmtp:98 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f",
    "a=rtpmap:99 H264/90000",
    "a=rtcp-fb:99 nack pli",
    "a=rtcp-fb:99 ccm fir",
    "a=fmtp:99 packetization-mode=1; profile-level-id=42E01F",
    "a=candidate:1 1 udp 2122260223 secret.local 50000 typ host",
)
AUDIO = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 0",
    "a=mid:1",
    "a=recvonly",
    "a=rtcp-mux",
    "a=rtpmap:111 opus/48000/2",
    "a=fmtp:111 minptime=10;useinbandfec=1",
)
DATA = ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "a=mid:2", "a=sctp-port:5000")
HEAD = ("v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0")
KEYS = ("a=ice-ufrag:abcd", "a=ice-pwd:" + "p" * 24, PRINT, "a=setup:actpass")


def offer(*sections, bundle="0 1 2", keys=KEYS):
    lines = [*HEAD, f"a=group:BUNDLE {bundle}", *keys]
    return "\r\n".join([*lines, *(line for section in sections for line in section)]) + "\r\n"


def without(section, start):
    return tuple(line for line in section if not line.startswith(start))


LOCAL = sdp.Local(
    sdp.Credentials("uuuu", "w" * 22, (("sha-256", ":".join(["0B"] * 32)),), "active"),
    [("127.0.0.1", 5000, 2130706431, "f")],
    {"video": 7, "audio": 8},
    "streamer",
)


def test_the_best_form_of_h264_is_taken():
    found = sdp.parse_offer(offer(VIDEO, AUDIO, DATA))
    assert (found.video, found.video_type) == (0, 99)
    assert (found.audio, found.audio_type) == (1, 111)
    assert found.credentials.ufrag == "abcd"
    assert found.credentials.fingerprints == (("sha-256", ":".join(["0A"] * 32)),)


def test_the_answer_is_understood_by_another_implementation():
    text = sdp.answer(sdp.parse_offer(offer(AUDIO, VIDEO, DATA)), LOCAL, sound=True)
    read = SessionDescription.parse(text)
    audio, video, data = read.media
    assert [m.kind for m in read.media] == ["audio", "video", "application"]
    assert [str(item) for item in read.group[0].items] == ["1", "0"]
    assert (video.direction, audio.direction, data.port) == ("sendonly", "sendonly", 0)
    (codec,) = video.rtp.codecs
    assert (codec.payloadType, codec.mimeType) == (99, "video/H264")
    assert codec.parameters["packetization-mode"] == "1"
    assert codec.parameters["profile-level-id"] == "42e01f"
    assert [(fb.type, fb.parameter) for fb in codec.rtcpFeedback] == [
        ("nack", "pli"),
        ("ccm", "fir"),
    ]
    assert (audio.rtp.codecs[0].mimeType, audio.rtp.codecs[0].channels) == ("audio/opus", 2)
    assert video.ssrc[0].ssrc == 7
    assert audio.ssrc[0].cname == video.ssrc[0].cname
    assert video.ice.usernameFragment == "uuuu"
    assert video.dtls.role == "client"
    assert video.ice_candidates[0].ip == "127.0.0.1"
    assert video.rtcp_mux


def test_without_sound_that_section_stays_inactive():
    text = sdp.answer(sdp.parse_offer(offer(VIDEO, AUDIO)), LOCAL, sound=False)
    video, audio = SessionDescription.parse(text).media
    assert (video.direction, audio.direction) == ("sendonly", "inactive")
    assert not audio.ssrc


def test_sound_that_would_need_a_connection_of_its_own_is_left_out():
    assert sdp.parse_offer(offer(VIDEO, AUDIO, bundle="0")).audio is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (offer(AUDIO), "no video section to receive H.264"),
        (offer(without(VIDEO, "a=fmtp")), "no video section to receive H.264"),
        (offer(without(VIDEO, "a=mid")), "no video section to receive H.264"),
        (offer((*without(VIDEO, "a=recvonly"), "a=sendonly")), "no video section to receive"),
        (offer(("m=video 0" + VIDEO[0][9:], *VIDEO[1:])), "no video section to receive"),
        (offer(without(VIDEO, "a=rtcp-mux")), "lacks a=rtcp-mux"),
        (offer(VIDEO, keys=KEYS[1:]), "no ICE user name"),
        (offer(VIDEO, keys=("a=ice-ufrag:a b", *KEYS[1:])), "no ICE user name"),
        (offer(VIDEO, keys=(*KEYS[:2], KEYS[3])), "no fingerprint"),
        (offer(VIDEO, keys=(*KEYS[:2], "a=fingerprint:md5 00:11", KEYS[3])), "no fingerprint"),
        (offer(VIDEO, keys=KEYS[:3]), "lacks a=setup:actpass"),
        (offer((*VIDEO, "a=rtpmap:x")), "an rtpmap that cannot be read"),
        (offer((*VIDEO, "a=mid:\x00")), "a mid that cannot be read"),
        (offer(("m=video 9 UDP/TLS/RTP/SAVPF " + "1 " * 200,)), "more than 128 formats"),
        (offer(*[DATA] * 17), "more than 16 sections"),
        ("v=0\n" + "a=x\n" * 5000, "more than 4000 lines"),
        ("v=0\n" + "x" * 70000, "more than 65536 characters"),
    ],
)
def test_offers_that_cannot_be_answered(text, said):
    with pytest.raises(sdp.OfferError, match=said):
        sdp.parse_offer(text)


LINES = st.lists(
    st.one_of(
        st.sampled_from([*HEAD, *KEYS, *VIDEO, *AUDIO, *DATA, "a=group:BUNDLE 0 1"]),
        st.text(max_size=40),
        st.builds(
            lambda line, at, put: line[:at] + put + line[at:],
            st.sampled_from([*KEYS, *VIDEO, *AUDIO]),
            st.integers(0, 40),
            st.text(max_size=4),
        ),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_whatever_comes_is_answered_or_refused(lines):
    try:
        found = sdp.parse_offer("\r\n".join(["v=0", *lines]))
    except sdp.OfferError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert "\n" not in refusal
    if refusal:
        return
    text = sdp.answer(found, LOCAL, sound=True)
    # Nothing of the offer comes back as a line of its own making.
    assert text.count("\r\na=fingerprint:") == (2 if found.audio is not None else 1)
    assert all(line[1:2] == "=" for line in text.splitlines())


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_an_offer_with_a_line_changed_or_missing_is_answered_or_refused(data):
    lines = offer(VIDEO, AUDIO, DATA).split("\r\n")
    at = data.draw(st.integers(1, len(lines) - 1))
    lines[at : at + data.draw(st.integers(0, 2))] = data.draw(LINES)[:2]
    try:
        found = sdp.parse_offer("\r\n".join(lines))
    except sdp.OfferError:
        return
    SessionDescription.parse(sdp.answer(found, LOCAL, sound=True))
