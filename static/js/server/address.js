// Where the server's routes are, seen from this page.

const page = document.getElementById('page').dataset;

export function url(path) {
  return new URL(page.root + path, document.baseURI).href;
}
