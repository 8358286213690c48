// The server's facts about teaching.

const facts = JSON.parse(document.getElementById('main').dataset.teaching);

// What a project may be called.
export const NAME = new RegExp(`^(?:${facts.name})$`);
// The class of photos that show none of the others: its label, and its name in answers.
export const NONE = facts.none;
export const NONE_NAME = facts.noneLabel;
// How many photos one request may move or delete.
export const MAX_EDIT = facts.maxEdit;
