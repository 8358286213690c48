// The answers of all photos of this visit as a file: CSV for a spreadsheet, JSON for a script.

const COLUMNS = ['rank', 'class_id', 'wnid', 'label', 'label_zh', 'confidence', 'probability'];
// A byte order mark, by which spreadsheets know that this is UTF-8.
const MARK = '\ufeff';

export function save(kind, cards, shown) {
  saveBlob(kind === 'csv' ? asCsv(cards, shown) : asJson(cards, shown), `topthree.${kind}`);
}

export function saveBlob(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement('a'), { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // when it has been read
}

// Return a Blob of CSV with a row for each answer, in the columns of `topthree predict --csv`.
function asCsv(cards, shown) {
  const rows = cards.flatMap((card) => rowsOf(card, shown));
  const lines = [['file', ...COLUMNS, 'certainty', 'error'], ...rows].map((cells) => cells.map(csvCell).join(','));
  return new Blob([MARK, lines.join('\r\n'), '\r\n'], { type: 'text/csv' });
}

// Return a Blob of JSON with the answers as the service gave them.
function asJson(cards, shown) {
  const results = cards.map((card) => {
    if (card.state !== 'done') return { file: card.file.name, error: errorOf(card) };
    const { model: _, ...answer } = card.result.answer;
    return { file: card.file.name, ...answer, predictions: answer.predictions.slice(0, shown) };
  });
  const model = cards.find(({ state }) => state === 'done')?.result.answer.model ?? null;
  return new Blob([JSON.stringify({ results, model }, null, 1), '\n'], { type: 'application/json' });
}

function rowsOf(card, shown) {
  const { name } = card.file;
  if (card.state !== 'done') return [[name, ...COLUMNS.map(() => ''), '', errorOf(card)]];
  const { predictions, certainty } = card.result.answer;
  return predictions
    .slice(0, shown)
    .map((prediction) => [name, ...COLUMNS.map((column) => prediction[column] ?? ''), certainty ?? '', '']);
}

function errorOf(card) {
  return card.state === 'failed' ? card.slug : card.state;
}

// A spreadsheet would take a cell that begins so for a formula, and file names come from anywhere.
function csvCell(value) {
  const text = typeof value === 'string' ? value.replace(/^[=+\-@\t\r]/, "'$&") : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
