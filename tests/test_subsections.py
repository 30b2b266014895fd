"""A subsection that the reference stream lacks and its QEMU knows, by what -dump-vmstate writes: carried, or lost with the reason."""

from __future__ import annotations

import io
import json
import lzma
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import DATA, stream_bytes
from qemu_streams import field, short
from test_qemu_export import imported, small

from tagged_vmstate.cli.main import cli
from tagged_vmstate.errors import StateError
from tagged_vmstate.jsonform import to_json
from tagged_vmstate.paths import Aliases
from tagged_vmstate.qemu import dumpstate
from tagged_vmstate.qemu.export import Origin
from tagged_vmstate.qemu.like import Likeness
from tagged_vmstate.qemu.subsections import KnownSubsections
from tagged_vmstate.qemu.vmdesc import Struct
from tagged_vmstate.snapshot import Snapshot

Json = dict[str, Any]
KEPT = field("a", "uint8", 1)


def sub(*fields: Json, name: str = "dev/more", version: int = 1, subsections: tuple[Json, ...] = ()) -> Json:
    """A subsection, as a stream describes it."""
    return {"vmsd_name": name, "version": version, "fields": list(fields), "subsections": list(subsections)}


def sent(data: bytes, name: str = "dev/more", version: int = 1) -> bytes:
    """Its bytes."""
    return b"\5" + short(name) + version.to_bytes(4, "big") + data


def read(name: str, size: int, since: int = 0, *, condition: bool = False, **more: object) -> Json:
    """A field, as a dump has it."""
    return {"field": name, "version_id": since, "field_exists": condition, "size": size, **more}


def known(*fields: Json, name: str = "dev/more", version: int = 1, minimum: int = 1, subsections: tuple[Json, ...] = ()) -> Json:
    """A device, a struct or a subsection, as a dump has it."""
    found: Json = {"name": name, "version_id": version, "minimum_version_id": minimum, "Fields": list(fields)}
    return {**found, "Subsections": list(subsections)} if subsections else found


def dump(description: Json, machine: str = "m") -> Json:
    versions = {key: description[key] for key in ("version_id", "minimum_version_id")}
    return {"vmschkmachine": {"Name": machine}, "dev-type": {"Name": "dev-type", **versions, "Description": description}}


def like(ours: bytes, reference: bytes, tables: Json | None) -> Likeness:
    subsections = None if tables is None else KnownSubsections(dumpstate.parse(tables), "m")
    return Likeness(Snapshot.read(imported(ours)), Snapshot.read(imported(reference)), Aliases(), known=subsections)


def written(likeness: Likeness) -> bytes:
    out = io.BytesIO()
    likeness.write(out)
    return out.getvalue()


def fields(stream: bytes) -> Json:
    """The fields of the device, as an import reads them."""
    out = io.BytesIO()
    to_json(Snapshot.read(imported(stream)), out)
    [section] = [each for each in json.loads(out.getvalue())["sections"] if each["device"] == "dev"]
    return {each["name"]: each["value"] for each in section["fields"]}


def of_device(*fields: Json, data: bytes, subsections: tuple[Json, ...] = ()) -> bytes:
    """A stream with one device that has subsections."""
    stream = small(*fields, data=data)
    text = json.dumps({"vmsd_name": "dev", "version": 1, "fields": list(fields)})[1:-1]
    more = text + ', "subsections": ' + json.dumps(list(subsections))
    start, _, rest = stream.partition(b"\0\x06")
    description = rest[4:].replace(text.encode(), more.encode())
    return start + b"\0\x06" + len(description).to_bytes(4, "big") + description


X = read("x", 4)
BARE = small(KEPT, data=b"\0")
OURS = of_device(KEPT, data=b"\1" + sent(b"wxyz"), subsections=(sub(field("x", "uint32", 4)),))
TOP = known(read("a", 1), name="dev", subsections=(known(X),))


def test_it_goes_over_with_its_head_and_description() -> None:
    likeness = like(OURS, BARE, dump(TOP))
    assert [(move.what, move.place) for move in likeness.moves] == [("carried", 'dev#0/"dev/more"')]
    assert sent(b"wxyz") in written(likeness)
    assert fields(written(likeness)) == fields(OURS)
    assert fields(OURS)["dev/more"][0]["value"] == int.from_bytes(b"wxyz", "big")


