// Reads many files with docs/reader.mjs in one process: each comes on standard input after its size (4 bytes, big-endian).
// A line for each: the SHA-256 of its JSON form, or "refused".

import { createHash } from "node:crypto";
import process from "node:process";

import { Malformed, strings, toJson } from "../docs/reader.mjs";

function answer(bytes) {
  const hash = createHash("sha256");
  try {
    for (const string of strings(toJson(bytes))) hash.update(string);
  } catch (error) {
    if (error instanceof Malformed) return "refused";
    throw error;
  }
  return hash.digest("hex");
}

let held = Buffer.alloc(0);
for await (const chunk of process.stdin) {
  held = Buffer.concat([held, chunk]);
  let at = 0;
  let answers = "";
  while (held.length - at >= 4 && held.length - at - 4 >= held.readUInt32BE(at)) {
    const size = held.readUInt32BE(at);
    answers += `${answer(held.subarray(at + 4, at + 4 + size))}\n`;
    at += 4 + size;
  }
  held = held.subarray(at);
  process.stdout.write(answers);
}
