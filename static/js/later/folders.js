// The photos in dropped folders.

const MAX_FILES = 5000;
// The folders of app/photos/clutter.py.
const CLUTTER = ['__macosx', '.appledouble', '.spotlight-v100', '.fseventsd', '.trashes', '@eadir', '.thumbnails',
  'system volume information', 'lost+found'];

const paths = new WeakMap();

// Return a file's path from the folder that was dropped or chosen; its name where it was given by itself.
export function pathOf(file) {
  return paths.get(file) ?? (file.webkitRelativePath || file.name);
}

// Remember the path of a file that came out of a folder or an archive, and return the file.
export function setPath(file, path) {
  paths.set(file, path);
  return file;
}

// Return {files, isCut}: all files of a drop's entries, of its folders only photos, in the order of their paths; `isCut`
// is true if there were more than `MAX_FILES`.
export async function filesOf(entries, suffixes) {
  const found = entries.filter(({ isFile }) => isFile);
  for (const folder of entries.filter(({ isDirectory }) => isDirectory)) await collect(folder, found, suffixes);
  found.sort((first, second) => first.fullPath.localeCompare(second.fullPath, 'en', { numeric: true }));
  const files = await Promise.all(found.slice(0, MAX_FILES).map(fileOf));
  return { files: files.filter(Boolean), isCut: found.length > MAX_FILES };
}

async function collect(folder, found, suffixes) {
  const reader = folder.createReader();
  for (;;) {
    const entries = await read(reader); // a part of the folder's entries at a time, at last none
    if (entries.length === 0 || found.length > MAX_FILES) return;
    for (const entry of entries) {
      if (entry.isDirectory) await collect(entry, found, suffixes);
      else if (isPhoto(entry.fullPath, suffixes)) found.push(entry);
    }
  }
}

// Hidden files, such as those that macOS puts beside each photo, do not count as photos, nor does what is in the folders
// of file managers and storage systems.
export function isPhoto(path, suffixes) {
  const folders = path.toLowerCase().split('/');
  const name = folders.pop();
  const isClutter = name.startsWith('.') || folders.some((folder) => CLUTTER.includes(folder));
  return !isClutter && suffixes.some((suffix) => name.endsWith(suffix));
}

// A folder that cannot be read is left out.
function read(reader) {
  return new Promise((resolve) => {
    reader.readEntries(resolve, (error) => {
      console.warn('A folder cannot be read.', error);
      resolve([]);
    });
  });
}

function fileOf(entry) {
  return new Promise((resolve) => {
    const remember = (file) => resolve(setPath(file, entry.fullPath.slice(1)));
    entry.file(remember, (error) => {
      console.warn(`${entry.fullPath} cannot be read.`, error);
      resolve(null);
    });
  });
}
