// Small helpers for elements; text is only ever set as text.

import { t } from './words.js';

export function byId(id) {
  return document.getElementById(id);
}

// Copy a template's one element and find its named parts.
export function build(templateId) {
  const element = byId(templateId).content.firstElementChild.cloneNode(true);
  const parts = {};
  for (const part of element.querySelectorAll('[data-part]')) parts[part.dataset.part] = part;
  return { element, parts };
}

export function show(element, visible = true) {
  element.hidden = !visible;
}

const writings = new WeakMap();

// Write what `text()` returns into an element, or into one of its attributes; again whenever the language changes.
export function write(element, text, attribute = '') {
  const ofElement = writings.get(element) ?? new Map();
  writings.set(element, ofElement.set(attribute, text));
  put(element, text(), attribute);
}

export function rewrite() {
  for (const element of document.body.querySelectorAll('*')) {
    writings.get(element)?.forEach((text, attribute) => put(element, text(), attribute));
  }
}

function put(element, text, attribute) {
  if (attribute) element.setAttribute(attribute, text);
  else element.textContent = text;
}

// Write a text, and show it only when there is some.
export function say(element, text = () => '') {
  write(element, text);
  show(element, Boolean(element.textContent));
}

// Have a button do one thing at a time; until `work(tell)` ends, `tell` may replace the button's own word.
export async function whileBusy(button, work) {
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true'); // `disabled` would lose the focus
  const label = button.firstElementChild;
  await work((text) => write(label, text));
  write(label, () => t(label.dataset.word));
  button.removeAttribute('aria-disabled');
}

let pending = [];

// Read text out through the live region; what comes in one moment is read together.
export function announce(text) {
  pending.push(text);
  if (pending.length > 1) return;
  setTimeout(() => {
    byId('live').textContent = pending.join(' ');
    pending = [];
  }, 150);
}
