// The answers in a card: names, bars and a plain sentence, with the heat maps and details that belong to them.

import { build, show, write } from '../page/dom.js';
import { chance, gloss, names, nameTags, percent, t, verdict } from '../page/words.js';
import { fillDetails } from './details.js';
import { Look } from './look.js';
import { Part, within } from './part.js';

const FEW = 3;

export class Answers {
  #parts;
  #fileName;
  #look;
  #part;
  #filled = null;
  #frame = null;
  #hasAll = false;

  constructor(parts, fileName, onPart) {
    this.#parts = parts;
    this.#fileName = fileName;
    this.#part = new Part(parts, { onOpen: () => this.#look.close(), onChoose: onPart });
    this.#look = new Look(parts, { onOpen: () => this.#part.close() });
    parts.more.addEventListener('click', () => {
      this.#hasAll = !this.#hasAll;
      this.#fillRows();
    });
    parts.alike?.addEventListener('click', () => this.#toggleAlike()); // only where the service has an index
  }

  // `square` is the part of the photo that was asked about, null for all of it.
  fill({ answer, square, hasPhoto, ...sent }) {
    this.#frame ??= { width: answer.image.width, height: answer.image.height };
    this.#filled = { answer, square, hasPhoto, ...sent };
    this.#fillRows();
  }

  // Offer heat maps, since there is a picture now.
  showOnPhoto() {
    this.#filled.hasPhoto = true;
    this.#fillRows();
  }

  show() {
    const { answers, details, more, alike } = this.#parts;
    for (const part of [answers, details, alike]) if (part) show(part);
    show(more, this.#filled.answer.predictions.length > FEW);
    this.#usePhoto();
  }

  hide() {
    const { answers, details, more, alike, alikePanel } = this.#parts;
    for (const part of [answers, details, more, alike, alikePanel]) if (part) show(part, false);
    alike?.setAttribute('aria-expanded', false);
    this.#look.clear();
    this.#part.clear();
  }

  // Return the card's heading: what the answer is worth, with a name.
  verdict() {
    return verdict(this.#filled.answer);
  }

  async #toggleAlike() {
    const { toggleAlike } = await import('../later/alike.js');
    await toggleAlike(this.#parts, this.#filled.blob);
  }

  #fillRows() {
    const { answer, square } = this.#filled;
    const predictions = this.#hasAll ? answer.predictions : answer.predictions.slice(0, FEW);
    const rows = predictions.map((prediction) => row(prediction, this.#fileName, (each) => this.#look.toggle(each)));
    this.#parts.answers.replaceChildren(...rows.map(({ element }) => element));
    this.#filled.eyes = rows.map(({ parts }) => parts.eye);
    this.#filled.shown = predictions;
    const moreOrFewer = () => t(this.#hasAll ? 'js.fewer' : 'js.more');
    write(this.#parts.more, moreOrFewer);
    write(this.#parts.more, () => t('js.button_of', { button: moreOrFewer(), file: this.#fileName }), 'aria-label');
    const few = { ...answer, predictions };
    fillDetails(this.#parts, this.#fileName, { ...this.#filled, answer: few, frame: this.#frame, isPart: Boolean(square) });
    this.#usePhoto();
  }

  #usePhoto() {
    const { answer, square, hasPhoto, eyes, shown } = this.#filled;
    const { crop } = answer.image;
    const seen = square ? within(square, crop) : crop;
    this.#look.use({ predictions: shown, eyes, frame: this.#frame, crop: seen, hasPhoto });
    if (hasPhoto) this.#part.use(this.#frame, shareSeen(this.#frame, seen));
  }
}

// Return the share of the shorter side that the model sees.
function shareSeen({ width, height }, crop) {
  return width > height ? crop.bottom - crop.top : crop.right - crop.left;
}

function row(prediction, fileName, onLook) {
  const built = build('answer');
  const { name, gloss: about, other, bar, percent: number, eye } = built.parts;
  const shown = percent(chance(prediction));
  const ofReader = () => names(prediction)[0];
  write(name, ofReader);
  write(name, () => nameTags(prediction)[0], 'lang');
  write(about, () => gloss(prediction));
  write(other, () => names(prediction)[1] ?? '');
  write(other, () => nameTags(prediction)[1] ?? '', 'lang');
  bar.value = chance(prediction);
  write(bar, ofReader, 'aria-label');
  bar.setAttribute('aria-valuetext', shown);
  number.textContent = shown;
  write(eye, () => t('js.look_at_of', { name: ofReader(), file: fileName }), 'aria-label');
  write(eye, () => t('js.look_at', { name: ofReader() }), 'title');
  eye.addEventListener('click', () => onLook(prediction));
  show(eye, false);
  return built;
}
