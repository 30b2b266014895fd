"""`capture` from what hangs, breaks off or does not speak QMP: one sentence in time, nothing written, the guest as it was."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import pytest
import qmp_peer
from test_command import refused, run

from tagged_vmstate.errors import FormatError
from tagged_vmstate.qemu.bridge import import_stream
from tagged_vmstate.qemu.capture import Captured, capture
from tagged_vmstate.qemu.qmp import LINE_BYTES, Address, CaptureError
from tagged_vmstate.snapshot import Snapshot, write
from tagged_vmstate.wire import Opaque

SHORT = 1
"""The limit where something will not come: long enough for what does on a busy machine, short enough to be waited for."""
HANGS = 60
"""Seconds after which something hangs for ever."""
WAYS = ("unix", "tcp")
NOTHING_MOVES = {"stream": {"holds": True}}
REFUSED = {"error": {"class": "GenericError", "desc": "not\x1b[2J\nnow"}}


SECRETS = "-object", "secret,data=hush", "--object", "secret,data=hush", "-spice", "port=1,password=hush,,hush,tls-port=2"


class Peer:
    """`with Peer(folder, {"query-status": ["silence"]}) as peer: ...`; what it got, and how it is, is known after it."""

    def __init__(self, folder: Path, script: dict[str, Any], way: str = "unix") -> None:
        self._address = "0" if way == "tcp" else str(folder / "peer.sock")
        self._script = script
        self.commands: list[str] = []
        self.guest = self.sent = self.capabilities = ""

    def __enter__(self) -> Self:
        line = [sys.executable, qmp_peer.__file__, self._address, json.dumps(self._script), *SECRETS]
        self._process = subprocess.Popen(line, stdout=subprocess.PIPE, bufsize=0)
        address = self.next()
        self.address: Address = ("127.0.0.1", int(address)) if self._address == "0" else address
        self.name = f"127.0.0.1:{address}" if self._address == "0" else address
        return self

    def until(self, command: str) -> None:
        """Wait until it has got a command."""
        while command not in self.commands:
            self.commands.append(self.next())

    def next(self) -> str:
        """Wait for what it says next."""
        assert self._process.stdout
        line = self._process.stdout.readline().decode().strip()
        assert line, "it has gone"
        return line

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                *said, end = self._process.communicate(timeout=HANGS)[0].decode().split()
                self.sent, self.capabilities, self.guest = end.split(">")
                self.commands += said
        finally:
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def captured(peer: Peer, target: Any = None, **more: Any) -> Captured:
    return capture(peer.address, target or io.BytesIO(), **{"timeout": HANGS, **more})


def _by_both_ways(names: Iterable[str]) -> list[Any]:
    """Those over TCP only where long tests are asked for; none for `getfd`, which is for a Unix socket."""
    over_tcp = [pytest.param(name, "tcp", marks=pytest.mark.long) for name in names if name != "getfd"]
    return [*((name, "unix") for name in names), *over_tcp]


@pytest.fixture
def stream(stream_path: Callable[[str], Path]) -> Path:
    return stream_path("isapc-qemu7.2")


@pytest.fixture
def imported(stream: Path) -> bytes:
    file = io.BytesIO()
    write(import_stream(stream.read_bytes()), file)
    return file.getvalue()


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """What a capture notes of its origin, and the snapshot without it."""
    file = io.BytesIO()
    with Snapshot(io.BytesIO(data)) as snapshot:
        attributes = snapshot.raw_attributes.decode()
        origin = attributes.pop("capture")
        snapshot.raw_attributes = Opaque.of(attributes)
        write(snapshot, file)
    return origin, file.getvalue()


class TestThePeerItself:
    """What behaves as QEMU does is captured: the cases below fail for the reason that they name."""

    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("live", [False, True])
    def test_it_is_captured(self, *, way: str, live: bool, tmp_path: Path, stream: Path, imported: bytes) -> None:
        target = io.BytesIO()
        with Peer(tmp_path, {"stream": {"path": str(stream)}}, way) as peer:
            found = captured(peer, target, live=live)
        assert (found.paused, found.is_running) == (None if live else 0, True)
        origin, rest = split(target.getvalue())
        assert rest == imported
        assert (origin["qemu"], origin["guest"], origin["live"]) == ("7.2.22 (Debian)", "running", live)
        assert datetime.fromisoformat(origin["time"]).utcoffset() == timedelta(0)
        shown = ["-object", "secret", "--object", "secret", "-spice", "port=1,password=...,tls-port=2"]
        assert origin.get("command", [])[-len(shown) :] == (shown if way == "unix" else [])
        assert peer.guest == "running"
        assert ("stop" in peer.commands) is not live
        assert "migrate_cancel" not in peer.commands

    def test_a_paused_guest_stays_paused(self, tmp_path: Path, stream: Path) -> None:
        with Peer(tmp_path, {"guest": "paused", "stream": {"path": str(stream)}}) as peer:
            found = captured(peer)
        assert (found.paused, found.is_running) == (None, False)
        assert "cont" not in peer.commands


class TestSlow:
    @pytest.mark.parametrize("way", WAYS)
    def test_a_slow_stream_takes_its_time(self, way: str, tmp_path: Path, stream: Path, imported: bytes) -> None:
        target = io.BytesIO()
        slow = {"path": str(stream), "step": stream.stat().st_size // 4 + 1, "pause": SHORT / 2}
        with Peer(tmp_path, {"stream": slow}, way) as peer:
            captured(peer, target, timeout=SHORT)
        assert split(target.getvalue())[1] == imported

    def test_so_does_a_migration_whose_state_changes(self, tmp_path: Path) -> None:
        """It sends nothing in the end: that is what fails, and not that it takes several times the limit."""
        with (
            Peer(tmp_path, {"stream": {"ticks": 4, "pause": SHORT / 2}}) as peer,
            pytest.raises(FormatError, match="nothing at all"),
        ):
            captured(peer, timeout=SHORT)
        assert peer.guest == "running"

    def test_an_answer_that_comes_after_events(self, tmp_path: Path, stream: Path) -> None:
        event = json.dumps({"event": "NIC_RX_FILTER_CHANGED", "timestamp": qmp_peer.STAMP})
        foreign = json.dumps({"return": {}, "id": "another's"})
        answer = '{"return": {"status": "paused"}, "id": ID}'
        script = {"query-status": [{"raw": f"{event}\n{foreign}\n\n{answer}"}], "stream": {"path": str(stream)}}
        with Peer(tmp_path, script) as peer:
            assert not captured(peer).is_running

    def test_a_guest_that_goes_on_only_later(self, tmp_path: Path, stream: Path) -> None:
        """QEMU refuses `cont` while it ends the migration."""
        refusal = {"error": {"class": "GenericError", "desc": "Migration is not finalized yet"}}
        script = {"cont": [refusal, refusal, {"raw": '{"return": {}, "id": ID}'}], "stream": {"path": str(stream)}}
        running, paused = ({"return": {"status": status}} for status in ("running", "paused"))
        script["query-status"] = [running, paused, paused, paused, running]
        with Peer(tmp_path, script) as peer:
            assert captured(peer).is_running
        assert peer.commands.count("cont") == 3


class TestCapabilities:
    """What somebody has switched on that changes the stream is off in the migration, and on afterwards."""

    ON: ClassVar = {"return-path": True, "new-in-qemu": True, "xbzrle": False}

    def test_they_are_off_and_on_again(self, tmp_path: Path, stream: Path) -> None:
        with Peer(tmp_path, {"capabilities": self.ON, "stream": {"path": str(stream)}}) as peer:
            notes = captured(peer).notes
        assert notes[:1] == ["off during the capture: QEMU's migration capabilities `return-path`, `new-in-qemu`"]
        assert (peer.sent, peer.capabilities, peer.guest) == ("events", "events,return-path,new-in-qemu", "running")

    def test_so_they_are_after_a_failure(self, tmp_path: Path) -> None:
        with Peer(tmp_path, {"capabilities": self.ON, **NOTHING_MOVES}) as peer, pytest.raises(CaptureError):
            captured(peer, timeout=SHORT)
        assert (peer.sent, peer.capabilities, peer.guest) == ("events", "events,return-path,new-in-qemu", "running")

    def test_qemu_takes_them_only_later(self, tmp_path: Path, stream: Path) -> None:
        script = {"migrate-set-capabilities": ["usual", REFUSED, REFUSED, "usual"], "stream": {"path": str(stream)}}
        with Peer(tmp_path, {"capabilities": self.ON, **script}) as peer:
            captured(peer)
        assert peer.capabilities == "events,return-path,new-in-qemu"

    @pytest.mark.parametrize("answer", ["silence", REFUSED])
    def test_where_they_may_be_off_the_error_says_so(self, answer: Any, tmp_path: Path, stream: Path) -> None:
        script = {"migrate-set-capabilities": ["usual", answer], "stream": {"path": str(stream)}}
        with Peer(tmp_path, {"capabilities": {"multifd": True}, **script}) as peer, pytest.raises(CaptureError) as caught:
            captured(peer, timeout=SHORT)
        assert caught.value.__notes__ == [
            "QEMU's migration capability `multifd` may be off now: `migrate_set_capability` in QEMU's monitor"
        ]

    @pytest.mark.parametrize(("name", "value", "needed"), [("tls-creds", "tls0", "empty"), ("mode", "cpr-reboot", "`normal`")])
    def test_a_parameter_that_changes_the_stream_is_refused(self, name: str, value: str, needed: str, tmp_path: Path) -> None:
        script = {"query-migrate-parameters": [{"return": {name: value}}]}
        peer = failed(tmp_path, script, f"parameter `{name}` is `{value}`: for a capture it must be {needed}")
        assert "stop" not in peer.commands


SILENT = {
    "greeting": "no QMP greeting there in 1 s; QMP speaks to one at a time: is somebody else connected?",
    "qmp_capabilities": "QEMU did not answer `qmp_capabilities` in 1 s",
    "query-status": "QEMU did not answer `query-status` in 1 s",
    **{
        command: f"QEMU did not answer `{command}` in 1 s"
        for command in ("query-migrate-parameters", "query-migrate-capabilities", "query-version", "getfd")
    },
    "migrate": "the migration got no further for 1 s",
    "query-migrate": "the migration got no further for 1 s",
}
BROKEN = {
    "a list for an answer": ("query-status", {"return": []}, "QEMU's answer to `query-status` has no object `return`"),
    "no answer": ("query-status", {}, "QEMU's answer to `query-status` has no object `return`"),
    "no status": ("query-status", {"return": {}}, "QEMU's answer to `query-status` has no text `status`"),
    "a status that is no text": ("query-status", {"return": {"status": 1}}, "has no text `status`"),
    "capabilities that are an object": ("query-migrate-capabilities", {"return": {}}, "has no list `return`"),
    "a capability that is text": ("query-migrate-capabilities", {"return": ["xbzrle"]}, "has no object `item`"),
    "a capability without a state": ("query-migrate-capabilities", {"return": [{"capability": "x"}]}, "has no boolean `state`"),
    "a version that is text": ("query-version", {"return": {"qemu": "7.2"}}, "has no object `qemu`"),
    "an error that is text": ("query-status", {"error": "no"}, "has no object `error`"),
    "an error of no words": ("query-status", {"error": {"desc": ["no"]}}, "has no text `desc`"),
    "an error to nobody": ("stop", {"raw": '{"error": {"desc": "cannot parse"}}'}, "QEMU refuses `stop`: cannot parse"),
    "another's answer": ("stop", {"raw": '{"return": {}, "id": [ID]}'}, "QEMU did not answer `stop`"),
    "no JSON": ("query-status", {"raw": "QEMU 7.2 monitor\x1b"}, r"expected a JSON object, as QMP sends, got `QEMU 7.2 monitor"),
    "no object": ("query-status", {"raw": '["status"]'}, "expected a JSON object"),
    "no UTF-8": ("query-status", {"raw": '{"return": "\xff"}'}, "expected a JSON object"),
    "too deep": ("query-status", {"raw": "[" * 100_000}, "expected a JSON object"),
    "too many digits": ("query-status", {"raw": "9" * 5_000}, "expected a JSON object"),
    "the end of it": ("stop", "close", "QEMU closed the connection"),
    "a greeting of another kind": (
        "greeting",
        {"raw": "(qemu)"},
        r"no QMP there \(expected a JSON object, .* `\(qemu\)`\); start QEMU with",
    ),
    "a greeting without QMP": ("greeting", {"hello": 1}, r"no QMP there \(what it sends has no object `QMP`\)"),
    "no greeting, but the end": ("greeting", "close", r"no QMP there \(QEMU closed the connection\)"),
    "capabilities refused": ("qmp_capabilities", REFUSED, "QEMU refuses `qmp_capabilities`: not\x1b\\[2J now"),
    "stop refused": ("stop", REFUSED, "QEMU refuses `stop`"),
    "getfd refused": ("getfd", REFUSED, "QEMU refuses `getfd`"),
    "migrate refused": ("migrate", REFUSED, "QEMU refuses `migrate`"),
    "text for a state": ("query-migrate", {"return": "x"}, "QEMU's answer to `query-migrate` has no object `return`"),
    "a state that is a list": ("query-migrate", {"return": {"status": ["active"]}}, "has no text `status`"),
    "memory that is a list": ("query-migrate", {"return": {"status": "active", "ram": []}}, "has no object `ram`"),
    "memory without a total": ("query-migrate", {"return": {"ram": {"remaining": 1}}}, "has no number `total`"),
    "memory without the rest": ("query-migrate", {"return": {"ram": {"total": 1}}}, "has no number `remaining`"),
    "memory of true bytes": ("query-migrate", {"return": {"ram": {"total": True}}}, "has no number `total`"),
    "memory of too many bytes": ("query-migrate", {"return": {"ram": {"total": 1 << 4000}}}, "has no number `total`"),
    "a failure": ("query-migrate", {"return": {"status": "failed", "error-desc": "a\nb"}}, "QEMU could not migrate: a b"),
    "a failure in many words": (
        "query-migrate",
        {"return": {"status": "failed", "error-desc": "x" * 9999}},
        r"migrate: x{500}\.\.\.$",
    ),
    "a failure without words": ("query-migrate", {"return": {"status": "cancelled"}}, "QEMU could not migrate: cancelled"),
    "a failure that is a list": ("query-migrate", {"return": {"status": "failed", "error-desc": []}}, "has no text `error-desc`"),
    "completed with nothing": ("query-migrate", {"return": {"status": "completed"}}, "the migration got no further"),
    "endless nothing": ("query-migrate", {"return": {}}, "the migration got no further"),
}
STAMPS = {
    "no stamp": ({}, "has no object `timestamp`"),
    "a stamp of text": ({"timestamp": {"seconds": "1", "microseconds": 1}}, "has no number `seconds`"),
    "half a stamp": ({"timestamp": {"seconds": 1}}, "has no number `microseconds`"),
}


def failed(folder: Path, script: dict[str, Any], sentence: str, way: str = "unix", *, timeout: float = HANGS) -> Peer:
    """A peer of which a capture said one sentence, and whose guest runs."""
    with Peer(folder, script, way) as peer, pytest.raises((CaptureError, FormatError), match=sentence) as caught:
        captured(peer, timeout=timeout)
    assert "\n" not in str(caught.value)
    assert peer.guest == "running"
    return peer


class TestBad:
    @pytest.mark.parametrize(("silent", "way"), _by_both_ways(SILENT))
    def test_who_does_not_answer_is_given_up(self, silent: str, way: str, tmp_path: Path) -> None:
        failed(tmp_path, {silent: ["silence"], **NOTHING_MOVES}, re.escape(SILENT[silent]), way, timeout=SHORT)

    @pytest.mark.parametrize(("command", "behaviour", "sentence"), BROKEN.values(), ids=BROKEN)
    def test_a_malformed_answer_is_one_sentence(self, command: str, behaviour: Any, sentence: str, tmp_path: Path) -> None:
        comes_late = "no further" in sentence or "did not answer" in sentence
        peer = failed(tmp_path, {command: [behaviour], **NOTHING_MOVES}, sentence, timeout=SHORT if comes_late else HANGS)
        assert ("migrate_cancel" in peer.commands) is ("query-migrate" in peer.commands)

    @pytest.mark.parametrize(("stamp", "sentence"), STAMPS.values(), ids=STAMPS)
    def test_so_is_a_malformed_event(self, stamp: Any, sentence: str, tmp_path: Path) -> None:
        failed(tmp_path, {"stamp": stamp}, f"QEMU's event {sentence}")

    @pytest.mark.parametrize(
        ("command", "what"),
        [
            *((command, "x") for command in ("greeting", "query-status", "query-migrate", "migrate_cancel")),
            *(("query-status", what) for what in ('{"event": "X"}\n', '{"id": 99}\n', "\n")),
            ("query-migrate", '{"event": "X"}\n'),
        ],
    )
    def test_who_never_stops_takes_no_memory(self, command: str, what: str, tmp_path: Path) -> None:
        tracemalloc.start()
        try:
            with Peer(tmp_path, {command: [{"endless": what}], **NOTHING_MOVES}) as peer, pytest.raises(CaptureError):
                captured(peer, timeout=SHORT)
            assert tracemalloc.get_traced_memory()[1] < 8 * LINE_BYTES
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("way", WAYS)
    def test_a_stream_that_is_none(self, way: str, tmp_path: Path) -> None:
        (tmp_path / "stream").write_bytes(b"GARBAGE" * 200_000)
        failed(tmp_path, {"stream": {"path": str(tmp_path / "stream"), "holds": True}}, "expected a QEMU migration stream", way)

    @pytest.mark.parametrize("way", WAYS)
    def test_a_stream_that_stops_in_the_middle(self, way: str, tmp_path: Path, stream: Path) -> None:
        (tmp_path / "stream").write_bytes(stream.read_bytes()[:10_000])
        half = {"stream": {"path": str(tmp_path / "stream"), "holds": True}}
        failed(tmp_path, half, "the migration got no further", way, timeout=SHORT)

    def test_a_stream_that_ends_in_the_middle(self, tmp_path: Path, stream: Path) -> None:
        (tmp_path / "stream").write_bytes(stream.read_bytes()[:10_000])
        failed(tmp_path, {"stream": {"path": str(tmp_path / "stream")}}, "expected .* - at .*byte")

    def test_a_whole_stream_that_has_no_end_for_qemu(self, tmp_path: Path, stream: Path) -> None:
        script = {"stream": {"path": str(stream)}, "query-migrate": [{"return": {"status": "device"}}]}
        failed(tmp_path, script, "whole stream, but says that the migration is `device`", timeout=SHORT)

    def test_a_port_that_nobody_connects_to(self, tmp_path: Path) -> None:
        failed(tmp_path, {"migrate": [{"return": {}}]}, "the migration got no further", "tcp", timeout=SHORT)

    def test_somebody_elses_migration_goes_on(self, tmp_path: Path) -> None:
        assert "migrate_cancel" not in failed(tmp_path, {"migrate": [REFUSED]}, "refuses `migrate`").commands


class TestDoubt:
    """Where nothing says that the guest runs again, the error does."""

    @pytest.mark.parametrize("cont", ["silence", "close", REFUSED, {"return": []}])
    def test_a_guest_that_may_be_paused(self, cont: Any, tmp_path: Path, stream: Path) -> None:
        with Peer(tmp_path, {"cont": [cont], "stream": {"path": str(stream)}}) as peer, pytest.raises(CaptureError) as caught:
            captured(peer, timeout=SHORT)
        assert peer.guest != "running"
        assert caught.value.__notes__ == ["the guest may be paused: `cont` in QEMU's monitor lets it run on"]

    def test_the_command_says_so_too(self, tmp_path: Path) -> None:
        with Peer(tmp_path, {"stop": ["close"]}) as peer:
            said = refused("capture", peer.name, "-o", tmp_path / "vm.tvm")
        assert said.endswith("QEMU closed the connection; the guest may be paused: `cont` in QEMU's monitor lets it run on")


class TestNobodyThere:
    def test_no_socket(self, tmp_path: Path) -> None:
        for address in (tmp_path / "none", tmp_path / ("x" * 200), tmp_path):
            with pytest.raises(CaptureError, match=r"no QMP there \(.*\); start QEMU with -qmp"):
                capture(str(address), io.BytesIO())
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        for host, number in (("127.0.0.1", port), ("127.0.0.1", 70_000), ("a..b", 1), ("\ud800", 1)):
            with pytest.raises(CaptureError, match="no QMP there"):
                capture((host, number), io.BytesIO())

    def test_a_queue_at_the_door(self, tmp_path: Path) -> None:
        """More than the listener's backlog takes: a TCP connection waits, a Unix one is refused for now."""
        for family, name in ((socket.AF_UNIX, str(tmp_path / "peer.sock")), (socket.AF_INET, ("127.0.0.1", 0))):
            with socket.socket(family) as server, contextlib.ExitStack() as stack:
                server.bind(name)
                server.listen(0)
                for _ in range(2):
                    client = stack.enter_context(socket.socket(family))
                    client.settimeout(0)
                    with contextlib.suppress(BlockingIOError):
                        client.connect(server.getsockname())
                with pytest.raises(CaptureError, match=r"no QMP greeting there in 1 s; .* is somebody else connected\?"):
                    capture(server.getsockname(), io.BytesIO(), timeout=SHORT)