def test_in_structs_and_elements_of_arrays() -> None:
    """Only the second of three elements needs it, and has another in it."""
    inner = sub(field("y", "uint8", 1), name="s/y", subsections=(sub(field("z", "uint8", 1), name="s/y/z"),))

    def array(*subsections: tuple[Json, ...], extra: tuple[int, ...] = (0, 0, 0)) -> list[Json]:
        structs = [{"vmsd_name": "s", "version": 1, "fields": [KEPT], "subsections": list(each)} for each in subsections]
        return [
            field("s", "struct", 1 + more, index=index, struct=struct)
            for index, (struct, more) in enumerate(zip(structs, extra, strict=True))
        ]

    more = sent(b"\7" + sent(b"\x08", "s/y/z"), "s/y")
    ours = small(*array((), (inner,), (), extra=(0, len(more), 0)), data=b"\1\2" + more + b"\3")
    bare = small(field("s", "struct", 1, array_len=3, struct={"vmsd_name": "s", "version": 1, "fields": [KEPT]}), data=bytes(3))
    described = known(read("y", 1), name="s/y", subsections=(known(read("z", 1), name="s/y/z"),))
    element = known(read("a", 1), name="s", subsections=(described,))
    likeness = like(ours, bare, dump(known(read("s", 8, num=3, Description=element), name="dev")))
    assert [(move.what, move.place) for move in likeness.moves] == [("carried", 'dev#0/s[1]/"s/y"')]
    assert b"\1\2" + more + b"\3" in written(likeness)
    assert fields(written(likeness)) == fields(ours)


@pytest.mark.parametrize(
    ("field_of_ours", "data", "theirs"),
    [
        (field("x", "uint32", 4, array_len=2), bytes(8), known(read("x", 4, num=2))),
        (field("x", "timer", 8), bytes(8), known(read("x", 8))),
        (field("x", "buffer", 3), b"xyz", known(read("x", 3))),
        (field("x", "unused_buffer", 3), bytes(3), known(read("unused", 3))),
        (field("x", "uint32", 4), bytes(4), known(read("x", 4), read("later", 4, 2), version=2)),
        (
            field("s", "struct", 4, struct={"vmsd_name": "s", "version": 1, "fields": [field("x", "uint32", 4)]}),
            bytes(4),
            known(read("s", 16, Description=known(read("x", 4), name="s"))),
        ),
    ],
    ids=["array", "timer", "buffer", "unused", "a later field", "struct"],
)
def test_what_that_qemu_reads_as_it_is_written(field_of_ours: Json, data: bytes, theirs: Json) -> None:
    if field_of_ours["type"] == "unused_buffer":
        field_of_ours = {**field_of_ours, "name": "unused"}
    ours = of_device(KEPT, data=b"\1" + sent(data), subsections=(sub(field_of_ours),))
    likeness = like(ours, BARE, dump(known(read("a", 1), name="dev", subsections=(theirs,))))
    assert [move.what for move in likeness.moves] == ["carried"]
    assert fields(written(likeness)) == fields(ours)


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        (sub(field("x", "uint32", 4)), known(X, name="dev/other"), "that QEMU does not know it"),
        (sub(field("x", "uint32", 4)), known(X, version=3, minimum=2), "that QEMU reads versions 2 to 3 of it, not 1"),
        (sub(field("x", "uint32", 4)), known(read("x", 8)), "that QEMU reads 8 bytes for `x`, not 4"),
        (sub(field("x", "uint32", 4)), known(read("y", 4)), "that QEMU reads `y` in the place of `x`"),
        (sub(field("x", "uint32", 4)), known(X, read("y", 1)), "that QEMU reads 2 fields in it, not 1"),
        (sub(field("x", "uint32", 4)), known(read("x", 4, condition=True)), "on a condition that only its own code knows"),
        (sub(field("x", "uint32", 4)), known(read("x", 4, num=2)), "that QEMU reads 2 elements for `x`, not 1"),
        (sub(field("x", "uint32", 4)), known(read("unused", 4)), "that QEMU reads `unused` in the place of `x`"),
        (
            sub(field("x", "uint16", 2, array_len=2)),
            known(read("x", 2)),
            "the dump does not have how many elements `x` has there",
        ),
        (sub(field("x", "bitmap", 4)), known(read("x", 8)), "QEMU writes `x` (`bitmap`) by code of its own"),
        (
            sub(field("s", "struct", 4, struct={"vmsd_name": "s", "version": 1, "fields": [field("x", "uint32", 4)]})),
            known(read("s", 16, Description=known(read("x", 2), name="s"))),
            "that QEMU reads 2 bytes for `s/x`, not 4",
        ),
    ],
)
def test_what_is_not_sure_is_lost_and_says_why(ours: Json, theirs: Json, reason: str) -> None:
    stream = of_device(KEPT, data=b"\1" + sent(b"wxyz"), subsections=(ours,))
    [move] = like(stream, BARE, dump(known(read("a", 1), name="dev", subsections=(theirs,)))).moves
    assert (move.what, move.place) == ("lost", 'dev#0/"dev/more"')
    assert reason in move.said


