// The page's words, in its language, and what the server tells its script.

const page = document.getElementById('page').dataset;
let words = JSON.parse(page.words);

// Of each format its name, the pattern of its first bytes, and its type.
export const formats = JSON.parse(page.formats);
export const headBytes = Number(page.headBytes);
export const limitBytes = Number(page.limitBytes);
export const unsureBelow = Number(page.unsureBelow);
export const closeWithin = Number(page.closeWithin);
export const needsKey = page.needsKey === 'true';
export const startsReady = page.ready === 'true';

export function isChinese() {
  return document.documentElement.lang.startsWith('zh');
}

// Take the words of the same page in another language, which may come from a newer server.
export function learn({ words: others }) {
  words = { ...words, ...JSON.parse(others) };
}

export function t(key, values = {}) {
  const all = { limit: page.limit, ...values };
  return words[key].replace(/\{(\w+)\}/g, (_, name) => String(all[name]));
}

// Texts one after the other, as its language writes them.
export function sentences(...keys) {
  return keys.map((key) => t(key)).join(isChinese() ? '' : ' ');
}

export function percent(fraction, digits = 1) {
  return `${(100 * fraction).toFixed(digits)}%`;
}

export function size(bytes) {
  if (bytes < 1024) return `${bytes}\u00a0B`;
  return bytes < 1024 * 1024 ? `${Math.round(bytes / 1024)}\u00a0KiB` : `${(bytes / 1024 / 1024).toFixed(1)}\u00a0MiB`;
}

// A class's two names, the reader's first; a custom model may have one only.
export function names({ label, label_zh: chinese }) {
  return isChinese() && chinese ? [chinese, label] : [label, chinese];
}
