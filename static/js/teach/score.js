// How good the project is, in a plain sentence: how many photos that it had not seen were named correctly.

import { byId, say, show, write } from '../page/dom.js';
import { t } from '../page/words.js';
import { NONE } from './facts.js';
import { className } from './project.js';

// Fewer photos of a class say little, and teach little.
const FEW = 10;

export function showScore(project) {
  const draw = () => drawScore(project);
  project.addEventListener('change', draw);
  project.addEventListener('report', draw);
  addEventListener('languagechange', draw);
}

function drawScore(project) {
  const { report, data } = project;
  const accuracy = project.canAnswer ? report?.accuracy : null;
  byId('score').classList.toggle('outdated', Boolean(accuracy) && report.revision !== project.revision);
  write(byId('score'), () => (accuracy ? countRight(report) : t(nextStep(project))));
  say(byId('interval'), () => (accuracy ? t('js.teach.interval', { low: whole(accuracy.low), high: whole(accuracy.high) }) : ''));
  const few = project.classes.filter(({ photos, label }) => photos < FEW && (photos > 0 || label !== NONE));
  say(byId('few'), () => (accuracy && few.length > 0 ? t('js.teach.few', { names: few.map(className).join(t('js.teach.comma')) }) : ''));
  show(byId('steps'), !accuracy);
  say(byId('stale'), () => (data.stale > 0 ? t('js.teach.stale', { count: data.stale }) : ''));
}

function nextStep({ canAnswer, report, revision }) {
  if (!canAnswer) return 'js.teach.begin';
  return report?.revision === revision ? 'js.teach.too_few' : 'js.teach.measuring';
}

function countRight({ accuracy: { value, of } }) {
  return t('js.teach.right', { right: Math.round(value * of), count: of });
}

function whole(fraction) {
  return Math.round(100 * fraction);
}
