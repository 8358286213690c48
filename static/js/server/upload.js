// One photo to the server and its answer back.

import { heatmap } from '../photos/facts.js';
import { Failure } from '../photos/failure.js';
import { withModel } from './choice.js';
import { url } from './address.js';

const TIMEOUT_MS = 120_000;
const PROBLEM_TYPE = /\/problems\/([a-z-]+)$/;

export function predict(blob, options) {
  return post(withModel(`api/v1/predict?heatmap=1&top=${heatmap.most}`), blob, options);
}

// Send a Blob, or a form, to an address of the API. XMLHttpRequest, since fetch does not tell how much has been sent.
export function post(path, body, { key, signal, onProgress = () => {} }) {
  const started = performance.now();
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('POST', url(path));
    const type = body.type || 'application/octet-stream';
    if (body instanceof Blob) request.setRequestHeader('Content-Type', type); // a form has one of its own
    if (key) request.setRequestHeader('Authorization', `Bearer ${key}`);
    request.timeout = TIMEOUT_MS;
    request.upload.onprogress = (event) => onProgress(event.loaded / Math.max(event.total, 1));
    request.upload.onload = () => onProgress(1);
    request.onerror = () => reject(new Failure('gone'));
    request.ontimeout = () => reject(new Failure('deadline-exceeded'));
    request.onabort = () => reject(new DOMException('Cancelled', 'AbortError'));
    request.onload = () => settle(request, { started, key, resolve, reject });
    signal.addEventListener('abort', () => request.abort(), { once: true });
    request.send(body);
  });
}

// Have the server draw a small picture of a photo that this browser cannot show. Throws where there is none.
export async function fetchThumbnail(blob, { key, signal }) {
  const headers = { 'Content-Type': blob.type.startsWith('image/') ? blob.type : 'application/octet-stream' };
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await fetch(url('api/v1/thumbnail?side=1024'), { method: 'POST', headers, body: blob, signal });
  if (!response.ok) throw new Error(`The server answers ${response.status}.`);
  return response.blob();
}

function settle(request, { started, key, resolve, reject }) {
  const { status, responseText: text } = request;
  const answer = status < 300 ? parse(text) : null;
  if (answer) {
    const elapsedMs = performance.now() - started;
    resolve({ answer, elapsedMs, timing: timing(request.getResponseHeader('Server-Timing')) });
  } else reject(failureOf({ status, text, retryAfter: request.getResponseHeader('Retry-After'), key }));
}

// Return why an answer is none: the problem that it names, or what its status says.
export function failureOf({ status, text, retryAfter, key }) {
  const slug = slugOf(parse(text));
  const seconds = Number.parseInt(retryAfter ?? '', 10);
  const retryAfterSeconds = Number.isNaN(seconds) ? null : seconds;
  return new Failure(slug ?? fallbackSlug(status), { retryAfterSeconds, key });
}

// Return the name of a problem that the server describes; undefined for anything else.
export function slugOf(problem) {
  return PROBLEM_TYPE.exec(problem?.type ?? '')?.[1];
}

// A proxy in front answers with pages of its own.
function fallbackSlug(status) {
  if (status === 413) return 'too-large';
  if (status === 429) return 'rate-limited';
  return [502, 503, 504].includes(status) ? 'gone' : 'internal-error';
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    console.warn('The answer is not JSON.', error);
    return null;
  }
}

// `decode;dur=2.1, infer;dur=9` becomes {decode: 2.1, infer: 9}; `cache` is 0 where the answer was known already.
export function timing(header) {
  const found = {};
  for (const [, name, duration] of (header ?? '').matchAll(/([\w-]+)[^,]*?;\s*dur=([\d.]+)/g)) {
    found[name] = Number(duration);
  }
  if (/\bcache;\s*desc="?(hit|shared)/.test(header ?? '')) found.cache = 0;
  return found;
}