class Capturing:
    """The command in a process of its own, with the folder that it writes to."""

    def __init__(self, peer: Peer, folder: Path, *options: object, **more: Any) -> None:
        self._folder = folder / "out"
        self._folder.mkdir()
        line = [sys.executable, "-m", "tagged_vmstate", "capture", peer.name, "-o", self._folder / "vm.tvm", *options]
        self._process = subprocess.Popen([str(part) for part in line], stderr=subprocess.PIPE, text=True, **more)

    def files(self) -> list[str]:
        return os.listdir(self._folder)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ends(self) -> tuple[int, str]:
        """Exit status and standard error; nothing is left of the output."""
        try:
            said = self._process.communicate(timeout=HANGS)[1]
        finally:
            self._process.kill()
        assert self.files() == []
        return self._process.returncode, said


INTERRUPTED = (130, "tagged-vmstate: interrupted\n")
STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "greeting": ("connected", {"greeting": ["silence"]}),
    "qmp_capabilities": ("qmp_capabilities", {"qmp_capabilities": ["silence"]}),
    "events": ("query-status", {"query-status": [{"endless": '{"event": "X"}\n'}]}),
    **{name: (name, {name: ["silence"], **NOTHING_MOVES}) for name in ("query-status", "stop", "getfd", "migrate")},
    "migrating": ("query-migrate", NOTHING_MOVES),
    "query-migrate": ("query-migrate", {"query-migrate": ["silence", "usual"], **NOTHING_MOVES}),
    "cont": ("cont", {"cont": ["silence", "usual"]}),
    "converting": ("query-migrate", {"stream": {"step": 1000, "pause": 0.1}}),
    "after the stream": ("query-migrate", {"query-migrate": [{"return": {"status": "device"}}]}),
}


