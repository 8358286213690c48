// Whether the server can be reached and its model is loaded: notices, and promises that wait.

import { url } from '../server/address.js';
import { announce, byId, say } from './dom.js';
import { startsReady, t } from './words.js';

const FIRST_PAUSE_MS = 1000;
const MAX_PAUSE_MS = 10_000;
const PROBE_TIMEOUT_MS = 5000;
// A proxy answers with these while it cannot reach the server.
const GATEWAY_ERRORS = [502, 503, 504];

let isLost = false;
let isReady = startsReady;
const waiting = [];

export function modelIsReady() {
  return isReady;
}

// Resolves once the server answers again.
export function whenBack() {
  const back = new Promise((resolve) => waiting.push(resolve));
  lose();
  return back;
}

// Fetch, again and again until there is an answer, which `read(response)` reads. Throws if its status is not 2xx.
export async function fetchInTime(address, read, options = {}) {
  for (;;) {
    try {
      const response = await fetch(address, options);
      if (response.ok) return await read(response);
      if (!GATEWAY_ERRORS.includes(response.status)) throw new RangeError(`${address} answers ${response.status}.`);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      console.info(`${address} could not be fetched.`, error); // the connection failed
    }
    await whenBack();
  }
}

export function watch() {
  addEventListener('offline', loseOnceSilent);
  if (!navigator.onLine) loseOnceSilent();
  if (!isReady) pollReadiness();
}

// A near server may answer although the browser is offline, and one answer may come while a network goes down.
async function loseOnceSilent() {
  for (let wait = FIRST_PAUSE_MS; !navigator.onLine; wait = longer(wait)) {
    if (!(await answers('healthz'))) return lose();
    await pause(wait);
  }
}

async function lose() {
  if (isLost) return;
  isLost = true;
  announce(tell());
  await pause(FIRST_PAUSE_MS);
  await untilAnswered('healthz', tell);
  isLost = false;
  say(byId('connection'));
  announce(t('js.back'));
  for (const resume of waiting.splice(0)) resume();
}

function tell() {
  const text = () => t(navigator.onLine ? 'js.gone' : 'js.offline');
  if (byId('connection').textContent !== text()) say(byId('connection'), text);
  return text();
}

async function pollReadiness() {
  await untilAnswered('readyz', () => {});
  readinessKnown();
}

// After any answer: a model that answers is loaded.
export function readinessKnown() {
  if (isReady) return;
  isReady = true;
  byId('loading')?.remove();
  announce(t('js.ready'));
}

async function untilAnswered(path, beforeEach) {
  for (let wait = FIRST_PAUSE_MS; ; wait = longer(wait)) {
    if (await answers(path)) return;
    beforeEach();
    await pause(wait);
  }
}

function longer(wait) {
  return Math.min(wait * 1.5, MAX_PAUSE_MS);
}

async function answers(path) {
  try {
    const response = await fetch(url(path), { cache: 'no-store', signal: AbortSignal.timeout(PROBE_TIMEOUT_MS) });
    return response.ok;
  } catch (error) {
    if (error instanceof TypeError || error.name === 'TimeoutError') return false; // no connection
    throw error;
  }
}

// Ends early when the browser is online again.
function pause(milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    addEventListener('online', done);
    function done() {
      clearTimeout(timer);
      removeEventListener('online', done);
      resolve();
    }
  });
}
