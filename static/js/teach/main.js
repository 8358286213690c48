// The page of teaching comes alive: the list of projects, or the project that the address names.

import { listenForKey } from '../page/access.js';
import { watch } from '../page/connection.js';
import { byId, show, write } from '../page/dom.js';
import { listenForLanguage } from '../page/language.js';
import { complain, listenToMessage } from '../page/message.js';
import { t } from '../page/words.js';
import { call, explain } from './api.js';
import { CardList } from './cardlist.js';
import { agree } from './dialog.js';
import { listenToIntake } from './intake.js';
import { Project } from './project.js';
import { deleteProject, showProjects } from './projects.js';
import { listenToPublishing } from './publish.js';
import { showScore } from './score.js';
import { Trial } from './trial.js';

const name = new URLSearchParams(location.search).get('project');

watch();
listenToMessage();
listenForKey();
listenForLanguage();
document.documentElement.dataset.alive = 'true';
if (name) openProject(name);
else showProjects();

async function openProject(opened) {
  const project = new Project(opened, trouble);
  const cardList = new CardList(project);
  const trial = new Trial(project, {
    camera: cardList.camera,
    onRight: (file, label) => cardList.uploads.add([file], label),
  });
  byId('project-title').textContent = opened;
  showScore(project);
  listenToPublishing(project);
  listenToMenu(project);
  listenToIntake(cardList, (file) => trial.use(file));
  // Another tab, or somebody else, may have changed it.
  document.addEventListener('visibilitychange', () => { if (!document.hidden) project.refresh(); });
  try {
    await project.load();
    show(byId('project'));
  } catch (error) {
    trouble(error);
  }
}

// A project that is gone, perhaps deleted in another tab, cannot be shown any more.
function trouble(error) {
  complain(() => explain(error));
  if (!['unknown-project', 'not-found'].includes(error.slug)) return;
  show(byId('project'), false);
  show(byId('gone'));
}

function listenToMenu(project) {
  const keep = byId('keep');
  project.addEventListener('change', () => {
    keep.checked = project.data.keep_photos;
    const { folder } = project.data; // which only a visitor on the same machine learns
    write(byId('where'), () => t(keep.checked ? 'js.teach.keeps' : 'js.teach.keeps_not'));
    write(byId('where-folder'), () => (folder ? t('js.teach.where_folder', { folder }) : ''));
  });
  keep.addEventListener('change', async () => {
    const wanted = keep.checked;
    keep.checked = !wanted;
    const question = () => t(wanted ? 'js.teach.ask_keep' : 'js.teach.ask_keep_not');
    if (!(await agree(question, wanted ? 'js.teach.keep' : 'js.teach.keep_not'))) return;
    try {
      await call('PUT', project.address(), { body: { keep_photos: wanted } });
    } catch (error) {
      trouble(error);
    }
    project.refresh();
  });
  byId('delete-project').addEventListener('click', async () => {
    if (await deleteProject(project.name)) location.assign(location.pathname);
  });
}
