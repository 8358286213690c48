#!/bin/sh
# Sees to the browsers of the tests, to a font with Chinese for the screenshots, and to some large photos: installs them
# where that is allowed, says what is missing where it is not. Only Chromium is needed; what needs another browser, or the
# large photos, is skipped without it and says so.
set -eu
has_all() {
  [ -e /usr/share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg ] && [ -e /usr/share/backgrounds/life_by_Aitzol_Berasategi.jpg ] \
  && command -v "${TOPTHREE_TEST_CHROMIUM:-chromium}" firefox-esr WebKitWebDriver Xvfb >/dev/null \
  && fc-list :lang=zh 2>/dev/null | grep -q .
}
has_all && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Chromium, Firefox, WebKitGTK, a Chinese font and large photos."
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    chromium fontconfig fonts-noto-cjk >/dev/null
  # Debian's own names; elsewhere the tests that need them are skipped and say so.
  for packages in firefox-esr "webkit2gtk-driver xvfb" "lomiri-wallpapers-16.04 lomiri-wallpapers-20.04"; do
    # shellcheck disable=SC2086 # packages are words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null \
    || echo "Not installed: $packages; their tests are skipped." >&2
  done
elif ! command -v "${TOPTHREE_TEST_CHROMIUM:-chromium}" >/dev/null; then
  echo "There is no Chromium here, which the browser tests need. On Debian: apt install chromium fonts-noto-cjk." >&2
  echo "Elsewhere: install Chromium or Chrome, and set TOPTHREE_TEST_CHROMIUM to its path." >&2
  exit 1
fi
