// The photos in ZIP archives, unpacked here: so their folders become classes, and they are made small as all others.
// https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT describes the format; the sections are named below.

import { isPhoto, setPath } from '../later/folders.js';
import { complain } from '../page/message.js';
import { suffixes } from '../photos/facts.js';
import { explainSlug } from './api.js';

const NAME = /\.zip$/i;
const END = 0x06054b50; // 4.3.16, the end of the central directory
const END_BYTES = 22;
const MAX_COMMENT_BYTES = 65_535;
const ENTRY = 0x02014b50; // 4.3.12, a file in the central directory
const LOCAL_BYTES = 30; // 4.3.7, without its name and its extra field
const STORED = 0;
const DEFLATED = 8;
const ENCRYPTED = 1;
const MAX_PHOTO_BYTES = 256 * 1024 * 1024;

// Return the files, with those in archives in the place of the archives. Says which archives cannot be read.
export async function unpacked(files) {
  const found = [];
  for (const file of files) found.push(...(NAME.test(file.name) ? await open(file) : [file]));
  return found;
}

async function open(archive) {
  try {
    const entries = await list(archive);
    if (entries.length === 0) throw new RangeError('There are no photos in it.');
    return await Promise.all(entries.map((entry) => read(archive, entry)));
  } catch (error) {
    console.info(`${archive.name} cannot be unpacked.`, error);
    complain(() => `${archive.name}: ${explainSlug('unreadable-archive')}`);
    return [];
  }
}

async function list(archive) {
  const tail = await viewOf(archive, Math.max(0, archive.size - END_BYTES - MAX_COMMENT_BYTES), archive.size);
  let end = tail.byteLength - END_BYTES;
  while (tail.getUint32(end, true) !== END) end -= 1; // a RangeError where there is none
  const [size, start] = [tail.getUint32(end + 12, true), tail.getUint32(end + 16, true)];
  const directory = await viewOf(archive, start, start + size);
  const entries = [];
  for (let at = 0; at < size && directory.getUint32(at, true) === ENTRY;) {
    const entry = entryAt(directory, at);
    at = entry.next;
    if (isPhoto(entry.path, suffixes)) entries.push(entry);
  }
  return entries;
}

function entryAt(view, at) {
  const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((place) => view.getUint16(at + place, true));
  return {
    flags: view.getUint16(at + 8, true),
    method: view.getUint16(at + 10, true),
    packedBytes: view.getUint32(at + 20, true),
    bytes: view.getUint32(at + 24, true),
    start: view.getUint32(at + 42, true),
    path: new TextDecoder().decode(new Uint8Array(view.buffer, at + 46, nameBytes)),
    next: at + 46 + nameBytes + extraBytes + commentBytes,
  };
}

function nameIn(path) {
  return path.split('/').at(-1);
}

async function read(archive, { flags, method, packedBytes, bytes, start, path }) {
  if (flags & ENCRYPTED || ![STORED, DEFLATED].includes(method) || bytes > MAX_PHOTO_BYTES) {
    throw new RangeError(`${path} is packed in an unusual way.`);
  }
  const local = await viewOf(archive, start, start + LOCAL_BYTES);
  const from = start + LOCAL_BYTES + local.getUint16(26, true) + local.getUint16(28, true);
  const packed = archive.slice(from, from + packedBytes);
  const photo = new File([method === STORED ? packed : await inflated(packed, bytes)], nameIn(path));
  return setPath(photo, path);
}

// Return the unpacked bytes, and no more than were promised: an archive may be made to unpack without an end.
async function inflated(packed, bytes) {
  const parts = [];
  let left = bytes;
  const reader = packed.stream().pipeThrough(new DecompressionStream('deflate-raw')).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return new Blob(parts);
    left -= value.length;
    if (left < 0) throw new RangeError('It is larger than its archive says.');
    parts.push(value);
  }
}

async function viewOf(archive, from, to) {
  return new DataView(await archive.slice(from, to).arrayBuffer());
}
