// The projects of this service: a list, a new one, one from a file, and deleting one.

import { announce, build, byId, say, show, write } from '../page/dom.js';
import { listenToChooser } from '../page/inputs.js';
import { complain } from '../page/message.js';
import { size, t } from '../page/words.js';
import { slugOf } from '../server/upload.js';
import { addressOf, call, explain, explainSlug, listProjects } from './api.js';
import { agree } from './dialog.js';
import { NAME } from './facts.js';
import { FIRST_CLASSES } from './project.js';

export async function showProjects() {
  show(byId('start'));
  byId('create').addEventListener('submit', (event) => {
    event.preventDefault();
    create();
  });
  listenToChooser(byId('open-file'), ([file]) => open(file));
  await drawProjects();
}

// Ask, delete a project, and return whether it was.
export async function deleteProject(name) {
  if (!(await agree(() => t('js.teach.delete_project', { name }), 'js.teach.delete'))) return false;
  try {
    await call('DELETE', addressOf(name));
    announce(t('js.teach.project_deleted', { name }));
    return true;
  } catch (error) {
    complain(() => explain(error));
    return false;
  }
}

export function enter(name) {
  location.assign(`?${new URLSearchParams({ project: name })}`);
}

async function create() {
  const name = byId('new-name').value.trim();
  const keep = new FormData(byId('create')).get('keep') === 'yes';
  try {
    if (!NAME.test(name)) {
      refuse(() => t('js.teach.bad_name'));
      return;
    }
    if ((await names()).includes(name)) {
      refuse(() => t('js.teach.name_taken', { name }));
      return;
    }
    await call('PUT', addressOf(name), { body: { keep_photos: keep } });
    for (const number of FIRST_CLASSES) {
      await call('PUT', addressOf(name, 'classes', t('js.teach.class', { number })), { body: {} });
    }
    enter(name);
  } catch (error) {
    refuse(() => explain(error));
  }
}

function refuse(reason) {
  say(byId('new-error'), reason);
  byId('new-name').setAttribute('aria-invalid', 'true');
  byId('new-name').focus();
  announce(reason());
}

async function names() {
  return (await listProjects()).projects.map(({ name }) => name);
}

// Open a project file under its own name, or the next one that is free.
async function open(file) {
  const wanted = file.name.replace(/\.[^.]*$/, '').toLowerCase().replace(/[^a-z0-9_-]+/g, '-').replace(/^-+|-+$/g, '');
  const stem = wanted || 'project';
  try {
    const taken = await names();
    let name = stem;
    for (let number = 2; taken.includes(name); number += 1) name = `${stem}-${number}`;
    announce(t('js.teach.opening'));
    await call('PUT', addressOf(name, 'file'), { body: file });
    enter(name);
  } catch (error) {
    complain(() => (error.slug === 'too-large' ? t('js.teach.file_too_large') : explain(error)));
  }
}

async function drawProjects() {
  try {
    const { projects, bytes, max_bytes: maxBytes } = await listProjects();
    byId('projects').replaceChildren(...projects.map(row));
    show(byId('list'), projects.length > 0);
    write(byId('space'), () => t('js.teach.space', { bytes: size(bytes), most: size(maxBytes) }));
  } catch (error) {
    complain(() => explain(error));
  }
}

function row(project) {
  const { element, parts } = build('teach-project');
  const { name, problem } = project;
  parts.link.textContent = name;
  if (!problem) parts.link.href = `?${new URLSearchParams({ project: name })}`;
  write(parts.facts, () => (problem ? explainSlug(slugOf(problem)) : factsOf(project)));
  write(parts.remove, () => t('js.button_of', { button: t('js.teach.delete'), file: name }), 'aria-label');
  parts.remove.addEventListener('click', async () => {
    if (!(await deleteProject(name))) return;
    await drawProjects();
    byId('new-name').focus();
  });
  return element;
}

function factsOf({ classes, photos, published }) {
  return [
    t('js.teach.classes', { count: classes }),
    t('js.teach.photos', { count: photos }),
    published ? t('js.teach.version', { version: published }) : '',
  ].filter(Boolean).join(' · ');
}
