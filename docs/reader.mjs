#!/usr/bin/env node
// A strict reader of snapshots, written from format.md: node 20 or newer, no library.
//
//   node reader.mjs FILE          check a file, print its JSON form
//   node reader.mjs --list FILE   print the heads of a file of this or any later version of the format
//
// A malformed file: one line on stderr, nothing on stdout, exit status 1.
//
// Everything is checked before anything is printed. What will be printed is a text: a string, or an iterable of texts, so that
// the hex of much memory is made only as it is written.

import { readFileSync } from "node:fs";
import process from "node:process";

const MAGIC = Buffer.from("\x94\xaetagged-vmstate", "latin1");
const MOST_LEVELS = 64;
const MOST_NAME_BYTES = 255;
const MOST_ATTRIBUTE_BYTES = 1 << 20;
const MOST_FRAME_BYTES = 1n << 32n;
const CHUNK = 1 << 14; // bytes or characters written at once
const NIL = 0xc0;
const FLOAT64 = 0xcb;

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

// Numbers: the first byte of a single one, its size, and how a DataView reads it. Floats are read as their bits: made a number,
// a signalling NaN may become a quiet one.

const NUMBERS = new Map([
  ["float32", { first: 0xca, size: 4, get: "getUint32", isFloat: true }],
  ["float64", { first: 0xcb, size: 8, get: "getBigUint64", isFloat: true }],
  ["uint8", { first: 0xcc, size: 1, get: "getUint8", wrap: BigInt.asUintN }],
  ["uint16", { first: 0xcd, size: 2, get: "getUint16", wrap: BigInt.asUintN }],
  ["uint32", { first: 0xce, size: 4, get: "getUint32", wrap: BigInt.asUintN }],
  ["uint64", { first: 0xcf, size: 8, get: "getBigUint64", wrap: BigInt.asUintN }],
  ["int8", { first: 0xd0, size: 1, get: "getInt8", wrap: BigInt.asIntN }],
  ["int16", { first: 0xd1, size: 2, get: "getInt16", wrap: BigInt.asIntN }],
  ["int32", { first: 0xd2, size: 4, get: "getInt32", wrap: BigInt.asIntN }],
  ["int64", { first: 0xd3, size: 8, get: "getBigInt64", wrap: BigInt.asIntN }],
  ["timer", { first: 0xd3, size: 8, get: "getBigInt64", wrap: BigInt.asIntN }],
]);
const BY_FIRST = new Map([...NUMBERS.values()].map((number) => [number.first, number]));
const [f32, f64] = [new Float32Array(1), new Float64Array(1)];
const [bits32, bits64] = [new Uint32Array(f32.buffer), new BigUint64Array(f64.buffer)];

function toNumber(bits, size) {
  if (size === 4) bits32[0] = Number(bits);
  else bits64[0] = bits;
  return size === 4 ? f32[0] : f64[0];
}

function toBits(number, size) {
  if (size === 4) f32[0] = number;
  else f64[0] = number;
  return size === 4 ? BigInt(bits32[0]) : bits64[0];
}

function widened(bits) {
  const number = toNumber(bits, 4);
  return Number.isNaN(number) ? ((bits >> 31n) << 63n) | (0x7ffn << 52n) | ((bits & 0x7fffffn) << 29n) : toBits(number, 8);
}

function narrowed(bits) {
  const number = toNumber(bits, 8);
  return Number.isNaN(number) ? ((bits >> 63n) << 31n) | (0xffn << 23n) | ((bits >> 29n) & 0x7fffffn) : toBits(number, 4);
}

// Texts.

const quote = JSON.stringify;

/** The strings of a text, in order. */
export function* strings(text) {
  if (typeof text === "string") yield text;
  else for (const part of text) yield* strings(part);
}

function* joined(texts, between = ", ") {
  for (const [index, text] of texts.entries()) yield [index ? between : "", text];
}

function* hex(bytes, between = "") {
  for (let at = 0; at < bytes.length; at += CHUNK) {
    const pairs = bytes.subarray(at, at + CHUNK).toString("hex");
    yield (at ? between : "") + (between ? pairs.match(/../g).join(between) : pairs);
  }
}

function* elements(bytes, size, toText) {
  for (let at = 0; at < bytes.length; at += size) yield (at ? ", " : "") + toText(at);
}

