// The details of a card: the photo, what was sent of it, the model, the time, and copies for scripts.

import { modelName } from '../server/choice.js';
import { copy } from '../page/clipboard.js';
import { write } from '../page/dom.js';
import { names, percent, size, t } from '../page/words.js';
import { curlLine, nodeScript, pythonScript } from './snippets.js';

const ENGINES = { openvino: 'OpenVINO', torch: 'PyTorch' };
const MIN_SHOWN_MS = 0.05; // less would be written as 0.0

// `prepared` is the photo as `prepare` made it, `frame` its size, and `blob` what was sent of it.
export function fillDetails(parts, fileName, { prepared, frame, isPart, blob, answer, elapsedMs, timing }) {
  const { image, model, predictions } = answer;
  const { original, way } = prepared;
  const isSameSize = way !== 'scaled'; // where the browser could not read the photo, the server says its size
  const facts = { ...original, ...(isSameSize ? frame : {}), size: size(original.bytes) };
  write(parts.original, () => t('js.original', facts));
  const sent = { width: image.width, height: image.height, size: size(blob.size) };
  write(parts.sent, () => t(`js.sent.${isPart ? 'part' : way}`, sent));
  parts.wnids.textContent = predictions.map(({ wnid, class_id: id }) => wnid ?? id).join(', ');
  write(parts.certainty, () => describeCertainty(answer));
  const engine = ENGINES[model.engine] ?? model.engine;
  write(parts.model, () => t('js.model', { ...model, engine, name: modelName(model) }));
  write(parts.time, () => describeTime(elapsedMs, timing));
  parts.curl.textContent = curlLine(fileName, model.name);
  offer(parts.copyJson, fileName, () => JSON.stringify(answer, null, 2));
  offer(parts.copyCurl, fileName, () => curlLine(fileName, model.name));
  offer(parts.copyPython, fileName, () => pythonScript(fileName, model.name));
  offer(parts.copyScript, fileName, () => nodeScript(fileName, model.name));
}

function offer(button, fileName, text) {
  const { word } = button.firstElementChild.dataset;
  write(button, () => t('js.button_of', { button: t(word), file: fileName }), 'aria-label');
  button.onclick = () => copy(button, text());
}

function describeCertainty({ certainty, group }) {
  const values = group ? { name: names(group)[0], percent: percent(group.probability) } : {};
  return t(`js.certainty.${certainty ?? 'unmeasured'}`, values);
}

function describeTime(elapsedMs, timing) {
  const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)}\u00a0ms`;
  const isShown = (step) => (step === 'cache' ? step in timing : timing[step] >= MIN_SHOWN_MS);
  const steps = ['cache', 'decode', 'queue', 'infer'].filter(isShown);
  const split = steps.map((step) => t(`js.time.${step}`, { ms: milliseconds(timing[step]) }));
  return [t('js.time.total', { total: milliseconds(elapsedMs) }), ...split].join(' · ');
}
