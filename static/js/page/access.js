// The key that the server may ask for: typed once, kept in this module's memory, gone with the page.

import { url } from '../server/address.js';
import { announce, byId, say, show, whileBusy } from './dom.js';
import { needsKey, sentences, t } from './words.js';

// What a bearer token may consist of; anything else is no key, and could not even be sent.
const TOKEN = /^[\w.~+/-]+=*$/;
const CHECK_TIMEOUT_MS = 30_000;

let key = '';
let waiting = [];

export function currentKey() {
  return key;
}

// Return whether a photo would be refused for lack of a key.
export function keyIsMissing() {
  return needsKey && !key;
}

// Resolves once there is a key other than `used`, with which the server answered `slug`.
export function whenKey(slug, used) {
  if (key && key !== used) return Promise.resolve();
  if (!isBeingEntered()) ask(used ? reason(slug) : undefined);
  return new Promise((resolve) => waiting.push(resolve));
}

export function listenForKey() {
  byId('access').addEventListener('submit', (event) => {
    event.preventDefault();
    check(byId('access-key').value.trim());
  });
  byId('access-forget').addEventListener('click', () => {
    ask();
    announce(t('js.key.forgotten'));
  });
}

// Return whether a key is being typed or a complaint is shown, which must stay.
function isBeingEntered() {
  const isStarted = byId('access-key').value || byId('access-error').textContent;
  return !byId('access').hidden && Boolean(isStarted);
}

// Show the field; `trouble()` says what was wrong before.
function ask(trouble) {
  key = '';
  const field = byId('access-key');
  show(byId('access-used'), false);
  show(byId('access'));
  complain(trouble);
  announce(trouble?.() ?? t('problem.unauthorized'));
  field.focus();
  field.select();
}

function complain(trouble) {
  say(byId('access-error'), trouble);
  byId('access-key').setAttribute('aria-invalid', String(Boolean(trouble)));
}

function check(typed) {
  return whileBusy(byId('access-use'), async (tell) => {
    tell(() => t('js.key.checking'));
    const trouble = await refusal(typed);
    if (trouble) ask(trouble);
    else use(typed);
  });
}

// Ask the server about a key. Resolves with a function that returns the complaint, or with null if the key is valid.
async function refusal(typed) {
  if (!TOKEN.test(typed)) return reason('unauthorized');
  try {
    const headers = { Authorization: `Bearer ${typed}` };
    const signal = AbortSignal.timeout(CHECK_TIMEOUT_MS);
    const { status } = await fetch(url('api/v1/model'), { headers, cache: 'no-store', signal });
    if (status === 401) return reason('unauthorized');
    if (status === 403) return reason('forbidden');
    return status === 429 ? () => sentences('problem.rate-limited', 'advice.rate-limited') : null;
  } catch (error) {
    console.info('The key could not be checked.', error);
    return () => t('js.key.gone');
  }
}

const REASONS = { forbidden: 'js.key.disabled', 'no-right': 'js.teach.no_right' };

function reason(slug) {
  return () => t(REASONS[slug] ?? 'js.key.unknown');
}

function use(typed) {
  key = typed;
  complain();
  byId('access-key').value = '';
  show(byId('access'), false);
  show(byId('access-used'));
  byId('file').focus(); // what comes next
  announce(t('js.key.accepted'));
  const resumed = waiting;
  waiting = [];
  for (const resume of resumed) resume();
}
