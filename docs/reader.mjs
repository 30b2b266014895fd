#!/usr/bin/env node
// A strict reader of snapshots, written from format.md and json-form.md: node 20 or newer, no library.
//
//   node reader.mjs FILE          check a snapshot and print its JSON form
//   node reader.mjs --list FILE   check and print the heads of a snapshot of any version
//
// A malformed file: one line on stderr, nothing on stdout, exit status 1.

import { readFileSync } from "node:fs";
import process from "node:process";

const MAGIC = Buffer.from("\x94\xaetagged-vmstate", "latin1");
const [LEVELS, NAME_BYTES, ATTRIBUTE_BYTES, FRAME_BYTES] = [64, 255, 1 << 20, 2n ** 32n];
const NIL = 0xc0;

export class Malformed extends Error {
  constructor(expected, found, offset) {
    super(`expected ${expected}, got ${found} - at byte ${offset}`);
  }
}

const CRC_TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = (byte >>> 1) ^ (byte & 1 ? 0xedb88320 : 0);
  return byte;
});

function crc32(bytes, before = 0) {
  let crc = ~before;
  for (let at = 0; at < bytes.length; at++) crc = CRC_TABLE[(crc ^ bytes[at]) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

// Numbers. A float is read as its bits: as a number, a NaN would lose them.

const NUMBERS = new Map(
  [
    ["float32", 0xca, 4, "getUint32"], ["float64", 0xcb, 8, "getBigUint64"],
    ["uint8", 0xcc, 1, "getUint8"], ["uint16", 0xcd, 2, "getUint16"],
    ["uint32", 0xce, 4, "getUint32"], ["uint64", 0xcf, 8, "getBigUint64"],
    ["int8", 0xd0, 1, "getInt8"], ["int16", 0xd1, 2, "getInt16"],
    ["int32", 0xd2, 4, "getInt32"], ["int64", 0xd3, 8, "getBigInt64"],
    ["timer", 0xd3, 8, "getBigInt64"],
  ].map(([type, first, size, get]) => [type, { first, size, get, isFloat: first < 0xcc }]),
);
const BY_FIRST = new Map([...NUMBERS.values()].map((number) => [number.first, number]));

const fits = (integer, { first, size }) => (first < 0xd0 ? BigInt.asUintN : BigInt.asIntN)(8 * size, integer) === integer;
const float32Bits = (number) => BigInt(new Uint32Array(Float32Array.of(number).buffer)[0]);
const float64Bits = (number) => new BigUint64Array(Float64Array.of(number).buffer)[0];
const toNumber = (bits, size) =>
  size === 4 ? new Float32Array(Uint32Array.of(Number(bits)).buffer)[0] : new Float64Array(BigUint64Array.of(bits).buffer)[0];

function widened(bits) {
  if (((bits >> 23n) & 0xffn) !== 0xffn) return float64Bits(toNumber(bits, 4));
  return ((bits >> 31n) << 63n) | (0x7ffn << 52n) | ((bits & 0x7fffffn) << 29n);
}

function narrowed(bits) {
  if (((bits >> 52n) & 0x7ffn) !== 0x7ffn) return float32Bits(toNumber(bits, 8));
  return ((bits >> 63n) << 31n) | (0xffn << 23n) | ((bits >> 29n) & 0x7fffffn);
}

// Texts: a string, or an array of texts.

const quote = JSON.stringify;
const joined = (texts, between = ", ") => texts.flatMap((text, number) => (number ? [between, text] : [text]));

function hex(bytes, between = "") {
  const texts = [];
  for (let at = 0; at < bytes.length; at += 1 << 20) {
    const digits = bytes.subarray(at, at + (1 << 20)).toString("hex");
    texts.push(between ? digits.replaceAll(/..(?!$)/g, `$&${between}`) : digits);
  }
  return joined(texts, between);
}

function floatText(bits, size) {
  const number = toNumber(bits, size);
  if (!Number.isFinite(number)) return `"${String(number).toLowerCase().replace("inity", "")}:${bits.toString(16)}"`;
  const [digits, exponent] = number.toExponential().split("e");
  if (exponent < -4 || exponent > 15) return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
  const text = Object.is(number, -0) ? "-0" : String(number);
  return text.includes(".") ? text : `${text}.0`;
}

function decoded(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

// MessagePack. A token is a number, a string, bytes ..., or the head of an array or map, whose items follow.

const SIZED = new Map([
  [0xc4, ["bin", 1]], [0xc5, ["bin", 2]], [0xc6, ["bin", 4]], [0xc7, ["ext", 1]], [0xc8, ["ext", 2]], [0xc9, ["ext", 4]],
  [0xd9, ["str", 1]], [0xda, ["str", 2]], [0xdb, ["str", 4]],
  [0xdc, ["array", 2]], [0xdd, ["array", 4]], [0xde, ["map", 2]], [0xdf, ["map", 4]],
]); // the first byte: what it begins, and how many bytes its size has

function shortestFirst(integer) {
  if (integer >= -32n && integer < 128n) return Number(BigInt.asUintN(8, integer));
  const [first, last] = integer < 0n ? [0xd0, 0xd3] : [0xcc, 0xcf];
  for (let each = first; each < last; each++) if (fits(integer, BY_FIRST.get(each))) return each;
  return last;
}

function shortestWidth(kind, size) {
  if (kind !== "bin" && size < (kind === "str" ? 32 : 16)) return 0;
  return size < 1 << 8 && (kind === "bin" || kind === "str") ? 1 : size < 1 << 16 ? 2 : 4;
}

class Cursor {
  at = 0;
  isPrescribed = true; // whether what was read since this was set has the prescribed encoding

  constructor(bytes, base = 0) {
    this.bytes = bytes;
    this.base = base; // the offset in the file
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  fail(expected, found, at = this.at) {
    throw new Malformed(expected, found, this.base + at);
  }

  take(size) {
    const left = this.bytes.length - this.at;
    if (size > left) this.fail(`${size} bytes`, `only ${left} (truncated)`);
    this.at += size;
    return this.bytes.subarray(this.at - size, this.at);
  }

  token() {
    const start = this.at;
    const [first] = this.take(1);
    const token = (kind, value, isShortest) => ({ start, first, kind, value, isShortest });
    const integer = (value) => token("integer", value, first === shortestFirst(value));
    const sized = (kind, size, width) => {
      const value = kind === "array" || kind === "map" ? size : this.take(size + (kind === "ext" ? 1 : 0));
      return token(kind, value, width === shortestWidth(kind, size));
    };
    if (first < 0x80) return integer(BigInt(first));
    if (first < 0x90) return sized("map", first & 0x0f, 0);
    if (first < 0xa0) return sized("array", first & 0x0f, 0);
    if (first < 0xc0) return sized("str", first & 0x1f, 0);
    if (first >= 0xe0) return integer(BigInt(first - 0x100));
    if (first >= 0xd4 && first <= 0xd8) return sized("ext", 1 << (first - 0xd4), 0);
    if (first === NIL) return token("nil", null, true);
    if (first === 0xc1) this.fail("an object", "0xc1, which MessagePack never uses", start);
    if (first <= 0xc3) return token("bool", first === 0xc3, true);
    if (SIZED.has(first)) {
      const [kind, width] = SIZED.get(first);
      return sized(kind, this.take(width).readUIntBE(0, width), width);
    }
    const { size, get, isFloat } = BY_FIRST.get(first);
    this.take(size);
    const value = BigInt(this.view[get](this.at - size));
    return isFloat ? token("float", value, first === 0xcb) : integer(value);
  }

  expect(kind, what) {
    const token = this.token();
    if (token.kind !== kind) this.fail(what, token.kind, token.start);
    this.isPrescribed &&= token.isShortest;
    return token.value;
  }

  string(what) {
    const bytes = this.expect("str", what);
    return decoded(bytes) ?? this.fail(`${what} in UTF-8`, "other bytes", this.at - bytes.length);
  }

  name(what) {
    const start = this.at;
    const name = this.string(what);
    const size = Buffer.byteLength(name);
    return size >= 1 && size <= NAME_BYTES ? name : this.fail(`${what} of 1 to ${NAME_BYTES} bytes`, size, start);
  }

  times(count, readOne) {
    const found = [];
    while (found.length < count) found.push(readOne());
    return found;
  }

  /** The text of any object: plain where JSON loses nothing of it, else $msgpack, at every level. */
  any(level = 1) {
    const { start, kind, value, isShortest } = this.token();
    if (level > LEVELS && (kind === "array" || kind === "map")) this.fail(`at most ${LEVELS} levels`, "more", start);
    const inner = () => this.any(level + 1);
    let text = null;
    if (kind === "array") text = ["[", joined(this.times(value, inner)), "]"];
    else if (kind === "map") {
      const members = new Map(this.times(value, () => [inner(), inner()]));
      const isPlain = [...members.keys()].every((key) => typeof key === "string" && /^"[^$]/.test(key));
      if (isPlain && members.size === value) text = ["{", joined([...members].map(([key, each]) => [key, ": ", each])), "}"];
    } else if (kind === "str") text = decoded(value) === null ? null : quote(decoded(value));
    else if (kind === "bin") text = ['{"$hex": "', hex(value, " "), '"}'];
    else if (kind === "float") text = Number.isFinite(toNumber(value, 8)) ? floatText(value, 8) : null;
    else if (kind !== "ext") text = String(value);
    return text !== null && isShortest ? text : ['{"$msgpack": "', hex(this.bytes.subarray(start, this.at)), '"}'];
  }
}

// Heads.

function readAttributes(cursor) {
  const start = cursor.at;
  const text = cursor.any();
  const bytes = cursor.bytes.subarray(start, cursor.at);
  if (bytes.length > ATTRIBUTE_BYTES) cursor.fail(`at most ${ATTRIBUTE_BYTES} bytes of attributes`, bytes.length, start);
  const again = new Cursor(bytes, start);
  const count = again.expect("map", "a map of attributes");
  if (!again.isPrescribed) again.fail("a map in the shortest form", "another", 0);
  for (const keys = new Set(); keys.size < count; again.any()) {
    const at = again.at;
    const key = again.string("the key of an attribute");
    if (keys.has(key)) again.fail("each attribute once", `${quote(key)} again`, at);
    keys.add(key);
  }
  return text;
}

function readFixed(cursor, first, what) {
  if (cursor.bytes[cursor.at] !== first) cursor.fail(`${what}, which begins with 0x${first.toString(16)}`, "another byte");
  return cursor.expect("integer", what);
}

/** The heads of a file, their checksums checked: what each means, its text, and the fields of a frame. */
function* heads(bytes) {
  const cursor = new Cursor(bytes);
  let start = 0;
  let checksums = 0; // the checksum of those so far
  const requireShortest = () => cursor.isPrescribed || cursor.fail("a head in the shortest form", "another", start);
  const finish = (head, items, size = 0n, before = 0) => {
    const computed = crc32(bytes.subarray(start, cursor.at), before);
    const stored = Number(readFixed(cursor, 0xce, "a checksum"));
    checksums = crc32(bytes.subarray(cursor.at - 4, cursor.at), checksums);
    const fields = new Cursor(cursor.take(Number(size)), cursor.at - Number(size));
    const whole = crc32(fields.bytes, computed);
    if (stored !== whole) cursor.fail(`the checksum ${stored}`, `${whole} (damaged)`, start);
    return { ...head, start, fields, text: ["[", joined([...items, String(stored)]), "]\n"] };
  };

  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) cursor.fail('a snapshot, which begins with "tagged-vmstate"', "other bytes");
  cursor.at = MAGIC.length;
  const version = cursor.expect("integer", "a version");
  if (version < 1n || !cursor.isPrescribed) cursor.fail("a version of 1 or more in the shortest form", version, MAGIC.length);
  const attributes = readAttributes(cursor);
  yield finish({ kind: "header", version, attributes }, [quote("tagged-vmstate"), String(version), attributes]);

  for (let frames = 0n; ; frames++) {
    start = cursor.at;
    cursor.isPrescribed = true;
    const count = cursor.expect("array", "a frame, or the end");
    const kind = cursor.name("the kind of a frame, or the end");
    if (kind === "end") {
      if (version === 1n ? count !== 3 : count < 3) cursor.fail("the end as an array of 3", count, start);
      const total = cursor.expect("integer", "the number of frames");
      requireShortest();
      const at = cursor.at;
      const more = cursor.times(count - 3, () => cursor.any()); // what a later version has
      if (cursor.at - at > ATTRIBUTE_BYTES) cursor.fail(`at most ${ATTRIBUTE_BYTES} bytes of items`, cursor.at - at, at);
      if (total !== frames) cursor.fail(`${total} frames ahead of the end`, frames, start);
      const end = finish({ kind }, [quote(kind), String(total), ...more], 0n, checksums);
      if (cursor.at < bytes.length) cursor.fail("nothing after the end", "more bytes");
      return yield end;
    }
    if (count !== 6) cursor.fail("a frame as an array of 6", count, start);
    if (version === 1n && kind !== "section" && kind !== "part") cursor.fail("`section` or `part`", kind, start + 1);
    const device = cursor.name("the name of a device");
    const at = cursor.at;
    const instance = cursor.expect("integer", "an instance");
    if (!fits(instance, NUMBERS.get("uint32"))) cursor.fail("an instance of 0 to 2**32-1", instance, at);
    requireShortest();
    const attributes = readAttributes(cursor);
    const size = readFixed(cursor, 0xcf, "a size");
    if (size > FRAME_BYTES) cursor.fail(`at most ${FRAME_BYTES} bytes of fields`, size, cursor.at - 9);
    const items = [quote(kind), quote(device), String(instance), attributes, String(size)];
    yield finish({ kind, device, instance, attributes }, items, size);
  }
}

// Fields. What reads a value returns its text.

function readNumber(cursor, type) {
  const { start, first, kind, value } = cursor.token();
  const number = NUMBERS.get(type);
  const refuse = (found) => cursor.fail(type, found, start);
  if (kind !== "integer" && !(number.isFloat && kind === "float")) refuse(kind);
  cursor.isPrescribed &&= first === number.first;
  if (!number.isFloat) return String(fits(value, number) ? value : refuse(value));
  let bits = first === 0xca ? widened(value) : value;
  if (kind === "integer") bits = BigInt(Number(value)) === value ? float64Bits(Number(value)) : refuse(value);
  if (type === "float32") bits = widened(narrowed(bits)) === bits ? narrowed(bits) : refuse("what takes 64 bits");
  return floatText(bits, number.size);
}

function readBytes(cursor, type, size) {
  const start = cursor.at;
  const bytes = cursor.expect("bin", type);
  return BigInt(bytes.length) === size ? bytes : cursor.fail(`${size} bytes for ${type}`, bytes.length, start);
}

function readNumbers(cursor, type, length) {
  const { size, get, isFloat } = NUMBERS.get(type);
  const bytes = readBytes(cursor, type, length * BigInt(size));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const text = (value) => (isFloat ? floatText(BigInt(value), size) : String(value));
  return ["[", joined(Array.from({ length: bytes.length / size }, (_, index) => text(view[get](index * size, true)))), "]"];
}

function readBools(cursor, length) {
  const bytes = readBytes(cursor, "bool", length);
  if (!bytes.every((byte) => byte < 2)) cursor.fail("bytes 0 and 1 for bool", "others", cursor.at - bytes.length);
  return ["[", joined(Array.from(bytes, (byte) => String(byte === 1))), "]"];
}

function readBitmap(cursor, length) {
  const bytes = readBytes(cursor, "bitmap", (length + 7n) / 8n);
  const spare = length % 8n && bytes.at(-1) >> Number(length % 8n);
  return spare ? cursor.fail("spare bits 0", "others", cursor.at - 1) : bytes;
}

function readArray(cursor, type, length, readOne) {
  const start = cursor.at;
  const count = cursor.expect("array", type);
  if (BigInt(count) !== length) cursor.fail(`${length} elements of ${type}`, count, start);
  return ["[", joined(cursor.times(count, readOne)), "]"];
}

function readRuns(cursor, length) {
  const start = cursor.at;
  const count = cursor.expect("array", "runs of sparse bytes");
  if (count % 2) cursor.fail("offsets and bytes in turn", `${count} items`, start);
  let end = 0n;
  const readRun = () => {
    const at = cursor.at;
    const offset = cursor.expect("integer", "the offset of a run");
    const bytes = cursor.expect("bin", "the bytes of a run");
    const isApart = offset >= end && bytes.length > 0;
    end = offset + BigInt(bytes.length);
    if (!isApart || end > length) cursor.fail(`runs that ascend within ${length} bytes`, `${bytes.length} at ${offset}`, at);
    return [`"0x${offset.toString(16)}": "`, hex(bytes), '"'];
  };
  return ["{", joined(cursor.times(count / 2, readRun)), "}"];
}

function readStruct(cursor, level, isDefault) {
  if (cursor.bytes[cursor.at] === NIL) return String(cursor.expect("nil"));
  const count = cursor.expect("array", "a struct");
  return ["[", joined(readFields(cursor, level + 1, isDefault, (found) => found < count).map(({ text }) => text)), "]"];
}

function readValue(cursor, type, length, level, isDefault) {
  const isSingle = length === null;
  const readString = () => quote(cursor.string("a string"));
  const readOne = () => readStruct(cursor, level, isDefault);
  if (NUMBERS.has(type)) return isSingle ? readNumber(cursor, type) : readNumbers(cursor, type, length);
  if (type === "bool") return isSingle ? String(cursor.expect("bool", type)) : readBools(cursor, length);
  if (type === "buffer") return ['"', hex(readBytes(cursor, type, length), " "), '"'];
  if (type === "bitmap") return ['"', hex(readBitmap(cursor, length), " "), '"'];
  if (type === "sparse") return readRuns(cursor, length);
  if (type === "string") return isSingle ? readString() : readArray(cursor, type, length, readString);
  if (type !== "struct") return cursor.any();
  if (level > LEVELS) cursor.fail(`at most ${LEVELS} levels of structs`, "more");
  return isSingle ? readOne() : readArray(cursor, type, length, readOne);
}

function readField(cursor, level, inDefault) {
  const start = cursor.at;
  if (level === 1) cursor.isPrescribed = true;
  if (cursor.expect("array", "a field") !== 5) cursor.fail("a field as an array of 5", "another", start);
  const name = cursor.name("the name of a field");
  const type = cursor.name("the type of a field");
  const lengthAt = cursor.at;
  const length = cursor.bytes[lengthAt] === NIL ? cursor.expect("nil") : cursor.expect("integer", "a length, or nil");
  const hasLength = type === "buffer" || type === "bitmap" || type === "sparse";
  if (length === null ? hasLength : length < 0n) cursor.fail(`a length of ${type}`, length, lengthAt);
  const flagsAt = cursor.at;
  const flags = cursor.expect("integer", "flags");
  if (flags !== 0n && flags !== 1n) cursor.fail("flags of 0 or 1", flags, flagsAt);
  if (inDefault && !flags) cursor.fail("a field at its default, as its struct is", "one that is not", start);
  const value = readValue(cursor, type, length, level, flags === 1n);
  const text = [`{"name": ${quote(name)}, "type": ${quote(type)}, `];
  if (length !== null) text.push(`"length": ${length}, `);
  if (flags) text.push('"is_default": true, ');
  text.push('"value": ', value);
  if (level === 1 && !cursor.isPrescribed) text.push(', "msgpack": "', hex(cursor.bytes.subarray(start, cursor.at)), '"');
  return { name, type, length, start, text: [...text, "}"] };
}

function readFields(cursor, level, inDefault, isMore) {
  const fields = [];
  const names = new Set();
  while (isMore(fields.length)) {
    const field = readField(cursor, level, inDefault);
    if (names.has(field.name)) cursor.fail("each name once", `${quote(field.name)} again`, field.start);
    names.add(field.name);
    fields.push(field);
  }
  return fields;
}

/** The heads of a file of any version, a line for each. */
function list(bytes) {
  return [...heads(bytes)].map(({ text }) => text);
}

/** The JSON form of a file, as a text. */
export function toJson(bytes) {
  const [header, ...frames] = heads(bytes);
  if (header.version > 1n) throw new Malformed("version 1", `${header.version}, for a later reader`, MAGIC.length);
  frames.pop(); // the end
  const sections = new Map();
  const texts = [];
  for (const { start, kind, device, instance, attributes, fields: cursor } of frames) {
    const key = `${instance} ${device}`;
    const section = sections.get(key) ?? { start, fields: new Map() };
    if (section.isComplete) throw new Malformed("each section once", `another frame of ${device}`, start);
    section.isComplete = kind === "section";
    sections.set(key, section);
    const fields = readFields(cursor, 1, false, () => cursor.at < cursor.bytes.length);
    for (const { name, type, length, start } of fields) {
      const known = section.fields.get(name);
      const isAgain = type === "sparse" && known?.type === type && known.length === length;
      if (known && !isAgain) cursor.fail("each name once over all parts, but for sparse of one length", quote(name), start);
      section.fields.set(name, { type, length });
    }
    const head = `${kind === "part" ? '"kind": "part", ' : ""}"device": ${quote(device)}, "instance": ${instance}`;
    const lines = joined(fields.map(({ text }) => ["\n ", text]), ",");
    texts.push([`\n{${head}, "attributes": `, attributes, ', "fields": [', lines, "]}"]);
  }
  for (const { isComplete, start } of sections.values())
    if (!isComplete) throw new Malformed("the last part of a section", "only earlier ones", start);
  const head = ['{"format": "tagged-vmstate", "version": 1, "attributes": ', header.attributes, ',\n"sections": ['];
  return [head, joined(texts, ","), "\n]}\n"];
}

/** The strings that a text is made of, few and long. */
export function* strings(text) {
  let held = "";
  for (const string of [text].flat(Infinity)) {
    held += string;
    if (held.length < 1 << 16) continue;
    yield held;
    held = "";
  }
  yield held;
}

function main(toText, path) {
  try {
    for (const string of strings(toText(readFileSync(path)))) process.stdout.write(string);
  } catch (error) {
    if (!(error instanceof Malformed) && error.syscall === undefined) throw error;
    process.stderr.write(`${path}: ${error.message}\n`);
    process.exitCode = 1;
  }
}

if (process.argv[1]?.endsWith("reader.mjs")) {
  const isList = process.argv[2] === "--list";
  const paths = process.argv.slice(isList ? 3 : 2);
  if (paths.length === 1) main(isList ? list : toJson, paths[0]);
  else {
    process.stderr.write("usage: node reader.mjs [--list] FILE\n");
    process.exitCode = 2;
  }
}
