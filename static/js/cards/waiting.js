// Waiting some seconds.

export function after(seconds) {
  return new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
}

// Wait, and call `onSecond(left)` with the whole seconds that are left, at once and each second.
export async function countDown(seconds, signal, onSecond) {
  const end = performance.now() + 1000 * seconds;
  for (let left = seconds; left > 0 && !signal.aborted; left = Math.ceil((end - performance.now()) / 1000)) {
    onSecond(left);
    await after(Math.min(1, left));
  }
}
