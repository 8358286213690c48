// The page's words, in its language, and facts from the server.

const page = document.getElementById('page').dataset;
let language = JSON.parse(page.words);

export const limitBytes = Number(page.limitBytes);
export const needsKey = page.needsKey === 'true';
export const startsReady = page.ready === 'true';

// Take the words of the same page in another language, which may come from a newer server.
export function learn({ words }) {
  const other = JSON.parse(words);
  language = { ...other, words: { ...language.words, ...other.words } };
}

// Return a text of the page's language with its blanks filled in; `count` chooses among plural forms.
export function t(key, values = {}) {
  const word = language.words[key];
  const text = typeof word === 'string' ? word : (word[pluralForm(values.count)] ?? word.other);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

// Return whether a word is known; a newer server may name a new problem.
export function hasWord(key) {
  return key in language.words;
}

function pluralForm(count) {
  return new Intl.PluralRules(language.tag).select(count);
}

// Texts one after the other, as the language writes them.
export function sentences(...keys) {
  return keys.map((key) => t(key)).join(language.space);
}

export function percent(fraction, digits = 1) {
  return `${(100 * fraction).toFixed(digits)}%`;
}

export function size(bytes) {
  if (bytes < 1024) return `${bytes}\u00a0B`;
  if (bytes < 1024 ** 2) return `${Math.round(bytes / 1024)}\u00a0KiB`;
  return bytes < 1024 ** 3 ? `${(bytes / 1024 ** 2).toFixed(1)}\u00a0MiB` : `${(bytes / 1024 ** 3).toFixed(1)}\u00a0GiB`;
}

// A class's names, the reader's first; a custom model may have only one.
export function names(prediction) {
  return language.names.map(({ member }) => prediction[member]).filter(Boolean);
}

// The language of each of those names.
export function nameTags(prediction) {
  return language.names.filter(({ member }) => prediction[member]).map(({ tag }) => tag);
}

// Return the meaning of an ambiguous English name; empty if the reader's first name is not the English one.
export function gloss(prediction) {
  return (language.names[0].member === 'label' && prediction.label_gloss) || '';
}

// The reader's name of a class, with its gloss.
export function fullName(prediction) {
  const [name] = names(prediction);
  return gloss(prediction) ? `${name} (${gloss(prediction)})` : name;
}

// A class's calibrated probability, or its softmax where the model has no calibration.
export function chance(prediction) {
  return prediction.probability ?? prediction.confidence;
}

// Say in a sentence what an answer is worth; write_verdict in app/web/rendering.py says the same. Beside the name of its
// group a class needs no gloss.
export function verdict({ predictions: [best], certainty, group }) {
  const name = group ? names(best)[0] : fullName(best);
  if (certainty === 'sure') return t('js.verdict', { name });
  return t(`js.verdict.${certainty ?? 'unmeasured'}`, { name, group: group ? withArticle(group) : '' });
}

function withArticle(group) {
  return t(/^[aeiou]/i.test(group.label) ? 'js.an' : 'js.a', { name: names(group)[0] });
}
