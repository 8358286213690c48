// A button that does something again and again while it is held, by a finger, a mouse or a key.

const KEYS = [' ', 'Enter'];

// `onHold(signal)` is called once for each time that `button` is held, if `mayHold()`; `signal` ends it.
export function listenToHold(button, mayHold, onHold) {
  let held = null;
  const begin = () => {
    if (held || !mayHold()) return;
    held = new AbortController();
    button.dataset.held = 'true';
    onHold(held.signal);
  };
  const end = () => {
    held?.abort();
    held = null;
    delete button.dataset.held;
  };
  button.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    begin();
    if (held) button.setPointerCapture(event.pointerId);
  });
  for (const kind of ['pointerup', 'pointercancel', 'blur']) button.addEventListener(kind, end);
  button.addEventListener('contextmenu', (event) => {
    if (held) event.preventDefault(); // of a long touch
  });
  button.addEventListener('keydown', (event) => {
    if (!KEYS.includes(event.key) || !mayHold()) return;
    event.preventDefault(); // else it would be a click too
    if (!event.repeat) begin();
  });
  button.addEventListener('keyup', (event) => {
    if (KEYS.includes(event.key)) end();
  });
}
