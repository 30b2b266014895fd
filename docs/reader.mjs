#!/usr/bin/env node
// A strict reader of snapshots, written from format.md: node 20 or newer, no library.
//
//   node reader.mjs FILE          check a file, print its JSON form
//   node reader.mjs --list FILE   print the heads of a file of this or any later version of the format
//
// A malformed file: one line on stderr, nothing on stdout, exit status 1.
//
// A text here is a string or an iterable of texts: many bytes become hex only when they are printed.

import { readFileSync } from "node:fs";
import process from "node:process";

const MAGIC = Buffer.from("\x94\xaetagged-vmstate", "latin1");
const MOST_LEVELS = 64;
const MOST_NAME_BYTES = 255;
const MOST_ATTRIBUTE_BYTES = 1 << 20;
const MOST_FRAME_BYTES = 1n << 32n;
const CHUNK = 1 << 14; // bytes or numbers that are printed at once
const NIL = 0xc0;

export class Malformed extends Error {}

const CRC_TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = (byte >>> 1) ^ (byte & 1 ? 0xedb88320 : 0);
  return byte;
});

export function crc32(bytes, before = 0) {
  let crc = ~before;
  for (let at = 0; at < bytes.length; at++) crc = CRC_TABLE[(crc ^ bytes[at]) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

// Numbers: the first byte of one, its size, what reads it. A float is read as its bits, because a NaN has to keep them.

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
const scratch = new DataView(new ArrayBuffer(8));

function toBits(number, size) {
  if (size === 4) scratch.setFloat32(0, number);
  else scratch.setFloat64(0, number);
  return size === 4 ? BigInt(scratch.getUint32(0)) : scratch.getBigUint64(0);
}

function fromBits(bits, size) {
  if (size === 4) scratch.setUint32(0, Number(bits));
  else scratch.setBigUint64(0, bits);
  return size === 4 ? scratch.getFloat32(0) : scratch.getFloat64(0);
}

function widened(bits) {
  if (((bits >> 23n) & 0xffn) !== 0xffn) return toBits(fromBits(bits, 4), 8);
  return ((bits >> 31n) << 63n) | (0x7ffn << 52n) | ((bits & 0x7fffffn) << 29n);
}

function narrowed(bits) {
  if (((bits >> 52n) & 0x7ffn) !== 0x7ffn) return toBits(fromBits(bits, 8), 4);
  return ((bits >> 63n) << 31n) | (0xffn << 23n) | ((bits >> 29n) & 0x7fffffn);
}

// JSON.

const quote = JSON.stringify;

function* joined(texts, between = ", ") {
  let isFirst = true;
  for (const text of texts) {
    if (!isFirst) yield between;
    isFirst = false;
    yield text;
  }
}

function* hex(bytes, between = "") {
  for (let at = 0; at < bytes.length; at += CHUNK) {
    const digits = bytes.subarray(at, at + CHUNK).toString("hex");
    yield (at ? between : "") + (between ? digits.match(/../g).join(between) : digits);
  }
}

function* elements(bytes, size, toText) {
  for (let at = 0; at < bytes.length; at += size) yield (at ? ", " : "") + toText(at);
}

function floatText(bits, size) {
  const number = fromBits(bits, size);
  if (!Number.isFinite(number)) return `"${String(number).toLowerCase().slice(0, number < 0 ? 4 : 3)}:${bits.toString(16)}"`;
  const [digits, exponent] = number.toExponential().split("e");
  if (exponent < -4 || exponent > 15) return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
  const text = Object.is(number, -0) ? "-0" : String(number);
  return text.includes(".") ? text : `${text}.0`;
}

/** The strings that a text is made of. */
export function* strings(text) {
  if (typeof text === "string") yield text;
  else for (const part of text) yield* strings(part);
}

// MessagePack. A token is a scalar, a string, bytes, or the head of an array or map, whose items follow.

const SIZED = new Map([
  [0xc4, ["bin", 1]], [0xc5, ["bin", 2]], [0xc6, ["bin", 4]], [0xc7, ["ext", 1]], [0xc8, ["ext", 2]], [0xc9, ["ext", 4]],
  [0xd9, ["str", 1]], [0xda, ["str", 2]], [0xdb, ["str", 4]],
  [0xdc, ["array", 2]], [0xdd, ["array", 4]], [0xde, ["map", 2]], [0xdf, ["map", 4]],
]); // the first byte: what it begins, how many bytes its size has

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
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

class Cursor {
  at = 0;
  isPrescribed = true; // what was read since this was set: is it all encoded as the format prescribes?

  constructor(bytes, base = 0) {
    this.bytes = bytes;
    this.base = base; // the offset in the file
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  fail(expected, found, at = this.at) {
    throw new Malformed(`expected ${expected}, got ${found} - at byte ${this.base + at}`);
  }

  take(size) {
    const left = this.bytes.length - this.at;
    if (size > left) this.fail(`${size} bytes`, `only ${left} (truncated)`);
    this.at += size;
    return this.bytes.subarray(this.at - size, this.at);
  }

  token() {
    const start = this.at;
    const first = this.take(1)[0];
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
    return size >= 1 && size <= MOST_NAME_BYTES ? name : this.fail(`${what} of 1 to ${MOST_NAME_BYTES} bytes`, size, start);
  }

  /** The text of any object. What JSON cannot hold, or not in this encoding, becomes $msgpack, each value of its own. */
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
      const isPlain = members.size === value && [...members.keys()].every((key) => typeof key === "string" && /^"[^$]/.test(key));
      text = isPlain ? ["{", joined([...members].map(([key, item]) => [key, ": ", item])), "}"] : null;
    } else if (kind === "str") {
      const string = decoded(value);
      text = string === null ? null : quote(string);
    } else if (kind === "bin") text = ['{"$hex": "', hex(value, " "), '"}'];
    else if (kind === "float") text = Number.isFinite(fromBits(value, 8)) ? floatText(value, 8) : null;
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
    const key = again.string("the key of an attribute");
    if (keys.has(key)) again.fail("each attribute once", `${quote(key)} twice`, 0);
    keys.add(key);
  }
  return text;
}

function readFixed(cursor, first, what) {
  if (cursor.bytes[cursor.at] !== first) cursor.fail(`${what} (0x${first.toString(16)} and its bytes)`, "another byte");
  return cursor.expect("integer", what);
}

/** The checksum at the cursor, and what it should be where it covers the bytes from `start` on, after those of `before`. */
function readChecksum(cursor, start, before = 0) {
  const due = crc32(cursor.bytes.subarray(start, cursor.at), before);
  return { stored: Number(readFixed(cursor, 0xce, "a checksum")), due };
}

/** All heads of a file, their checksums checked, with their text; a frame with its payload. */
export function* heads(bytes) {
  const cursor = new Cursor(bytes);
  let checksums = 0; // over the four bytes of each
  let frames = 0n;
  const finished = (start, items, { stored, due }, more) => {
    if (stored !== due) cursor.fail(`the checksum ${stored}`, `${due} (damaged)`, start);
    return { start, text: ["[", joined([...items, String(stored)]), "]\n"], ...more };
  };
  const requireShortest = (start) => cursor.isPrescribed || cursor.fail("a head in the shortest form", "another", start);
  const ownBytes = () => crc32(bytes.subarray(cursor.at - 4, cursor.at), checksums);

  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) cursor.fail('a snapshot, which begins with "tagged-vmstate"', "other bytes");
  cursor.at = MAGIC.length;
  const version = cursor.expect("integer", "a version");
  if (version < 1n) cursor.fail("a version of 1 or more", version, MAGIC.length);
  requireShortest(MAGIC.length);
  const attributes = readAttributes(cursor);
  const checksum = readChecksum(cursor, 0);
  checksums = ownBytes();
  yield finished(0, ['"tagged-vmstate"', String(version), attributes], checksum, { kind: "header", version, attributes });

  for (; ; frames++) {
    const start = cursor.at;
    cursor.isPrescribed = true;
    const count = cursor.expect("array", "a frame, or the end");
    const kind = cursor.name("a kind");
    if (kind === "end") {
      if (count < 3 || (count > 3 && version === 1n)) cursor.fail("the end as an array of 3", count, start);
      const total = cursor.expect("integer", "the number of frames");
      requireShortest(start);
      const at = cursor.at;
      const more = Array.from({ length: count - 3 }, () => cursor.any());
      if (cursor.at - at > MOST_ATTRIBUTE_BYTES) cursor.fail(`at most ${MOST_ATTRIBUTE_BYTES} bytes of items`, cursor.at - at, at);
      const checksum = readChecksum(cursor, start, checksums);
      if (total !== frames) cursor.fail(`${total} frames ahead of the end`, frames, start);
      if (cursor.at < bytes.length) cursor.fail("nothing after the end", "more bytes");
      yield finished(start, ['"end"', String(total), ...more], checksum, { kind });
      return;
    }
    if (count !== 6) cursor.fail("a frame as an array of 6", count, start);
    if (version === 1n && kind !== "section" && kind !== "part") cursor.fail("`section` or `part`", kind, start + 1);
    const device = cursor.name("the name of a device");
    const at = cursor.at;
    const instance = cursor.expect("integer", "an instance");
    if (BigInt.asUintN(32, instance) !== instance) cursor.fail("an instance of 0 to 2**32-1", instance, at);
    requireShortest(start);
    const attributes = readAttributes(cursor);
    const size = readFixed(cursor, 0xcf, "a size");
    if (size > MOST_FRAME_BYTES) cursor.fail(`at most ${MOST_FRAME_BYTES} bytes of fields`, size, cursor.at - 9);
    const { stored, due } = readChecksum(cursor, start);
    checksums = ownBytes();
    const fields = new Cursor(cursor.take(Number(size)), cursor.at - Number(size));
    const items = [quote(kind), quote(device), String(instance), attributes, String(size)];
    yield finished(start, items, { stored, due: crc32(fields.bytes, due) }, { kind, device, instance, attributes, fields });
  }
}

// Fields.

function readNumber(cursor, type) {
  const { first, size, wrap, isFloat } = NUMBERS.get(type);
  const token = cursor.token();
  const refuse = (found) => cursor.fail(type, found, token.start);
  if (token.kind !== "integer" && !(isFloat && token.kind === "float")) refuse(token.kind);
  cursor.isPrescribed &&= token.first === first;
  if (!isFloat) return String(wrap(8 * size, token.value) === token.value ? token.value : refuse(token.value));
  let bits = token.first === 0xca ? widened(token.value) : token.value;
  if (token.kind === "integer") bits = BigInt(Number(token.value)) === token.value ? toBits(Number(token.value), 8) : refuse(token.value);
  if (size === 4) bits = widened(narrowed(bits)) === bits ? narrowed(bits) : refuse("what takes 64 bits");
  return floatText(bits, size);
}

function readNumbers(cursor, type, length) {
  const { size, get, isFloat } = NUMBERS.get(type);
  const bytes = readBytes(cursor, type, length * BigInt(size));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return ["[", elements(bytes, size, (at) => (isFloat ? floatText(BigInt(view[get](at, true)), size) : String(view[get](at, true)))), "]"];
}

function readBytes(cursor, type, size) {
  const start = cursor.at;
  const bytes = cursor.expect("bin", type);
  return BigInt(bytes.length) === size ? bytes : cursor.fail(`${size} bytes for ${type}`, bytes.length, start);
}

function readBools(cursor, length) {
  const bytes = readBytes(cursor, "bool", length);
  if (!bytes.every((byte) => byte < 2)) cursor.fail("bytes 0 and 1 for bool", "others", cursor.at - bytes.length);
  return ["[", elements(bytes, 1, (at) => String(bytes[at] === 1)), "]"];
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
  const items = [];
  while (items.length < count) items.push(readOne());
  return ["[", joined(items), "]"];
}

function readRuns(cursor, length) {
  const start = cursor.at;
  const count = cursor.expect("array", "runs of sparse bytes");
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
  if (cursor.bytes[cursor.at] === NIL) return String(cursor.expect("nil"));
  const count = cursor.expect("array", "a struct");
  const fields = readFields(cursor, level + 1, isDefault, (found) => found < count);
  return ["[", joined(fields.map(({ text }) => text)), "]"];
}

function readValue(cursor, type, length, level, isDefault) {
  const isSingle = length === null;
  if (NUMBERS.has(type)) return isSingle ? readNumber(cursor, type) : readNumbers(cursor, type, length);
  const readString = () => quote(cursor.string("a string"));
  const readOne = () => readStruct(cursor, level, isDefault);
  switch (type) {
    case "bool":
      return isSingle ? String(cursor.expect("bool", type)) : readBools(cursor, length);
    case "buffer":
      return ['"', hex(readBytes(cursor, type, length), " "), '"'];
    case "bitmap":
      return ['"', hex(readBitmap(cursor, length), " "), '"'];
    case "sparse":
      return readRuns(cursor, length);
    case "string":
      return isSingle ? readString() : readArray(cursor, type, length, readString);
    case "struct":
      if (level > MOST_LEVELS) cursor.fail(`at most ${MOST_LEVELS} levels of structs`, "more");
      return isSingle ? readOne() : readArray(cursor, type, length, readOne);
    default:
      return cursor.any();
  }
}

function readField(cursor, level, inDefault) {
  const start = cursor.at;
  if (level === 1) cursor.isPrescribed = true;
  if (cursor.expect("array", "a field") !== 5) cursor.fail("a field as an array of 5", "another", start);
  const name = cursor.name("the name of a field");
  const type = cursor.name("the type of a field");
  const lengthAt = cursor.at;
  const length = cursor.bytes[lengthAt] === NIL ? cursor.expect("nil") : cursor.expect("integer", "a length, or nil");
  const isNeeded = type === "buffer" || type === "bitmap" || type === "sparse";
  if (length === null ? isNeeded : length < 0n) cursor.fail(`a length of ${type}`, length, lengthAt);
  const flagsAt = cursor.at;
  const flags = cursor.expect("integer", "flags");
  if (flags !== 0n && flags !== 1n) cursor.fail("flags of 0 or 1", flags, flagsAt);
  const isDefault = flags === 1n;
  if (inDefault && !isDefault) cursor.fail("a field at its default, as its struct is", "one that is not", start);
  const value = readValue(cursor, type, length, level, isDefault);
  const text = [`{"name": ${quote(name)}, "type": ${quote(type)}, `];
  if (length !== null) text.push(`"length": ${length}, `);
  if (isDefault) text.push('"is_default": true, ');
  text.push('"value": ', value);
  if (level === 1 && !cursor.isPrescribed) text.push(', "msgpack": "', hex(cursor.bytes.subarray(start, cursor.at)), '"');
  return { name, type, length, start, text: [...text, "}"] };
}

function readFields(cursor, level, inDefault, isMore) {
  const fields = [];
  const names = new Set();
  while (isMore(fields.length)) {
    const field = readField(cursor, level, inDefault);
    if (names.has(field.name)) cursor.fail("each name once", `${quote(field.name)} twice`, field.start);
    names.add(field.name);
    fields.push(field);
  }
  return fields;
}

/** The JSON form of a file as a text. */
export function toJson(bytes) {
  const sections = new Map();
  const frames = [];
  let before;
  for (const { start, kind, version, device, instance, attributes, fields: cursor } of heads(bytes)) {
    if (kind === "header") {
      if (version > 1n) throw new Malformed(`expected version 1, got ${version}: a later build reads it - at byte ${MAGIC.length}`);
      before = ['{"format": "tagged-vmstate", "version": 1, "attributes": ', attributes, ',\n"sections": ['];
      continue;
    }
    if (kind === "end") break;
    const key = `${instance} ${device}`;
    if (!sections.has(key)) sections.set(key, { start, fields: new Map() });
    const section = sections.get(key);
    if (section.isComplete) throw new Malformed(`expected each section once, got another frame of ${device} - at byte ${start}`);
    section.isComplete = kind === "section";
    const fields = readFields(cursor, 1, false, () => cursor.at < cursor.bytes.length);
    for (const { name, type, length, start } of fields) {
      const known = section.fields.get(name);
      const isAgain = type === "sparse" && known?.type === type && known.length === length;
      if (known && !isAgain) cursor.fail("each name once over all parts, or sparse of one length", `${quote(name)} again`, start);
      section.fields.set(name, { type, length });
    }
    const head = `{${kind === "part" ? '"kind": "part", ' : ""}"device": ${quote(device)}, "instance": ${instance}, "attributes": `;
    frames.push(["\n", head, attributes, ', "fields": [', joined(fields.map(({ text }) => ["\n ", text]), ","), "]}"]);
  }
  for (const { isComplete, start } of sections.values())
    if (!isComplete) throw new Malformed(`expected the last part of a section, got only earlier ones - at byte ${start}`);
  return [before, joined(frames, ","), "\n]}\n"];
}

/** The heads of a file as a text. */
export function list(bytes) {
  return [...heads(bytes)].map(({ text }) => text);
}

function main(path, show) {
  let text;
  try {
    text = show(readFileSync(path));
  } catch (error) {
    if (!(error instanceof Malformed) && !error.syscall) throw error;
    process.stderr.write(`${path}: ${error.message}\n`);
    process.exitCode = 1;
    return;
  }
  let held = "";
  for (const string of strings(text)) {
    held += string;
    if (held.length >= CHUNK) held = void process.stdout.write(held) ?? "";
  }
  process.stdout.write(held);
}

if (process.argv[1]?.endsWith("reader.mjs")) {
  const paths = process.argv.slice(2);
  const isList = paths[0] === "--list";
  if (paths.length !== (isList ? 2 : 1)) {
    process.stderr.write("usage: node reader.mjs [--list] FILE\n");
    process.exitCode = 2;
  } else main(paths.at(-1), isList ? list : toJson);
}