class TestTheCommand:
    @pytest.mark.parametrize(("stage", "way"), _by_both_ways(STAGES))
    def test_one_interrupt_ends_it(self, stage: str, way: str, tmp_path: Path, stream: Path) -> None:
        at, script = STAGES[stage]
        script = {**script, "stream": {"path": str(stream), **script.get("stream", {})}}
        with Peer(tmp_path, script, way) as peer:
            capturing = Capturing(peer, tmp_path)
            peer.until(at)
            time.sleep(0.1)  # into what it does next
            capturing.send(signal.SIGINT)
            assert capturing.ends() == INTERRUPTED
        assert peer.guest == "running"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_so_do_other_signals(self, number: signal.Signals, tmp_path: Path) -> None:
        with Peer(tmp_path, NOTHING_MOVES) as peer:
            capturing = Capturing(peer, tmp_path)
            peer.until("query-migrate")
            capturing.send(number)
            assert capturing.ends() == (128 + number, "")
        assert peer.guest == "running"

    def test_but_not_those_that_nohup_keeps_away(self, tmp_path: Path) -> None:
        def nohup() -> None:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

        with Peer(tmp_path, NOTHING_MOVES) as peer:
            capturing = Capturing(peer, tmp_path, preexec_fn=nohup)
            peer.until("query-migrate")
            capturing.send(signal.SIGHUP)
            assert {peer.next() for _ in range(10)} == {"query-migrate"}
            capturing.send(signal.SIGINT)
            assert capturing.ends() == INTERRUPTED

    def test_a_second_interrupt_waits_for_nothing(self, tmp_path: Path) -> None:
        running = {"return": {"status": "running"}}
        with Peer(tmp_path, {"query-status": [running, "silence"], **NOTHING_MOVES}) as peer:
            capturing = Capturing(peer, tmp_path, "--timeout", 3600)
            peer.until("query-migrate")
            capturing.send(signal.SIGINT)
            peer.commands.clear()
            peer.until("query-status")
            capturing.send(signal.SIGINT)
            status, said = capturing.ends()
        note = f"tagged-vmstate: {peer.name}: the guest may be paused: `cont` in QEMU's monitor lets it run on\n"
        assert (status, said) == (130, note + INTERRUPTED[1])

    @pytest.mark.parametrize("way", WAYS)
    def test_one_sentence_and_no_draft(self, way: str, tmp_path: Path) -> None:
        with Peer(tmp_path, NOTHING_MOVES, way) as peer:
            found = Capturing(peer, tmp_path, "--timeout", 1).ends()
        assert found == (2, f"tagged-vmstate: {peer.name}: the migration got no further for 1 s\n")
        assert peer.guest == "running"

    @pytest.mark.parametrize("way", WAYS)
    def test_a_peer_that_is_killed(self, way: str, tmp_path: Path) -> None:
        peer = Peer(tmp_path, NOTHING_MOVES, way).__enter__()
        capturing = Capturing(peer, tmp_path, "--live")
        peer.until("query-migrate")
        peer.kill()
        status, said = capturing.ends()
        assert status == 2
        assert said.startswith(f"tagged-vmstate: {peer.name}: QEMU closed the connection")
        assert said.count("\n") == 1

    def test_a_full_disk(self, tmp_path: Path, stream: Path) -> None:
        with Peer(tmp_path, {"stream": {"path": str(stream)}}) as peer:
            assert (
                refused("capture", peer.name, "-o", "/dev/full")
                == "tagged-vmstate: /dev/full: cannot write: No space left on device"
            )
        assert peer.guest == "running"

    def test_the_words_of_a_peer_are_no_escape_codes(self, tmp_path: Path) -> None:
        with Peer(tmp_path, {"stop": [REFUSED]}) as peer:
            assert refused("capture", peer.name, "-o", tmp_path / "vm.tvm").endswith("QEMU refuses `stop`: not\\x1b[2J now")

    @pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "1e9", "x"])
    def test_a_limit_that_is_none(self, timeout: str, tmp_path: Path) -> None:
        done = run("capture", tmp_path / "none", "--timeout", timeout, "-o", tmp_path / "vm.tvm")
        assert (done.returncode, b"--timeout" in done.stderr, b"Traceback" in done.stderr) == (2, True, False)
