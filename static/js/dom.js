// Small helpers for elements; text is only ever set as text.

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

// Set an element's text, and show it only when there is some.
export function say(element, text) {
  element.textContent = text;
  show(element, Boolean(text));
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
