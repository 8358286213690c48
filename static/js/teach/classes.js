// A list of the classes to choose one from.

import { className } from './project.js';

// Fill a select element, only if anything is new: a list that is open would close. `prompt` stands first and is no class.
export function offerClasses(field, classes, prompt = '') {
  const first = prompt ? [new Option(prompt, '')] : [];
  const wanted = [...first, ...classes.map((each) => new Option(className(each), each.label))];
  const isSame = wanted.length === field.options.length
    && wanted.every(({ value, text }, at) => value === field.options[at].value && text === field.options[at].text);
  if (isSame) return;
  const chosen = field.value;
  field.replaceChildren(...wanted);
  if (wanted.some(({ value }) => value === chosen)) field.value = chosen;
}
