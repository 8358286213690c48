// Runs before the page is drawn, so that neither the theme nor what needs scripts appears late.
(() => {
  const root = document.documentElement;
  if (!('noModule' in HTMLScriptElement.prototype)) return; // too old for the rest: the plain form works there
  root.classList.add('script');

  const systemDark = matchMedia('(prefers-color-scheme: dark)');

  function stored(work) {
    try {
      return work(localStorage);
    } catch (error) {
      console.info('The theme cannot be remembered here.', error);
      return null;
    }
  }

  const theme = stored((storage) => storage.getItem('theme'));
  if (theme === 'dark' || theme === 'light') root.dataset.theme = theme;

  document.addEventListener('DOMContentLoaded', () => {
    // The modules have run by now, unless they cannot; then the plain form stays.
    if (document.querySelector('script[type=module]') && !root.dataset.alive) root.classList.remove('script');

    const button = document.getElementById('theme');
    // From the system's theme to its opposite, then to the same theme but fixed, then back.
    const next = () => {
      const opposite = systemDark.matches ? 'light' : 'dark';
      if (!root.dataset.theme) return opposite;
      if (root.dataset.theme !== opposite) return 'system';
      return systemDark.matches ? 'dark' : 'light';
    };
    const relabel = () => {
      button.title = button.dataset[next()];
      button.setAttribute('aria-label', button.title);
    };
    button.addEventListener('click', () => {
      const chosen = next();
      if (chosen === 'system') delete root.dataset.theme;
      else root.dataset.theme = chosen;
      stored((storage) => (chosen === 'system' ? storage.removeItem('theme') : storage.setItem('theme', chosen)));
      relabel();
    });
    systemDark.addEventListener('change', relabel);
    addEventListener('languagechange', relabel); // the language switch dispatches it too
    relabel();
  });
})();
