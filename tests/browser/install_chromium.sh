#!/bin/sh
# Sees to a Chromium for the browser tests, to a font with Chinese for the screenshots, and to some large photos: installs
# them where that is allowed, says what is missing where it is not.
set -eu
if [ -e /usr/share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg ] && [ -e /usr/share/backgrounds/life_by_Aitzol_Berasategi.jpg ] \
  && command -v "${TOPTHREE_TEST_CHROMIUM:-chromium}" >/dev/null && fc-list :lang=zh 2>/dev/null | grep -q .; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Chromium, a Chinese font and large photos."
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    chromium fontconfig fonts-noto-cjk >/dev/null
  # Debian's own names; elsewhere the test that needs them is skipped and says so.
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 >/dev/null \
  || echo "The large photos of lomiri-wallpapers cannot be had here; a test is skipped." >&2
elif ! command -v "${TOPTHREE_TEST_CHROMIUM:-chromium}" >/dev/null; then
  echo "There is no Chromium here, which the browser tests need. On Debian: apt install chromium fonts-noto-cjk." >&2
  echo "Elsewhere: install Chromium or Chrome, and set TOPTHREE_TEST_CHROMIUM to its path." >&2
  exit 1
fi
