// The answers in a card: names, bars, a plain sentence, and the details for those who want them.

import { announce, build, show, whileBusy, write } from '../page/dom.js';
import { closeWithin, names, nameTags, needsKey, percent, size, t, unsureBelow } from '../page/words.js';
import { url } from '../server/address.js';

// The card's heading: what it is, or how far the model is from knowing.
export function verdict(predictions) {
  const [best, next] = predictions;
  const name = names(best)[0];
  if (best.confidence < unsureBelow) return t('js.unsure_low', { name });
  if (next && best.confidence - next.confidence < closeWithin) {
    return t('js.unsure_close', { name, second: names(next)[0] });
  }
  return t('js.verdict', { name });
}

// Fill the list; `onLook(prediction)` is called by each answer's eye, hidden where there is none. Returns the eyes.
export function fillAnswers(list, predictions, onLook) {
  const rows = predictions.map((prediction) => row(prediction, onLook));
  list.replaceChildren(...rows.map(({ element }) => element));
  return rows.map(({ parts }) => parts.eye);
}

function row(prediction, onLook) {
  const built = build('answer');
  const { name, other, bar, percent: number, eye } = built.parts;
  const shown = percent(prediction.confidence);
  const ofReader = () => names(prediction)[0];
  const lookAt = () => t('js.look_at', { name: ofReader() });
  write(name, ofReader);
  write(other, () => names(prediction)[1] ?? '');
  write(name, () => nameTags(prediction)[0], 'lang');
  write(other, () => nameTags(prediction)[1] ?? '', 'lang');
  bar.value = prediction.confidence;
  write(bar, ofReader, 'aria-label');
  bar.setAttribute('aria-valuetext', shown);
  number.textContent = shown;
  write(eye, lookAt, 'aria-label');
  write(eye, lookAt, 'title');
  eye.addEventListener('click', () => onLook(prediction));
  show(eye, Boolean(onLook && prediction.heatmap));
  return built;
}

export function fillDetails(parts, fileName, { original, way, blob }, { answer, elapsedMs, timing }) {
  const { image, model, predictions } = answer;
  const facts = { ...original, size: size(original.bytes) };
  const isSameSize = way !== 'scaled'; // where the browser could not read the photo, the server says its size
  if (isSameSize) Object.assign(facts, { width: image.width, height: image.height });
  write(parts.original, () => t('js.original', facts));
  const sent = { width: image.width, height: image.height, size: size(blob.size) };
  write(parts.sent, () => t(`js.sent.${way}`, sent));
  parts.wnids.textContent = predictions.map(({ wnid, class_id: id }) => wnid ?? id).join(', ');
  write(parts.model, () => t('js.model', model));
  write(parts.time, () => describeTime(elapsedMs, timing));
  parts.curl.textContent = curlLine(fileName);
  parts.copyCurl.onclick = () => copy(parts.copyCurl, curlLine(fileName));
  parts.copyJson.onclick = () => copy(parts.copyJson, JSON.stringify(answer, null, 2));
}

function describeTime(elapsedMs, timing) {
  const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)}\u00a0ms`;
  const steps = ['cache', 'decode', 'queue', 'infer'].filter((step) => step in timing);
  const split = steps.map((step) => t(`js.time.${step}`, { ms: milliseconds(timing[step]) }));
  return [t('js.time.total', { total: milliseconds(elapsedMs) }), ...split].join(' · ');
}

// The same request for the file itself, in the words of a POSIX shell; curl has a quoting of its own for names.
export function curlLine(fileName) {
  const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const name = fileName.replace(/["\\]/g, '\\$&');
  // The key itself is not shown: it would end up in the history of a shell, and in screenshots.
  const key = needsKey ? '-H "Authorization: Bearer $KEY" ' : '';
  return `curl ${key}-F ${shell(`file=@"${name}"`)} ${shell(url('api/v1/predict?heatmap=1'))}`;
}

function copy(button, text) {
  return whileBusy(button, async (tell) => {
    const outcome = (await copied(text)) ? 'js.copied' : 'js.copy_failed';
    tell(() => t(outcome));
    announce(t(outcome));
    await new Promise((resolve) => setTimeout(resolve, 1600));
  });
}

// The clipboard is closed to pages that came over plain HTTP from another machine; there the old way serves.
async function copied(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch (error) {
      console.info('The clipboard refused; trying the old way.', error);
    }
  }
  const field = Object.assign(document.createElement('textarea'), { value: text, className: 'unseen' });
  document.body.append(field);
  field.select();
  const done = document.execCommand('copy');
  field.remove();
  return done;
}