function floatText(bits, size) {
  const number = toNumber(bits, size);
  if (Number.isNaN(number)) return `"nan:${bits.toString(16)}"`;
  if (!Number.isFinite(number)) return `"${number < 0 ? "-" : ""}inf:${bits.toString(16)}"`;
  const [digits, exponent] = number.toExponential().split("e");
  if (exponent < -4 || exponent > 15) return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
  const text = Object.is(number, -0) ? "-0" : String(number);
  return text.includes(".") ? text : `${text}.0`;
}

// MessagePack. A token is a scalar, a string, some bytes, or the head of an array or map whose items follow.

const SIZED = new Map([
  [0xc4, ["bin", 1]], [0xc5, ["bin", 2]], [0xc6, ["bin", 4]], [0xc7, ["ext", 1]], [0xc8, ["ext", 2]], [0xc9, ["ext", 4]],
  [0xd9, ["str", 1]], [0xda, ["str", 2]], [0xdb, ["str", 4]],
  [0xdc, ["array", 2]], [0xdd, ["array", 4]], [0xde, ["map", 2]], [0xdf, ["map", 4]],
]); // first byte -> the kind of token, and in how many bytes its size follows
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function shortestFirst(integer) {
  if (integer >= -32n && integer < 128n) return Number(BigInt.asUintN(8, integer));
  const [wrap, first] = integer < 0n ? [BigInt.asIntN, 0xd0] : [BigInt.asUintN, 0xcc];
  return first + [8, 16, 32, 64].findIndex((bits) => wrap(bits, integer) === integer);
}

function shortestWidth(kind, size) {
  if (kind !== "bin" && size < (kind === "str" ? 32 : 16)) return 0;
  if (size < 1 << 8 && (kind === "bin" || kind === "str")) return 1;
  return size < 1 << 16 ? 2 : 4;
}

function decoded(bytes) {
  try {
    return UTF8.decode(bytes);
  } catch {
    return null;
  }
}

class Cursor {
  at = 0;
  isPrescribed = true; // whether all that was read since this was set is encoded as a writer has to

