// The other language without leaving the page: its words are fetched and take the place of those shown, so that the
// photos of this visit, their answers, the key and all that is unfolded stay as they are.

import { fetchInTime } from './connection.js';
import { announce, rewrite } from './dom.js';
import { learn, t } from './words.js';

const ATTRIBUTES = ['aria-label', 'title', 'placeholder', 'data-dark', 'data-light', 'data-system'];

let latest = null;

// The links work by themselves too: without script, and in a new tab.
export function listenForLanguage() {
  for (const link of links()) {
    link.addEventListener('click', (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      change(link);
    });
  }
}

function links() {
  return document.querySelectorAll('a[hreflang]');
}

// The address sets the cookie that remembers the choice.
async function change(link) {
  latest = link;
  try {
    const page = await fetchInTime(link.href, readPage);
    if (latest !== link) return;
    speak(page);
    announce(t('js.language'));
  } catch (error) {
    console.warn('The answer is not this page.', error);
    location.assign(link.href); // perhaps a proxy that wants the visitor to log in again
  }
}

async function readPage(response) {
  const page = new DOMParser().parseFromString(await response.text(), 'text/html');
  if (!page.getElementById('page')) throw new RangeError('This is another page, such as a proxy\'s.');
  return page;
}

// Take over the words of the same page in another language.
function speak(page) {
  const { lang } = page.documentElement;
  document.documentElement.lang = lang;
  document.title = page.title;
  for (const link of links()) {
    if (link.hreflang === lang) link.setAttribute('aria-current', 'true');
    else link.removeAttribute('aria-current');
  }
  replaceWords(page);
  for (const template of page.querySelectorAll('template')) document.getElementById(template.id).replaceWith(template);
  learn(page.getElementById('page').dataset);
  rewrite();
  dispatchEvent(new Event('languagechange'));
}

function replaceWords(page) {
  const found = new Map();
  for (const part of [page, ...Array.from(page.querySelectorAll('template'), ({ content }) => content)]) {
    for (const element of part.querySelectorAll('[data-word]')) found.set(element.dataset.word, element);
  }
  for (const element of document.querySelectorAll('[data-word]')) {
    const other = found.get(element.dataset.word);
    if (other) replaceWord(element, other);
  }
}

function replaceWord(element, other) {
  if (element.childElementCount === 0) element.textContent = other.textContent;
  for (const name of ATTRIBUTES) {
    if (other.hasAttribute(name)) element.setAttribute(name, other.getAttribute(name));
  }
}
