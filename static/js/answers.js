// The answers in a card: names, bars, a plain sentence, and the details for those who want them.

import { announce, build, say, show } from './dom.js';
import { closeWithin, isChinese, names, needsKey, percent, size, t, unsureBelow, url } from './words.js';

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

// Fill the list; `onLook(prediction)` is called by each answer's eye. Returns the eyes.
export function fillAnswers(list, predictions, onLook) {
  const rows = predictions.map((prediction) => row(prediction, onLook));
  list.replaceChildren(...rows.map(({ element }) => element));
  return rows.map(({ parts }) => parts.eye);
}

function row(prediction, onLook) {
  const built = build('answer');
  const [name, other] = names(prediction);
  const shown = percent(prediction.confidence);
  built.parts.name.textContent = name;
  built.parts.other.textContent = other ?? '';
  built.parts.other.lang = isChinese ? 'en' : 'zh-Hans';
  built.parts.bar.value = prediction.confidence;
  built.parts.bar.setAttribute('aria-label', name);
  built.parts.bar.setAttribute('aria-valuetext', shown);
  built.parts.percent.textContent = shown;
  built.parts.eye.setAttribute('aria-label', t('js.look_at', { name }));
  built.parts.eye.title = t('js.look_at', { name });
  built.parts.eye.addEventListener('click', () => onLook(prediction));
  show(built.parts.eye, Boolean(prediction.heatmap));
  return built;
}

export function fillDetails(parts, fileName, { original, way, blob }, { answer, elapsedMs, timing }) {
  const { image, model, predictions } = answer;
  const facts = { ...original, size: size(original.bytes) };
  const isSame = way === 'original';
  if (isSame) Object.assign(facts, { width: image.width, height: image.height });
  parts.original.textContent = t('js.original', facts);
  parts.sent.textContent = t(`js.sent.${way}`, { width: image.width, height: image.height, size: size(blob.size) });
  parts.wnids.textContent = predictions.map(({ wnid, class_id: id }) => wnid ?? id).join(', ');
  parts.model.textContent = t('js.model', model);
  parts.time.textContent = describeTime(elapsedMs, timing);
  parts.curl.textContent = curlLine(fileName);
  parts.copyCurl.onclick = () => copy(parts.copyCurl, curlLine(fileName));
  parts.copyJson.onclick = () => copy(parts.copyJson, JSON.stringify(answer, null, 2));
}

function describeTime(elapsedMs, timing) {
  const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
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

async function copy(button, text) {
  const label = button.textContent;
  const outcome = t((await copied(text)) ? 'js.copied' : 'js.copy_failed');
  say(button, outcome);
  announce(outcome);
  button.disabled = true;
  setTimeout(() => {
    button.textContent = label;
    button.disabled = false;
  }, 1600);
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
