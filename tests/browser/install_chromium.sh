#!/bin/sh
# Sees to a Chromium for the browser tests, and to a font with Chinese for the screenshots: installs them where
# that is allowed, says what is missing where it is not.
set -eu
if command -v "${TOPTHREE_TEST_CHROMIUM:-chromium}" >/dev/null && fc-list :lang=zh 2>/dev/null | grep -q .; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Chromium and a Chinese font."
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fontconfig fonts-noto-cjk >/dev/null
elif ! command -v "${TOPTHREE_TEST_CHROMIUM:-chromium}" >/dev/null; then
  echo "There is no Chromium here, which the browser tests need. On Debian: apt install chromium fonts-noto-cjk." >&2
  echo "Elsewhere: install Chromium or Chrome, and set TOPTHREE_TEST_CHROMIUM to its path." >&2
  exit 1
fi
