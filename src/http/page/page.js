
'use strict';
// Asks /api/status every two seconds and shows it. Whatever comes from there is text: nothing of it becomes markup.
const EVERY = 2000, PATIENCE = 5000;
const SVG = 'http://www.w3.org/2000/svg';
const $ = id => document.getElementById(id);
const el = (tag, text, className) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
};
const svg = (tag, attributes, ...children) => {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};

// Numbers as people read them.
const whole = n => n === null || n === undefined ? '–' : Math.round(n).toLocaleString('en');
const number = n => n === null || n === undefined ? '–' : n >= 100 ? whole(n) : String(+(n >= 10 ? n.toFixed(1) : n.toPrecision(2)));
const compact = n => n >= 1e6 ? +(n / 1e6).toPrecision(3) + ' M' : n >= 1e4 ? +(n / 1e3).toPrecision(3) + ' k' : n >= 10 || n === 0 ? whole(n) : String(+n.toPrecision(2));
const percent = share => share === 0 ? '0 %' : share < 0.001 ? '< 0.1 %' : (share * 100).toFixed(share < 0.1 ? 1 : 0) + ' %';
const took = s => s === 0 ? '0' : s < 1e-3 ? +(s * 1e6).toPrecision(3) + ' µs' : s < 1 ? +(s * 1e3).toPrecision(3) + ' ms' : +s.toPrecision(3) + ' s';
const span = s => s === null ? '–' : s < 0.5 ? '0 s' : s < 90 ? Math.round(s) + ' s' : s < 5400 ? Math.round(s / 60) + ' min' : s < 172800 ? Math.round(s / 3600) + ' h' : Math.round(s / 86400) + ' days';
const bytes = b => b === null ? '–' : b < 1024 ? whole(b) + ' B' : b < 2 ** 20 ? number(b / 1024) + ' KiB' : b < 2 ** 30 ? number(b / 2 ** 20) + ' MiB' : number(b / 2 ** 30) + ' GiB';
const clock = ms => new Date(ms).toLocaleTimeString('en-GB');
const minute = ms => clock(ms).slice(0, 5);
const when = (ms, now) => now - ms < 864e5 ? clock(ms) : new Date(ms).toISOString().slice(0, 16).replace('T', ' ');

