'use strict';
const at = (id) => document.getElementById(id);
let token = '';

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function bytes(count) {
  for (const unit of ['B', 'KiB', 'MiB', 'GiB', 'TiB']) {
    if (count < 1024 || unit === 'TiB') return (unit === 'B' ? count : count.toFixed(1)) + ' ' + unit;
    count /= 1024;
  }
}

const count = (value) => Math.round(value).toLocaleString('en');
const clock = (ms) => (ms === null ? '–' : new Date(ms).toLocaleTimeString([], { hour12: false }));

async function ask(path) {
  const headers = { Accept: 'application/json' };
  if (token) headers.Authorization = 'Bearer ' + token;
  const answer = await fetch(path, { headers });
  at('login').hidden = answer.status !== 401;
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.message || answer.statusText);
  return body;
}

function row(cells) {
  const made = element('tr');
  for (const [text, kind] of cells) made.append(element('td', text, kind));
  return made;
}

function chart(title, samples, value, show) {
  const figure = element('figure');
  const values = samples.map(value);
  const most = Math.max(1, ...values);
  const caption = element('figcaption', title + ': ');
  caption.append(element('b', values.length ? show(values[values.length - 1]) : '–'), ', at most ' + show(values.length ? most : 0));
  const svg = document.createElementNS('http:' + '//www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 720 64');
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('role', 'img');
  svg.setAttribute('aria-label', caption.textContent);
  const line = document.createElementNS(svg.namespaceURI, 'polyline');
  const from = 720 - values.length;
  line.setAttribute('points', values.map((v, i) => (from + i) + ',' + (62 - (v / most) * 60).toFixed(1)).join(' '));
  svg.append(line);
  figure.append(caption, svg);
  return figure;
}

// What a counter grew by; a task that began anew begins at 0.
function rates(samples, of, secs) {
  return samples.slice(1).map((sample, i) => ({ rate: Math.max(0, of(sample) - of(samples[i])) / secs }));
}

function problems(status) {
  const found = [];
  for (const task of status.tasks) {
    const where = task.connector + ' / ' + task.topic + ' / task ' + task.task;
    if (task.message) found.push([where + ' is ' + task.state, task.message, task.advice]);
    for (const [partition, seen] of Object.entries(task.partitions)) {
      if (seen.waiting) found.push([where + ', partition ' + partition + ' waits', seen.waiting, null]);
    }
  }
  for (const [name, connector] of Object.entries(status.connectors)) {
    if (connector.failed) found.push([name + ' could not begin', connector.failed, null]);
    if (connector.waiting) found.push([name + ' has not begun yet', connector.waiting, 'it is tried again every few seconds']);
    if (connector.store_trouble) found.push([name + ': the store', connector.store_trouble, 'it is tried again until it works']);
    for (const topic of connector.missing_topics) found.push([name, 'topic ' + topic + ' does not exist', 'it is waited for']);
  }
  return found;
}

function show(status, activity) {
  at('worker').textContent = status.worker + ' · sluice ' + status.version + ' · ' + clock(Date.now());
  const sum = (of) => status.tasks.reduce((all, task) => all + of(task), 0);
  const running = status.tasks.filter((task) => task.state === 'RUNNING').length;
  const figures = [
    ['tasks running', running + ' of ' + status.tasks.length],
    ['lag, records', count(sum((task) => task.lag_records))],
    ['open lanes', count(sum((task) => task.open_lanes))],
    ['objects', count(sum((task) => task.objects))],
    ['stored', bytes(sum((task) => task.bytes_stored))],
    ['memory', bytes(status.memory_used_bytes) + ' of ' + bytes(status.memory_max_bytes)],
    ['spool', bytes(status.spool_used_bytes) + ' of ' + bytes(status.spool_max_bytes)],
  ];
  at('figures').replaceChildren(...figures.map(([name, value]) => {
    const pair = element('div');
    pair.append(element('dt', name), element('dd', value));
    return pair;
  }));
  const found = problems(status);
  at('problems').hidden = found.length === 0;
  at('problem-list').replaceChildren(...found.slice(0, 100).map(([what, why, advice]) => {
    const item = element('li');
    item.append(element('b', what), element('p', why));
    if (advice) item.append(element('p', 'To do: ' + advice));
    return item;
  }));
  const now = Date.now();
  const age = (ms) => (ms === null ? '–' : count(Math.max(0, (now - ms) / 1000)));
  at('tasks').replaceChildren(...status.tasks.map((task) => row([
    [task.connector], [task.topic], [task.task, 'number'], [task.state, task.state], [task.state === 'FAILED' ? '–' : count(task.lag_records), 'number'],
    [age(task.oldest_unsealed_ms), 'number'], [count(task.open_lanes), 'number'], [count(task.intents_pending), 'number'],
    [count(task.objects), 'number'], [bytes(task.bytes_stored), 'number'], [clock(task.last_upload_ms)],
  ])));
  const { samples, sample_secs: secs } = activity;
  at('charts').replaceChildren(
    chart('records archived', rates(samples, (s) => s.records_archived, secs), (s) => s.rate, (v) => count(v) + '/s'),
    chart('stored', rates(samples, (s) => s.bytes_stored, secs), (s) => s.rate, (v) => bytes(Math.round(v)) + '/s'),
    chart('lag, records', samples, (s) => s.lag_records, count),
    chart('open lanes', samples, (s) => s.open_lanes, count),
  );
  at('apps').replaceChildren(...activity.apps.map(({ app, bytes: size }) => row([[app, 'key'], [bytes(size), 'number']])));
  at('uploads').replaceChildren(...activity.uploads.map((one) => row([[clock(one.at_ms)], [bytes(one.bytes), 'number'], [one.key, 'key']])));
  const option = (text) => { const made = element('option', text); made.value = text; return made; };
  at('apps-known').replaceChildren(...activity.apps.map(({ app }) => option(app)));
  const names = [...new Set(status.tasks.map((task) => task.connector))].sort();
  const select = at('search-connector');
  if (names.join('\n') !== [...select.options].map((one) => one.value).join('\n')) {
    const chosen = select.value;
    select.replaceChildren(...names.map(option));
    if (names.includes(chosen)) select.value = chosen;
  }
}

async function refresh() {
  try {
    const [status, activity] = await Promise.all([ask('/status'), ask('/api/activity')]);
    at('trouble').hidden = true;
    show(status, activity);
  } catch (error) {
    at('trouble').hidden = false;
    at('trouble').textContent = 'The worker does not answer as it should: ' + error.message;
  }
}

at('login').addEventListener('submit', (event) => {
  event.preventDefault();
  token = at('token').value;
  refresh();
});

at('search').addEventListener('submit', async (event) => {
  event.preventDefault();
  const asked = new URLSearchParams({
    connector: at('search-connector').value,
    app: at('search-app').value,
    pattern: at('search-pattern').value,
    minutes: at('search-minutes').value,
  });
  at('search-says').textContent = 'searching…';
  at('search-lines').textContent = '';
  try {
    const found = await ask('/api/search?' + asked);
    const more = found.is_cut ? ', there are more: use `sluice grep`' : '';
    at('search-says').textContent = [found.lines.length + ' lines' + more, ...found.notes].join('; ');
    at('search-lines').textContent = found.lines.join('\n');
  } catch (error) {
    at('search-says').textContent = error.message;
  }
});

refresh();
setInterval(refresh, 5000);
