// The routes of projects. A call waits for a key, for the connection, or for room at the server, and goes on by itself.

import { after } from '../cards/waiting.js';
import { currentKey, keyIsMissing, whenKey } from '../page/access.js';
import { whenBack } from '../page/connection.js';
import { hasWord, sentences, t } from '../page/words.js';
import { Failure } from '../photos/failure.js';
import { url } from '../server/address.js';
import { failureOf, post } from '../server/upload.js';

const MAX_ATTEMPTS = 6;
const KEY_PROBLEMS = ['unauthorized', 'forbidden', 'no-right'];
const BUSY = ['overloaded', 'rate-limited', 'model-unavailable', 'projects-unavailable'];
const NEVER = new AbortController().signal;
const PROJECTS = 'api/v1/projects';

// Return a project's address, or that of something in it: `rest` are names, which are quoted.
export function addressOf(name, ...rest) {
  return [PROJECTS, name, ...rest].map((part, at) => (at === 0 ? part : encodeURIComponent(part))).join('/');
}

export async function listProjects() {
  return (await call('GET', PROJECTS)).json();
}

// Send a request and return the response. `body` is a Blob, or becomes JSON. Throws a Failure that has a slug.
export function call(method, address, { body, signal, isLast = false } = {}) {
  return insist(() => ask(method, address, { body, signal, isLast }), signal);
}

// Send a photo, and return the answer.
export async function send(address, body, signal) {
  const { answer } = await insist(() => post(address, body, { key: currentKey(), signal }), signal);
  return answer;
}

// Send a form that changes something, and return the answer. `signal` ends the attempts, but not a request that is under
// way: nobody would know whether the server has taken it.
export async function sendWhole(address, body, signal) {
  const { answer } = await insist(() => post(address, body, { key: currentKey(), signal: NEVER }), signal);
  return answer;
}

// What went wrong, in two sentences of the page's language.
export function explain(error) {
  if (!(error instanceof Failure)) console.error(error);
  return explainSlug(error instanceof Failure ? error.slug : 'internal-error');
}

export function explainSlug(slug) {
  if (slug === 'not-found') return t('js.teach.not_found'); // a class or a photo
  if (slug === 'damaged-entry') return t('js.teach.damaged_entry'); // of an archive
  const known = hasWord(`problem.${slug}`) ? slug : 'internal-error';
  return sentences(`problem.${known}`, `advice.${known}`);
}

// `isLast` is a request that outlives the page.
async function ask(method, address, { body, signal, isLast }) {
  const key = currentKey();
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const isFile = body instanceof Blob;
  if (body) headers['Content-Type'] = isFile ? 'application/octet-stream' : 'application/json';
  const content = body && !isFile ? JSON.stringify(body) : body;
  const response = await fetchOnce(url(address), { method, headers, body: content, signal, keepalive: isLast });
  if (response.ok) return response;
  const retryAfter = response.headers.get('Retry-After');
  throw failureOf({ status: response.status, text: await response.text(), retryAfter, key });
}

async function fetchOnce(address, options) {
  try {
    return await fetch(address, { cache: 'no-store', ...options });
  } catch (error) {
    if (error instanceof TypeError) throw new Failure('gone');
    throw error;
  }
}

// All routes of projects may be asked again: what has been done already is not done twice.
async function insist(work, signal) {
  for (let attempt = 1; ; attempt += 1) {
    signal?.throwIfAborted();
    try {
      if (keyIsMissing()) throw new Failure('unauthorized');
      return await work();
    } catch (error) {
      const isOver = attempt === MAX_ATTEMPTS && !KEY_PROBLEMS.includes(error.slug);
      if (signal?.aborted || !(error instanceof Failure) || isOver) throw error;
      await passed(error, attempt);
    }
  }
}

// Resolves when it is worth another attempt; throws an error that would come again.
async function passed(error, attempt) {
  const { slug, key, retryAfterSeconds: seconds } = error;
  if (KEY_PROBLEMS.includes(slug)) await whenKey(slug, key);
  else if (slug === 'gone') await whenBack();
  else if (BUSY.includes(slug)) await after(seconds ?? attempt);
  else throw error;
}