// Writes a part of the page only when what it shows has changed, so that a selection or an open place stays.
const shown = new Map();
const part = (id, data, draw) => {
  const key = JSON.stringify(data);
  if (shown.get(id) === key) return;
  shown.set(id, key);
  draw($(id), data);
};
const text = (id, value) => part(id, value, (node, value) => { node.textContent = value; });
const pairs = (id, data) => part(id, data, (node, data) => node.replaceChildren(...data.map(([name, value]) => {
  const group = el('div');
  group.append(el('dt', name), el('dd', value));
  return node.className === 'facts' ? [group.firstChild, group.lastChild] : [group];
}).flat()));
// Rows of cells; a cell is a text, a node, or a text with its class. Where there are none, what that means. Roles are
// written out, because a table that the style lays out as blocks is none to a screen reader.
const rows = (id, data, none, draw) => part(id, data, (table, data) => {
  const made = data.map(row => {
    const tr = el('tr');
    tr.setAttribute('role', 'row');
    draw(row).forEach((cell, at) => {
      const [value, name] = Array.isArray(cell) ? cell : [cell];
      const td = el(at === 0 && name !== 'when' ? 'th' : 'td', undefined, name);
      if (at === 0 && td.tagName === 'TH') td.scope = 'row';
      td.setAttribute('role', td.tagName === 'TH' ? 'rowheader' : 'cell');
      td.append(value);
      tr.append(td);
    });
    return tr;
  });
  if (!made.length) {
    const td = el('td', none, 'none');
    td.colSpan = table.tHead.rows[0].cells.length;
    made.push(el('tr'));
    made[0].append(td);
  }
  table.tHead.hidden = !data.length;
  table.tBodies[0].replaceChildren(...made);
});
const bar = share => svg('svg', { viewBox: '0 0 100 8', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
  svg('rect', { class: 'track', width: 100, height: 8 }), svg('rect', { class: 'value', width: Math.max(0, Math.min(100, share * 100)), height: 8 }));
const spark = (values, label) => {
  const most = Math.max(1, ...values.map(v => v ?? 0)), x = i => 100 - (values.length - 1 - i) * 100 / 59;
  const points = values.map((v, i) => v === null ? null : [x(i), 19 - v / most * 17]).filter(Boolean);
  if (points.length === 1) points.push([points[0][0] - 2, points[0][1]]);
  return svg('svg', { viewBox: '0 0 100 20', preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    svg('path', { class: 'grid', d: 'M0 19.5H100' }),
    svg('polyline', { class: 'curve', points: points.map(p => p.map(v => v.toFixed(1)).join()).join(' '), 'vector-effect': 'non-scaling-stroke' }));
};

// The greatest value of an axis, and the step of its lines.
const axis = most => {
  const rough = Math.max(most, 1) / 3, base = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(m => m * base).find(s => rough <= s);
  return [Math.ceil(Math.max(most, step) / step) * step, step];
};
// A chart over the last hour, or over as much of it as the process has run: 2, 5, 15, 30 or 60 minutes.
// A value holds over its step where it is a rate, and at the end of it where it is a state.
const chart = (id, { title, now, step, over, values, dead, events, unit, holds }) => {
  const box = $(id), width = Math.max(260, box.clientWidth), height = 168, left = 46, right = 8, top = 14, bottom = 22;
  const length = [120, 300, 900, 1800, 3600].find(s => values.length * step <= s) ?? 3600;
  const first = now - length * 1000, last = values.length - 1;
  const [most, line] = axis(Math.max(0, ...values.filter(v => v !== null)));
  const x = ms => left + (ms - first) / (length * 1000) * (width - left - right);
  const y = v => height - bottom - v / most * (height - top - bottom);
  const at = i => i === last && over ? now : now - over * 1000 - (last - i - (over ? 1 : 0)) * step * 1000;
  const part = (list, f) => {
    const runs = [[]];
    list.forEach((v, i) => v === null ? runs.push([])
      : runs.at(-1).push(...(holds ? [[x(i ? at(i - 1) : at(0) - step * 1000), y(v)]] : []), [x(at(i)), y(v)]));
    return runs.filter(run => run.length).map(run => f(run.length > 1 ? run : [[run[0][0] - 2, run[0][1]], run[0]])).join('');
  };
  const path = run => 'M' + run.map(p => p.map(v => v.toFixed(1)).join(' ')).join('L');
  const area = run => path(run) + `L${run.at(-1)[0].toFixed(1)} ${height - bottom}L${run[0][0].toFixed(1)} ${height - bottom}Z`;
  const lines = [];
  for (let v = 0; v <= most; v += line) {
    lines.push(svg('path', { class: v ? 'grid' : 'base', d: `M${left} ${y(v)}H${width - right}` }),
      svg('text', { x: left - 6, y: y(v) + 4, 'text-anchor': 'end' }, compact(v)));
  }
  for (let ago = length; ago >= 0; ago -= length / (width < 420 ? 2 : 3)) {
    lines.push(svg('text', { x: x(now - ago * 1000), y: height - 6, 'text-anchor': ago ? ago === length ? 'start' : 'middle' : 'end' },
      ago ? (length < 300 ? clock : minute)(now - ago * 1000) : 'now'));
  }
  // The newest first. Names that would stand on each other are left out; the table of versions has them all.
  let free = Infinity;
  const marks = (events ?? []).filter(([ms]) => first < ms).flatMap(([ms, name]) => {
    const at = x(ms), ends = at > width - 60, wide = 4 + 7 * name.length, from = ends ? at - wide : at, to = from + wide;
    const line = svg('path', { class: 'event', d: `M${at.toFixed(1)} ${top - 4}V${height - bottom}` });
    if (to > free) return [line];
    free = from;
    return [line, svg('text', { class: 'mark', x: at + (ends ? -4 : 4), y: top + 4, 'text-anchor': ends ? 'end' : 'start' }, name)];
  });
  const some = values.filter(v => v !== null);
  const summary = some.length ? `${title} over ${span(values.length * step)}: now ${number(some.at(-1))}, at most ${number(Math.max(...some))}` : `${title}: not known yet`;
  const cross = svg('path', { class: 'cross' });
  const drawn = svg('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': summary }, ...lines,
    svg('path', { class: 'area', d: part(values, area) }), svg('path', { class: 'curve', d: part(values, path) }),
    ...(dead?.some(v => v) ? [svg('path', { class: 'dead', d: part(dead, path) })] : []), ...marks, cross);
  const read = $(id + '-read');
  const usual = `now ${number(some.at(-1) ?? null)}${unit}, at most ${number(some.length ? Math.max(...some) : null)}${dead?.some(v => v) ? '; dashed: dead letters' : ''}`;
  read.textContent = usual;
  drawn.addEventListener('pointermove', event => {
    const scale = width / drawn.getBoundingClientRect().width;
    const ms = first + (event.offsetX * scale - left) / (width - left - right) * length * 1000;
    const i = Math.max(0, Math.min(last, Math.round(last - (now - ms) / 1000 / step)));
    cross.setAttribute('d', `M${x(at(i)).toFixed(1)} ${top}V${height - bottom}`);
    cross.style.visibility = 'visible';
    read.textContent = `${clock(at(i))}: ${number(values[i])}${unit}${dead?.[i] ? `, ${number(dead[i])} of them dead letters` : ''}`;
  });
  drawn.addEventListener('pointerleave', () => { cross.style.visibility = 'hidden'; read.textContent = usual; });
  box.replaceChildren(drawn);
};

// The configuration as lines: key and value.
const flat = (value, path) => {
  if (value === null || typeof value !== 'object') return [[path, value === null ? '' : String(value)]];
  if (Array.isArray(value)) {
    return value.some(v => v !== null && typeof v === 'object') ? value.flatMap((v, i) => flat(v, `${path}[${i}]`)) : [[path, value.join(', ')]];
  }
  return Object.entries(value).flatMap(([key, v]) => flat(v, path ? `${path}.${key}` : key));
};

let before = {};
const announce = s => {
  // Spoken: what a person decides on, not every number.
  const version = s.models.serving && `${s.models.serving.name} version ${s.models.serving.version}`;
  const told = { state: s.state, ready: s.health.ready, version, warnings: s.health.warnings.length + s.health.reasons.length };
  if (before.state && JSON.stringify(told) !== JSON.stringify(before)) {
    const news = [told.version !== before.version && `${told.version} serves now.`, told.ready !== before.ready && (told.ready ? 'Ready.' : 'Not ready.'),
      told.warnings > before.warnings && [...s.health.reasons, ...s.health.warnings][0], told.state !== before.state && `Now ${told.state}.`];
    $('live').textContent = news.filter(Boolean).join(' ');
  }
  before = told;
};

let latest = null;
const charts = s => {
  const step = s.hour.step_s, over = s.process.uptime_s % step;
  // The step that is not over yet is told by the part that is.
  const early = over < 3 && s.hour.records.length > 1;
  const rate = list => list.map((n, i) => n / (i < list.length - 1 ? step : Math.max(over, 1)));
  const cut = list => early ? list.slice(0, -1) : list;
  chart('rate', { title: 'Records a second', unit: ' a second', holds: true, now: s.process.now, step, over: early ? 0 : over, values: cut(rate(s.hour.records)), dead: cut(rate(s.hour.dead_letters)),
    events: s.models.swaps.map(swap => [swap.at, `v${swap.to}`]) });
  chart('lag', { title: 'Records behind', unit: ' behind', now: s.process.now, step, over, values: s.hour.lag });
};
const show = s => {
  latest = s;
  const { now, health, models, process: own, batches } = s, dead = s.hour.dead_letters.reduce((a, b) => a + b, 0);
  const troubles = [...health.reasons.map(why => `Not ready: ${why}`), ...health.warnings];
  text('sentence', s.sentence);
  const [mark, word, tone] = !health.ready ? ['■', 'Not ready', 'bad'] : troubles.length ? ['▲', 'Look at this', 'warn'] : ['●', 'Ready', 'good'];
  text('health', `${mark} ${word}, ${s.state}`);
  $('health').className = `health ${tone}`;
  text('flow', `${(s.config.input?.topics ?? []).join(', ')} → ${s.config.output?.topic ?? ''}, group ${own.group}`);
  document.title = `${mark} ${number(now.records_per_s)}/s, ${whole(now.lag)} behind, tidemill ${own.group}`;
  $('attention').hidden = !troubles.length;
  $('attention').className = health.ready ? '' : 'bad';
  part('troubles', troubles, (node, list) => node.replaceChildren(...list.map(line => el('li', line))));
  announce(s);
  pairs('now', [['records a second', number(now.records_per_s)], ['records behind', whole(now.lag)], ...(now.held_back ? [['of them not readable yet', whole(now.held_back)]] : []),
    ['until caught up', now.drains === 'yes' ? span(now.drain_s) : now.drains === 'no' ? 'never at this rate' : now.drains],
    ['dead letters, last hour', whole(dead)], ['partitions', whole(now.partitions)], ['since last commit', now.has_committed ? span(now.last_commit_age_s) : 'nothing yet'],
    ['memory' + (own.memory_limit_bytes ? `; ${percent(own.memory_used_bytes / own.memory_limit_bytes)} of ${bytes(own.memory_limit_bytes)} in use` : ''), bytes(own.memory_bytes)], ['up', span(own.uptime_s)]]);
  charts(s);
  const step = s.hour.step_s, last = s.hour.records.length - 1, table = [];
  for (let end = last; end >= 0; end -= 30) {
    const from = Math.max(0, end - 29), sum = list => list.slice(from, end + 1).reduce((a, b) => a + b, 0);
    table.push([minute(own.now - (last - from) * step * 1000), sum(s.hour.records), sum(s.hour.dead_letters), s.hour.lag[end]]);
  }
  rows('hour', table, 'nothing yet', ([from, records, dead, lag]) => [from, [whole(records), 'n'], [whole(dead), 'n'], [whole(lag), 'n']]);
  rows('stages', batches.count ? s.stages : [], 'No batch was committed in the last hour.', one => [one.stage, [took(one.mean_s), 'n'], [percent(one.share), 'n'], [bar(one.share), 'bar']]);
  pairs('batches', batches.count ? [['in the last hour', whole(batches.count)], ['on average', `${number(batches.records)} records, ${number(batches.tokens)} tokens, ${bytes(batches.bytes)}`],
    ...(batches.cached ? [['from the cache', percent(batches.cached)]] : [])] : []);
  rows('reasons', batches.reasons, 'None was closed.', one => [one.name, [whole(one.count), 'n'], [percent(one.count / batches.count), 'n'], [bar(one.count / batches.count), 'bar']]);
  rows('partitions', s.partitions, 'None is ours now.', one => {
    const name = `${one.topic}/${one.partition}`, minutes = one.records;
    return [name, [whole(one.lag) + (one.held_back ? `, ${whole(one.held_back)} not readable yet` : ''), 'n'], [whole(minutes.at(-2) ?? minutes.at(-1)), 'n'], [one.has_committed ? span(one.last_commit_age_s) : 'nothing yet', 'n'],
      [spark(minutes, `records a minute of ${name}, at most ${whole(Math.max(0, ...minutes))}`), 'line'],
      [spark(one.lags, `behind of ${name}, at most ${whole(Math.max(0, ...one.lags.map(v => v ?? 0)))}`), 'line']];
  });
  text('partitions-h', s.partitions_left_out ? `Partitions: the ${s.partitions.length} that are furthest behind; ${s.partitions_left_out} more are ours` : 'Partitions');
  const refused = models.refused ? [['refused', `version ${models.refused.version}, tried last at ${when(models.refused.at, own.now)}`]] : [];
  const staged = models.staged === null ? [] : [['ready', `version ${models.staged}, taken with the next batch`]];
  refused.unshift(...staged);
  pairs('serving', models.serving ? [...[['serves', `${models.serving.name} version ${models.serving.version}`], ['digest', models.serving.digest.slice(0, 26) + (models.serving.digest.length > 26 ? '…' : '')]], ...refused] : [['serves', 'none yet'], ...refused]);
  const versions = [...models.swaps.map(one => [one.at, `version ${one.from} → ${one.to}`, 'swapped between two batches']), ...models.refusals.map(one => [one.at, `version ${one.version} refused${one.holds ? '' : ', no longer so'}`, one.reason])]
    .sort((a, b) => b[0] - a[0]);
  rows('versions', versions, 'No swap and no refusal since the start.', ([at, what, why]) => [[when(at, own.now), 'when'], [what, 'place'], [why, 'why']]);
  const classes = s.dead_letters.classes;
  rows('classes', classes, 'None in the last hour.', one => [one.name, [whole(one.count), 'n'], [percent(one.count / dead), 'n'], [bar(one.count / dead), 'bar']]);
  rows('letters', s.dead_letters.last, 'None since the start.', one => [[when(one.at, own.now), 'when'], [`${one.topic}/${one.partition} at ${one.offset}`, 'place'], one.class, [one.reason, 'why']]);
  rows('config', flat(s.config, ''), 'none', ([key, value]) => [key, value]);
  text('build', `tidemill ${own.version}${own.commit ? ` (${own.commit.slice(0, 12)})` : ''}, ${own.target}, ${own.devices}; started ${when(own.started, own.now)}`);
};

// Says so while the process does not answer, and goes on asking.
let heard = null, failures = 0, timer = 0;
const gone = why => {
  // Written once, because it is spoken whenever it is.
  const since = heard === null ? '' : ` since ${clock(heard)}; what stands below is from then`;
  if ($('gone').hidden) $('gone').textContent = `The process does not answer${since}. ${why}`;
  $('gone').hidden = false;
  $('health').textContent = '■ No answer';
  $('health').className = 'health bad';
  shown.delete('health');
  document.title = '■ no answer, tidemill';
  document.body.classList.add('stale');
};
const ask = async () => {
  clearTimeout(timer);
  const control = new AbortController(), limit = setTimeout(() => control.abort(), PATIENCE);
  try {
    const answer = await fetch('/api/status', { signal: control.signal, cache: 'no-store' });
    if (!answer.ok) throw new Error(`It says ${answer.status}.`);
    const status = await answer.json();
    failures = 0;
    heard = Date.now();
    $('gone').hidden = true;
    document.body.classList.remove('stale');
    show(status);
    document.body.dataset.ready = 'yes';
  } catch (error) {
    failures += 1;
    gone(error.name === 'AbortError' ? 'It takes too long.' : error instanceof TypeError ? 'It has ended, or the network is away.' : String(error.message));
  } finally {
    clearTimeout(limit);
    timer = document.hidden ? 0 : setTimeout(ask, Math.min(EVERY * Math.max(1, failures), 5 * EVERY));
  }
};
document.addEventListener('visibilitychange', () => { if (!document.hidden) ask(); });
let width = 0;
addEventListener('resize', () => {
  if (innerWidth === width || !latest) return;
  width = innerWidth;
  charts(latest);
});
ask();