def test_a_dump_of_another_qemu_or_machine() -> None:
    [move] = like(OURS, BARE, dump({**TOP, "version_id": 2})).moves
    assert "the dump has version 2 of `dev`, the reference 1" in move.said
    two = {**dump({**TOP, "version_id": 2}), "dev-type-2": dump(TOP)["dev-type"]}
    assert [move.what for move in like(OURS, BARE, two).moves] == ["carried"], "one type of the name has the version"
    [move] = like(OURS, BARE, dump({**TOP, "name": "other"})).moves
    assert "the dump has no device of the section `dev`" in move.said
    with pytest.raises(StateError, match="writes with -M m, the machine of the reference, got that of virt"):
        like(OURS, BARE, dump(TOP, "virt"))


@pytest.mark.parametrize(
    ("tables", "status", "words"),
    [
        ("", 1, "`struct`; --tables with that QEMU's -dump-vmstate may know it"),
        ("dump.json", 0, "carried: dev#0/"),
        ("none.json", 1, "that QEMU does not know it"),
        (
            "other.json",
            2,
            "other.json: expected what -dump-vmstate writes with -M m, the machine of the reference, got that of virt",
        ),
        ("list.json", 2, "list.json: expected what QEMU's -dump-vmstate writes, found another JSON"),
        ("bad.json", 2, "bad.json: "),
        ("ours.mig", 2, "ours.mig: expected what QEMU's -dump-vmstate writes, found a QEMU migration stream"),
        ("nothing.json", 2, "expected what QEMU's -dump-vmstate writes, got `nothing.json`, which is no file"),
        ("board:MACHINE", 2, "got `board:MACHINE`, which is no file"),
    ],
)
def test_by_the_command(tables: str, status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in {
        "dump": dump(TOP),
        "none": dump(known(read("a", 1), name="dev")),
        "other": dump(TOP, "virt"),
        "list": [1],
        "bad": {"vmschkmachine": {"Name": "m"}, "dev": {"Description": 7}},
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "ours.mig").write_bytes(OURS)
    (tmp_path / "bare.mig").write_bytes(BARE)
    monkeypatch.chdir(tmp_path)
    options = ["--tables", tables] if tables else []
    done = CliRunner().invoke(cli, ["export", "ours.mig", "--like", "bare.mig", *options, "-o", "out"])
    assert (done.exit_code, (tmp_path / "out").exists()) == (status, not status), done.output
    assert words in done.output


def test_the_dump_comes_through_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `--tables <(ssh host cat dump.json)` gives it."""
    (tmp_path / "ours.mig").write_bytes(OURS)
    (tmp_path / "bare.mig").write_bytes(BARE)
    os.mkfifo(tmp_path / "dump")
    writer = threading.Thread(target=(tmp_path / "dump").write_text, args=[json.dumps(dump(TOP))], daemon=True)
    writer.start()
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["export", "ours.mig", "--like", "bare.mig", "--tables", "dump", "-o", "out"])
    assert (done.exit_code, "carried: dev#0/" in done.output) == (0, True), done.output


def test_the_subsections_of_a_real_stream_by_the_dump_of_its_qemu() -> None:
    """QEMU 7.2's dump has no processors and no lengths of arrays; memhp holds an array of no elements, which a stream does not describe."""
    subsections = KnownSubsections(
        dumpstate.parse(json.loads(lzma.decompress((DATA / "pc-qemu7.2.vmstate.json.xz").read_bytes()))), None
    )
    origin = Origin(Snapshot.read(imported(stream_bytes("pc-qemu7.2"))))
    found = {}

    def look(top: Struct, struct: Struct, path: tuple[str, ...]) -> None:
        for slot in struct.slots:
            here = (*path, slot.name)
            if slot.subsection:
                found[slot.subsection.name] = subsections.misfit(top.name, top.version, here, slot.subsection)
            if slot.struct:
                look(top, slot.struct, here)

    for _, _, struct in origin.items():
        if struct:
            look(struct, struct, ())
    assert found == {
        **dict.fromkeys(("fw_cfg/dma", "fw_cfg/acpi_mr", "fdrive/media_rate", "pckbd/extended_state")),
        "cpu/poll_control_msr": "the dump has no device of the section `cpu`",
        "piix4_pm/memhp": "that QEMU reads 5 fields in it, not 1",
    }


ASKED, SENT, AFTER = field("is_set", "uint8", 1), field("data", "buffer", 3), field("b", "uint8", 1)
UNSENT = small(ASKED, AFTER, data=b"\0\7")
DATA_READ = read("data", 3, condition=True)


def conditional(*fields: Json) -> Json:
    """A dump whose device has these fields."""
    return dump(known(*fields, name="dev"))


@pytest.mark.parametrize(
    ("theirs", "data"),
    [((read("is_set", 1), DATA_READ, read("b", 1)), b"\1xyz\2"), ((read("is_set", 1), read("b", 1), DATA_READ), b"\1\2xyz")],
    ids=["where the snapshot has it", "elsewhere"],
)
def test_a_field_on_a_condition_goes_over_at_its_place_in_the_dump(theirs: tuple[Json, ...], data: bytes) -> None:
    ours = small(ASKED, SENT, AFTER, data=b"\1xyz\2")
    likeness = like(ours, UNSENT, conditional(*theirs))
    assert [(move.what, move.place) for move in likeness.moves] == [("carried", "dev#0/data")]
    assert data in written(likeness)
    assert fields(written(likeness)) == fields(ours)


def test_a_field_on_a_condition_in_one_element_of_an_array_and_in_a_subsection() -> None:
    """As IDE's `identify_data`: the second of two drives has it, in a subsection that both have."""

    def drives(*insides: tuple[Json, ...]) -> list[Json]:
        parts = [sub(*inside, name="s/sub") for inside in insides]
        structs = [{"vmsd_name": "s", "version": 1, "fields": [KEPT], "subsections": [part]} for part in parts]
        sizes = [1 + len(sent(b"", "s/sub")) + sum(each["size"] for each in inside) for inside in insides]
        return [
            field("s", "struct", size, index=index, struct=struct)
            for index, (size, struct) in enumerate(zip(sizes, structs, strict=True))
        ]

    bare = b"\1" + sent(b"\0\7", "s/sub")
    whole = bare + b"\1" + sent(b"\1xyz\2", "s/sub")
    ours = small(*drives((ASKED, AFTER), (ASKED, SENT, AFTER)), data=whole)
    reference = small(*drives((ASKED, AFTER), (ASKED, AFTER)), data=bare * 2)
    inside = known(read("is_set", 1), DATA_READ, read("b", 1), name="s/sub")
    element = known(read("a", 1), name="s", subsections=(inside,))
    likeness = like(ours, reference, conditional(read("s", 8, num=2, Description=element)))
    assert [(move.what, move.place) for move in likeness.moves] == [("carried", 'dev#0/s[1]/"s/sub"/data')]
    assert whole in written(likeness)
    assert fields(written(likeness)) == fields(ours)


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        ((read("is_set", 1), read("b", 1)), "that QEMU does not know it"),
        ((read("is_set", 1), read("data", 3), read("b", 1)), "that QEMU reads it on no condition, but the reference lacks it"),
        ((read("is_set", 1), read("data", 4, condition=True), read("b", 1)), "that QEMU reads 4 bytes for `data`, not 3"),
        ((read("b", 1), DATA_READ, read("is_set", 1)), "the fields beside it are others, or in another order, than in the dump"),
        ((DATA_READ,), "the fields beside it are others, or in another order, than in the dump"),
        (
            (read("is_set", 1), DATA_READ, read("c", 1), DATA_READ, read("b", 1)),
            "that QEMU reads 2 fields in it, not 1",
        ),
    ],
)
def test_a_field_that_may_be_read_otherwise_is_lost_and_says_why(theirs: tuple[Json, ...], reason: str) -> None:
    [move] = like(small(ASKED, SENT, AFTER, data=b"\1xyz\2"), UNSENT, conditional(*theirs)).moves
    assert (move.what, move.place) == ("lost", "dev#0/data")
    assert reason in move.said


def test_types_of_one_section_that_read_a_field_in_different_places() -> None:
    one, other = ((read("is_set", 1), DATA_READ, read("b", 1)), (read("is_set", 1), read("b", 1), DATA_READ))
    two = {**conditional(*one), "dev-type-2": conditional(*other)["dev-type"]}
    [move] = like(small(ASKED, SENT, AFTER, data=b"\1xyz\2"), UNSENT, two).moves
    assert (move.what, "in different places" in move.said) == ("lost", True)
