// The request of a card for scripts: the photo's own file, asked about from a shell, Python or JavaScript.

import { withModel } from '../server/choice.js';
import { needsKey } from '../page/words.js';
import { url } from '../server/address.js';

// The key itself is not shown: it would end up in the history of a shell, and in screenshots.
const KEY = '$KEY';

export function curlLine(fileName, model) {
  return curlTo(withModel('api/v1/predict?heatmap=1', model), fileName);
}

// Send a file to an address of the API, in the words of a POSIX shell; curl has a quoting of its own for names.
export function curlTo(path, fileName) {
  const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const name = fileName.replace(/["\\]/g, '\\$&');
  const key = needsKey ? `-H "Authorization: Bearer ${KEY}" ` : '';
  return `curl ${key}-F ${shell(`file=@"${name}"`)} ${shell(url(path))}`;
}

// A string of JSON is one of Python and of JavaScript too.
export function pythonScript(fileName, model) {
  const headers = ['"Content-Type": "application/octet-stream"'];
  if (needsKey) headers.push('"Authorization": "Bearer " + os.environ["KEY"]');
  return [
    'import json',
    ...(needsKey ? ['import os'] : []),
    'import urllib.request',
    '',
    `with open(${JSON.stringify(fileName)}, "rb") as photo:`,
    `    headers = {${headers.join(', ')}}`,
    `    request = urllib.request.Request(${JSON.stringify(url(withModel('api/v1/predict', model)))}, photo.read(), headers)`,
    'with urllib.request.urlopen(request) as response:',
    '    answer = json.load(response)',
    'for prediction in answer["predictions"]:',
    '    print(prediction["label"], prediction["confidence"])',
    '',
  ].join('\n');
}

// For Node.js, as a module.
export function nodeScript(fileName, model) {
  const key = needsKey ? ", Authorization: `Bearer ${process.env.KEY}`" : '';
  return [
    "import { readFile } from 'node:fs/promises';",
    '',
    `const response = await fetch(${JSON.stringify(url(withModel('api/v1/predict', model)))}, {`,
    "  method: 'POST',",
    `  headers: { 'Content-Type': 'application/octet-stream'${key} },`,
    `  body: await readFile(${JSON.stringify(fileName)}),`,
    '});',
    'const { predictions } = await response.json();',
    'for (const { label, confidence } of predictions) console.log(label, confidence);',
    '',
  ].join('\n');
}
