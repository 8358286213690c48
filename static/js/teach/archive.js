// The photos in ZIP archives, unpacked here: so their folders become classes, and they are made small as all others.
// https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT describes the format; the sections are named below.

import { isPhoto, setPath } from '../later/folders.js';
import { complain } from '../page/message.js';
import { t } from '../page/words.js';
import { suffixes } from '../photos/facts.js';
import { Failure } from '../photos/failure.js';
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
// https://www.rfc-editor.org/rfc/rfc1952, 2.3: nothing but the method, which is deflate.
const GZIP_HEAD = Uint8Array.of(0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff);
const MAX_BLOCK_BYTES = 65_535; // https://www.rfc-editor.org/rfc/rfc1951, 3.2.4
const failures = new WeakMap();

// Return the files, with those in archives in the place of the archives. Says which archives cannot be read. An entry
// that cannot be unpacked is an empty file, which `requireUnpacked` refuses.
export async function unpacked(files) {
  const [found, unreadable] = [[], []];
  for (const file of files) {
    const photos = NAME.test(file.name) ? await open(file) : [file];
    found.push(...photos);
    if (photos.length === 0) unreadable.push(file.name);
  }
  const names = () => unreadable.join(t('js.teach.comma'));
  if (unreadable.length > 0) complain(() => t('js.teach.refused_one', { file: names(), reason: explainSlug('unreadable-archive') }));
  return found;
}

// Throw the reason if a file stands for an entry that could not be unpacked.
export function requireUnpacked(file) {
  if (failures.has(file)) throw failures.get(file);
}

// Return an archive's photos; none if not even one of them can be unpacked.
async function open(archive) {
  try {
    const entries = await list(archive);
    const photos = await Promise.all(entries.map((entry) => readOrMark(archive, entry)));
    return photos.every((photo) => failures.has(photo)) ? [] : photos;
  } catch (error) {
    console.info(`${archive.name} cannot be unpacked.`, error);
    return [];
  }
}

async function readOrMark(archive, entry) {
  try {
    return await read(archive, entry);
  } catch (error) {
    console.info(`${entry.path} cannot be unpacked.`, error);
    const empty = setPath(new File([], nameIn(entry.path)), entry.path);
    failures.set(empty, error instanceof Failure ? error : new Failure('damaged-entry'));
    return empty;
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
    crc: view.getUint32(at + 16, true),
    packedBytes: view.getUint32(at + 20, true),
    bytes: view.getUint32(at + 24, true),
    start: view.getUint32(at + 42, true),
    path: nameOf(new Uint8Array(view.buffer, at + 46, nameBytes)),
    next: at + 46 + nameBytes + extraBytes + commentBytes,
  };
}

// Programs of Chinese systems write names as GB 18030, without a sign of it; it is hardly ever valid UTF-8. Some write a
// backslash between folders.
function nameOf(bytes) {
  let name = '';
  try {
    name = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    name = new TextDecoder('gb18030').decode(bytes);
  }
  return name.replaceAll('\\', '/');
}

function nameIn(path) {
  return path.split('/').at(-1);
}

async function read(archive, entry) {
  const { flags, method, packedBytes, bytes, start, path } = entry;
  if (bytes > MAX_PHOTO_BYTES) throw new Failure('too-large');
  if (flags & ENCRYPTED || ![STORED, DEFLATED].includes(method)) throw new RangeError('It is packed in an unusual way.');
  const local = await viewOf(archive, start, start + LOCAL_BYTES);
  const from = start + LOCAL_BYTES + local.getUint16(26, true) + local.getUint16(28, true);
  const photo = new File([await inflated(asGzip(archive.slice(from, from + packedBytes), entry), bytes)], nameIn(path));
  return setPath(photo, path);
}

// Wrap what an entry holds: of gzip the browser checks the CRC-32, which is the same in a ZIP.
function asGzip(packed, { method, crc, bytes }) {
  const tail = new DataView(new ArrayBuffer(8));
  tail.setUint32(0, crc, true);
  tail.setUint32(4, bytes, true);
  return new Blob([GZIP_HEAD, ...(method === STORED ? asBlocks(packed) : [packed]), tail]);
}

// Return the parts of a deflate stream whose blocks hold bytes as they are.
function asBlocks(packed) {
  const parts = [];
  for (let at = 0; at === 0 || at < packed.size; at += MAX_BLOCK_BYTES) {
    const part = packed.slice(at, at + MAX_BLOCK_BYTES);
    const head = new DataView(new ArrayBuffer(5));
    head.setUint8(0, at + MAX_BLOCK_BYTES < packed.size ? 0 : 1); // of the last block
    head.setUint16(1, part.size, true);
    head.setUint16(3, ~part.size, true);
    parts.push(head, part);
  }
  return parts;
}

// Return the unpacked bytes, and no more than were promised: an archive may be made to unpack without an end.
async function inflated(packed, bytes) {
  const parts = [];
  let left = bytes;
  const reader = packed.stream().pipeThrough(new DecompressionStream('gzip')).getReader();
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
