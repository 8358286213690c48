// Which model answers, where the service has several; the choice is kept for the visit of this tab.

const KEPT = 'model';
const choice = document.getElementById('model');

export function listenForModel() {
  if (!choice) return;
  const kept = sessionStorage.getItem(KEPT);
  if ([...choice.options].some(({ value }) => value === kept)) choice.value = kept;
  choice.addEventListener('change', () => {
    sessionStorage.setItem(KEPT, choice.value);
    dispatchEvent(new Event('modelchange'));
  });
}

// Return an address of the API with a model in its query, by default the chosen one.
export function withModel(path, name = choice?.value) {
  if (!choice) return path;
  return `${path}${path.includes('?') ? '&' : '?'}model=${encodeURIComponent(name)}`;
}

// Return the name of an answer's model, with the version of a model of one's own.
export function modelName({ name, display_name: shown = name, version }) {
  return version ? `${shown} v${version}` : shown; // an older server of the same service has no display name
}