  constructor(bytes, base = 0) {
    this.bytes = bytes;
    this.base = base; // the offset of the bytes in the file
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
      const value = kind === "array" || kind === "map" ? size : this.take(kind === "ext" ? size + 1 : size);
      return token(kind, value, width === shortestWidth(kind, size));
    };
    if (first < 0x80) return integer(BigInt(first));
    if (first < 0x90) return sized("map", first & 0x0f, 0);
    if (first < 0xa0) return sized("array", first & 0x0f, 0);
    if (first < 0xc0) return sized("str", first & 0x1f, 0);
    if (first >= 0xe0) return integer(BigInt(first - 0x100));
    if (first === NIL) return token("nil", null, true);
    if (first === 0xc1) this.fail("an object", "0xc1, which MessagePack never uses", start);
    if (first <= 0xc3) return token("bool", first === 0xc3, true);
    if (first >= 0xd4 && first <= 0xd8) return sized("ext", 1 << (first - 0xd4), 0);
    if (SIZED.has(first)) {
      const [kind, width] = SIZED.get(first);
      return sized(kind, this.take(width).readUIntBE(0, width), width);
    }
    const { size, get, isFloat } = BY_FIRST.get(first);
    this.take(size);
    const value = BigInt(this.view[get](this.at - size));
    return isFloat ? token("float", value, first === FLOAT64) : integer(value);
  }

  /** The value of the next token, which has to be of one kind. */
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
    return size > 0 && size <= MOST_NAME_BYTES ? name : this.fail(`${what} of 1 to ${MOST_NAME_BYTES} bytes`, size, start);
  }

  isNil() {
    return this.bytes[this.at] === NIL && this.expect("nil") === null;
  }

  /** The text of an object of any kind: where JSON lacks it, or it has another encoding than the shortest, its bytes. */
  any(level = 1) {
    const { start, kind, value, isShortest } = this.token();
    if (level > MOST_LEVELS && (kind === "array" || kind === "map")) this.fail(`at most ${MOST_LEVELS} levels`, "more", start);
    let text = null;
    if (kind === "array") {
      const items = [];
      while (items.length < value) items.push(this.any(level + 1));
      text = ["[", joined(items), "]"];
    } else if (kind === "map") {
      const members = new Map();
      for (let left = value; left > 0; left--) members.set(this.any(level + 1), this.any(level + 1));
      const isPlain = [...members.keys()].every((key) => typeof key === "string" && /^"[^$]/.test(key)); // the text of a string
      if (isPlain && members.size === value) text = ["{", joined([...members].map(([key, member]) => [key, ": ", member])), "}"];
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
  const size = cursor.at - start;
  if (size > MOST_ATTRIBUTE_BYTES) cursor.fail(`at most ${MOST_ATTRIBUTE_BYTES} bytes of attributes`, size, start);
  const again = new Cursor(cursor.bytes.subarray(start, cursor.at), start);
  const count = again.expect("map", "a map of attributes");
  if (!again.isPrescribed) again.fail("a map in the shortest form", "another", 0);
  for (const keys = new Set(); keys.size < count; again.any()) {
    const keyAt = again.at;
    const key = again.string("the key of an attribute");
    if (keys.has(key)) again.fail("each attribute once", `${quote(key)} again`, keyAt);
    keys.add(key);
  }
  return text;
}

function readFixed(cursor, first, what) {
  if (cursor.bytes[cursor.at] !== first) cursor.fail(`${what}, which begins with 0x${first.toString(16)}`, "another byte");
  return cursor.expect("integer", what);
}

/** All heads of a file in turn, checksums checked: what they say, as a text too, and the fields of a frame. */
export function* heads(bytes) {
  const cursor = new Cursor(bytes);
  let frames = 0n;
  let start = 0;
  let checksums = 0; // the checksum of those of header and frames

  const requireShortest = () => cursor.isPrescribed || cursor.fail("a head in the shortest form", "another", start);
  const readChecksum = (before = 0) => {
    const computed = crc32(bytes.subarray(start, cursor.at), before);
    const stored = Number(readFixed(cursor, 0xce, "a checksum"));
    checksums = crc32(bytes.subarray(cursor.at - 4, cursor.at), checksums);
    return { stored, computed };
  };
  const finish = (items, { stored, computed }, head) => {
    if (stored !== computed) cursor.fail(`the checksum ${stored}`, `${computed} (damaged)`, start);
    return { ...head, start, text: ["[", joined([...items, stored].map((each) => (typeof each === "object" ? each : String(each)))), "]\n"] };
  };

  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) cursor.fail('a snapshot, which begins with "tagged-vmstate"', "other bytes");
  cursor.at = MAGIC.length;
  const version = cursor.expect("integer", "a version");
  if (version < 1n || !cursor.isPrescribed) cursor.fail("a version of 1 or more in the shortest form", version, MAGIC.length);
  const attributes = readAttributes(cursor);
  yield finish([quote("tagged-vmstate"), version, attributes], readChecksum(), { kind: "header", version, attributes });

  for (; ; frames++) {
    start = cursor.at;
    cursor.isPrescribed = true;
    const count = cursor.expect("array", "a frame, or the end");
    const kind = cursor.name("the kind of a frame, or the end");
    if (kind === "end") {
      if (version === 1n ? count !== 3 : count < 3) cursor.fail("the end as an array of 3", count, start);
      const total = cursor.expect("integer", "the number of frames");
      requireShortest();
      const moreAt = cursor.at;
      const more = []; // what a later version has
      while (more.length < count - 3) more.push(cursor.any());
      const size = cursor.at - moreAt;
      if (size > MOST_ATTRIBUTE_BYTES) cursor.fail(`at most ${MOST_ATTRIBUTE_BYTES} bytes of items`, size, moreAt);
      if (total !== frames) cursor.fail(`${total} frames ahead of the end`, frames, start);
      const end = finish([quote(kind), total, ...more], readChecksum(checksums), { kind });
      if (cursor.at < bytes.length) cursor.fail("nothing after the end", "more bytes");
      return yield end;
    }
    if (count !== 6) cursor.fail("a frame as an array of 6", count, start);
    if (version === 1n && kind !== "section" && kind !== "part") cursor.fail("`section` or `part`", kind, start + 1);
    const device = cursor.name("the name of a device");
    const instanceAt = cursor.at;
    const instance = cursor.expect("integer", "an instance");
    if (BigInt.asUintN(32, instance) !== instance) cursor.fail("an instance of 0 to 2**32-1", instance, instanceAt);
    requireShortest();
    const attributes = readAttributes(cursor);
    const sizeAt = cursor.at;
    const size = readFixed(cursor, 0xcf, "a size");
    if (size > MOST_FRAME_BYTES) cursor.fail(`at most ${MOST_FRAME_BYTES} bytes of fields`, size, sizeAt);
    const { stored, computed } = readChecksum();
    const fields = new Cursor(cursor.take(Number(size)), cursor.at - Number(size));
    const checksum = { stored, computed: crc32(fields.bytes, computed) };
    const items = [quote(kind), quote(device), instance, attributes, size];
    yield finish(items, checksum, { kind, device, instance, attributes, fields });
  }
}

// Fields. What reads a value returns its text.

function readNumber(cursor, type) {
  const { first, size, wrap, isFloat } = NUMBERS.get(type);
  const token = cursor.token();
  const refuse = (found) => cursor.fail(type, found, token.start);
  cursor.isPrescribed &&= token.first === first;
  if (token.kind !== "integer" && !(isFloat && token.kind === "float")) refuse(token.kind);
  if (!isFloat) return String(wrap(8 * size, token.value) === token.value ? token.value : refuse(token.value));
  let bits = token.first === 0xca ? widened(token.value) : token.value;
  if (token.kind === "integer") bits = toBits(Number(bits), 8);
  if (token.kind === "integer" && BigInt(Number(token.value)) !== token.value) refuse(`${token.value}, which takes more bits`);
  if (size === 8) return floatText(bits, 8);
  if (widened(narrowed(bits)) !== bits) refuse("a float that takes more bits");
  return floatText(narrowed(bits), 4);
}

function readNumbers(cursor, type, length) {
  const { size, get, isFloat } = NUMBERS.get(type);
  const bytes = readBytes(cursor, type, length * BigInt(size));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const toText = isFloat ? (at) => floatText(BigInt(view[get](at, true)), size) : (at) => String(view[get](at, true));
  return ["[", elements(bytes, size, toText), "]"];
}

function readBytes(cursor, type, size) {
  const start = cursor.at;
  const bytes = cursor.expect("bin", type);
  return BigInt(bytes.length) === size ? bytes : cursor.fail(`${size} bytes of ${type}`, bytes.length, start);
}

function readBools(cursor, length) {
  const bytes = readBytes(cursor, "bool", length);
  if (!bytes.every((byte) => byte < 2)) cursor.fail("bytes 0 and 1 of bool", "another", cursor.at - bytes.length);
  return ["[", elements(bytes, 1, (at) => String(bytes[at] === 1)), "]"];
}

function readBitmap(cursor, length) {
  const bytes = readBytes(cursor, "bitmap", (length + 7n) / 8n);
  const isSpareSet = length % 8n > 0n && bytes.at(-1) >> Number(length % 8n) > 0;
  return isSpareSet ? cursor.fail("spare bits 0 in bitmap", "1", cursor.at - 1) : ['"', hex(bytes, " "), '"'];
}

function readArray(cursor, type, length, readOne) {
  const start = cursor.at;
  const count = cursor.expect("array", type);
  if (BigInt(count) !== length) cursor.fail(`${length} elements of ${type}`, count, start);
  const items = [];
  while (items.length < count) items.push(readOne());
  return ["[", joined(items), "]"];
}

function readRuns(cursor, length) {
  const start = cursor.at;
  const count = cursor.expect("array", "runs of sparse");
  if (count % 2) cursor.fail("offsets and bytes in turn", `${count} items`, start);
  const runs = [];
  for (let end = 0n; runs.length < count / 2; ) {
    const at = cursor.at;
    const offset = cursor.expect("integer", "the offset of a run");
    const bytes = cursor.expect("bin", "the bytes of a run");
    const isApart = offset >= end && bytes.length > 0;
    end = offset + BigInt(bytes.length);
    if (!isApart || end > length) cursor.fail(`runs that ascend within ${length} bytes`, `${bytes.length} at ${offset}`, at);
    runs.push([`"0x${offset.toString(16)}": "`, hex(bytes), '"']);
  }
  return ["{", joined(runs), "}"];
}

function readStruct(cursor, level, isDefault) {
  if (cursor.isNil()) return "null";
  const count = cursor.expect("array", "a struct");
  const fields = readFields(cursor, level + 1, isDefault, (found) => found < count);
  return ["[", joined(fields.map(({ text }) => text)), "]"];
}

function readValue(cursor, type, length, level, isDefault) {
  const isSingle = length === null;
  const readString = () => quote(cursor.string("a string"));
  const readOne = () => readStruct(cursor, level, isDefault);
  if (NUMBERS.has(type)) return isSingle ? readNumber(cursor, type) : readNumbers(cursor, type, length);
  if (type === "bool") return isSingle ? String(cursor.expect("bool", type)) : readBools(cursor, length);
  if (type === "buffer") return ['"', hex(readBytes(cursor, type, length), " "), '"'];
  if (type === "bitmap") return readBitmap(cursor, length);
  if (type === "sparse") return readRuns(cursor, length);
  if (type === "string") return isSingle ? readString() : readArray(cursor, type, length, readString);
  if (type !== "struct") return cursor.any();
  if (level > MOST_LEVELS) cursor.fail(`at most ${MOST_LEVELS} levels of structs`, "more");
  return isSingle ? readOne() : readArray(cursor, type, length, readOne);
}

function readField(cursor, level, isInDefault) {
  const start = cursor.at;
  if (level === 1) cursor.isPrescribed = true;
  if (cursor.expect("array", "a field") !== 5) cursor.fail("a field as an array of 5", "another", start);
  const name = cursor.name("the name of a field");
  const type = cursor.name("the type of a field");
  const lengthAt = cursor.at;
  const length = cursor.isNil() ? null : cursor.expect("integer", "a length, or nil");
  const isNeeded = type === "buffer" || type === "bitmap" || type === "sparse";
  if (length === null ? isNeeded : length < 0n) cursor.fail(`a length of ${type}`, length, lengthAt);
  const flagsAt = cursor.at;
  const flags = cursor.expect("integer", "flags");
  if (flags !== 0n && flags !== 1n) cursor.fail("flags of 0 or 1", flags, flagsAt);
  const isDefault = flags === 1n;
  if (isInDefault && !isDefault) cursor.fail("a field at its default, as its struct is", "one in use", start);
  const text = [`{"name": ${quote(name)}, "type": ${quote(type)}`];
  if (length !== null) text.push(`, "length": ${length}`);
  if (isDefault) text.push(', "is_default": true');
  text.push(', "value": ', readValue(cursor, type, length, level, isDefault));
  if (level === 1 && !cursor.isPrescribed) text.push(', "msgpack": "', hex(cursor.bytes.subarray(start, cursor.at)), '"');
  return { name, type, length, start, text: [...text, "}"] };
}

function readFields(cursor, level, isInDefault, isMore) {
  const fields = new Map();
  while (isMore(fields.size)) {
    const field = readField(cursor, level, isInDefault);
    if (fields.has(field.name)) cursor.fail("each name once", `${quote(field.name)} again`, field.start);
    fields.set(field.name, field);
  }
  return [...fields.values()];
}

// Files.

/** The JSON form of a file. */
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

/** The heads of a file, a line for each. */
export function list(bytes) {
  return [...heads(bytes)].map(({ text }) => text);
}

function main(path, toText) {
  let held = "";
  try {
    for (const string of strings(toText(readFileSync(path)))) {
      held += string;
      if (held.length < CHUNK) continue;
      process.stdout.write(held);
      held = "";
    }
    process.stdout.write(held);
  } catch (error) {
    if (!(error instanceof Malformed) && error.syscall === undefined) throw error;
    process.stderr.write(`${path}: ${error.message}\n`);
    process.exitCode = 1;
  }
}

if (process.argv[1]?.endsWith("reader.mjs")) {
  const [option, ...paths] = process.argv.slice(2);
  if (option === "--list" && paths.length === 1) main(paths[0], list);
  else if (option !== undefined && paths.length === 0) main(option, toJson);
  else {
    process.stderr.write("usage: node reader.mjs [--list] FILE\n");
    process.exitCode = 2;
  }
}
