// Runs before the page is drawn, so that neither the theme nor what needs scripts appears late.
(() => {
  const root = document.documentElement;
  if (!('noModule' in HTMLScriptElement.prototype)) return; // too old for the rest: the plain form works there
  root.classList.add('script');

  const systemDark = matchMedia('(prefers-color-scheme: dark)');
  const isDark = () => (root.dataset.theme ? root.dataset.theme === 'dark' : systemDark.matches);

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
    // The modules have run by now. Where they could not, the plain form works as well.
    if (document.querySelector('script[type=module]') && !root.dataset.alive) root.classList.remove('script');

    const button = document.getElementById('theme');
    const relabel = () => {
      button.title = isDark() ? button.dataset.light : button.dataset.dark;
      button.setAttribute('aria-label', button.title);
    };
    button.addEventListener('click', () => {
      const chosen = isDark() ? 'light' : 'dark';
      root.dataset.theme = chosen;
      stored((storage) => storage.setItem('theme', chosen));
      relabel();
    });
    systemDark.addEventListener('change', relabel);
    addEventListener('languagechange', relabel); // also told by the switch
    relabel();
  });
})();
