// The ways to give the page a photo: choose, camera, drop, paste, samples. All end in `give(files)`.

import { fetchInTime } from './connection.js';
import { byId } from './dom.js';
import { listenToDrops } from './drops.js';
import { complain } from './message.js';
import { sentences, t } from './words.js';

export function listen(give) {
  byId('file').multiple = true;
  for (const input of [byId('file'), byId('camera')]) listenToChooser(input, give);
  byId('pick').addEventListener('submit', (event) => event.preventDefault());
  listenToDrops(give);
  listenToPaste(give);
  for (const button of document.querySelectorAll('[data-sample]')) {
    button.addEventListener('click', () => giveSample(button.dataset, give));
  }
}

export function listenToChooser(input, give) {
  const giveChosen = () => {
    const files = [...input.files];
    input.value = ''; // so that the same photo can be chosen again
    if (files.length > 0) give(files);
  };
  input.addEventListener('change', giveChosen);
  giveChosen(); // what was chosen while this script was on its way
  // It looks like a button, so Enter opens it as it would a button; browsers only let Space do so.
  input.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return;
    event.preventDefault();
    input.click();
  });
}

// Give pasted files with the element that has the focus.
export function listenToPaste(give) {
  addEventListener('paste', (event) => paste(event, give));
}

// Text pasted into a field is meant for the field.
function paste({ target, clipboardData }, give) {
  const files = [...(clipboardData?.files ?? [])];
  const isField = target.matches?.('input:is([type=password], [type=search], [type=text]), textarea');
  if (files.length > 0) give(files, target);
  else if (!isField) complain(() => t('js.no_files'));
}

async function giveSample({ sample, name }, give) {
  try {
    const blob = await fetchInTime(sample, (response) => response.blob());
    give([new File([blob], name, { type: 'image/webp' })]);
  } catch (error) {
    console.warn('The sample could not be fetched.', error);
    complain(() => sentences('problem.internal-error', 'advice.internal-error'));
  }
}
