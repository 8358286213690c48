// A card in a few words, for the strip and the table.

import { chance, names, percent, t } from '../page/words.js';

// The likeliest class, or null before the answer.
export function best(card) {
  return card.state === 'done' ? card.result.answer.predictions[0] : null;
}

export function bestName(card) {
  const found = best(card);
  if (!found) return '';
  return isUnlike(card) ? t('js.unknown') : names(found)[0];
}

export function bestPercent(card) {
  const found = best(card);
  return found && !isUnlike(card) ? percent(chance(found)) : '';
}

function isUnlike(card) {
  return card.result.answer.certainty === 'unlike';
}

export function stateName(card) {
  return t(`js.state.${card.state}`);
}

// The answer with its probability where there is one, else the state.
export function stateText(card) {
  return best(card) ? [bestName(card), bestPercent(card)].filter(Boolean).join(', ') : stateName(card);
}
