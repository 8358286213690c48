// One photo to the server and its answer back.

import { Failure } from '../photos/failure.js';
import { withModel } from './choice.js';
import { url } from './address.js';

const TIMEOUT_MS = 120_000;
// Three are shown and the others on request; a heat map comes with each.
const MAX_ANSWERS = 10;
const PROBLEM_TYPE = /\/problems\/([a-z-]+)$/;

// XMLHttpRequest, since fetch does not tell how much has been sent.
export function predict(blob, { key, signal, onProgress }) {
  const started = performance.now();
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('POST', url(withModel(`api/v1/predict?heatmap=1&top=${MAX_ANSWERS}`)));
    request.setRequestHeader('Content-Type', blob.type || 'application/octet-stream');
    if (key) request.setRequestHeader('Authorization', `Bearer ${key}`);
    request.timeout = TIMEOUT_MS;
    request.upload.onprogress = (event) => onProgress(event.loaded / Math.max(event.total, 1));
    request.upload.onload = () => onProgress(1);
    request.onerror = () => reject(new Failure('gone'));
    request.ontimeout = () => reject(new Failure('deadline-exceeded'));
    request.onabort = () => reject(new DOMException('Cancelled', 'AbortError'));
    request.onload = () => settle(request, { started, key, resolve, reject });
    signal.addEventListener('abort', () => request.abort(), { once: true });
    request.send(blob);
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
  const answer = parse(request.responseText);
  if (request.status === 200 && answer) {
    const elapsedMs = performance.now() - started;
    resolve({ answer, elapsedMs, timing: timing(request.getResponseHeader('Server-Timing')) });
    return;
  }
  const slug = PROBLEM_TYPE.exec(answer?.type ?? '')?.[1];
  const retryAfter = Number.parseInt(request.getResponseHeader('Retry-After') ?? '', 10);
  const retryAfterSeconds = Number.isNaN(retryAfter) ? null : retryAfter;
  reject(new Failure(slug ?? fallbackSlug(request.status), { retryAfterSeconds, key }));
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
