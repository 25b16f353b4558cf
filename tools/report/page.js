// The page itself: the data (tools/report_run.cpp), which run, layer and image are looked at, sliders, theme. What is shown is sections.js.

const faults = [];  // for the self-test at the end, which wants those of the start too
addEventListener('error', e => faults.push('error: ' + e.message));
addEventListener('unhandledrejection', e => faults.push('rejection: ' + e.reason));
document.addEventListener('securitypolicyviolation', e => faults.push('request: ' + e.violatedDirective + ' ' + e.blockedURI));
for (const name of ['error', 'warn']) {
  const plain = console[name];
  console[name] = (...all) => {
    faults.push(`console.${name}: ${all.join(' ')}`);
    plain(...all);
  };
}

const {runs, settings} = JSON.parse(document.getElementById('data').textContent);
const main = document.getElementById('main');
const state = {
  run: 0,
  layer: 0,
  sample: 0
};
const several = runs.length > 1;
const current = () => runs[state.run];
const column = (run, split, name) => ((run.curves[split] || {})[name]) || null;
const title = run => several ? run.name + ', ' : '';

/// The named columns of a split over its steps, as series; runs have colours, what is not `plain` is dashed.
function seriesOf(names, of = runs) {
  const all = [];
  of.forEach(run => names.forEach(({split, name, label, dash, scale = v => v}, k) => {
    const y = column(run, split, name);
    if (y === null) return;
    const paint = several ? color(runs.indexOf(run)) : color(k);
    all.push({name: title(run) + label, color: paint, dash, x: column(run, split, 'step'), y: y.map(v => v === null ? null : scale(v))});
  }));
  return all;
}

const sections = [];  // {id, title, make}: make returns elements, or null where there is nothing to show
const section = (id, name, make) => sections.push({id, name, make});

/// A slider over choices, which may stand in several sections and move together.
function slider(key, label, count, says, change) {
  const input = el('input', {
    type: 'range',
    min: 0,
    max: count - 1,
    step: 1,
    'data-key': key,
    oninput: () => {
      state[key] = Number(input.value);
      change();
    }
  });
  const output = el('output', {});
  const sync = () => {
    input.value = state[key];
    output.textContent = says(state[key]);
    input.setAttribute('aria-valuetext', output.textContent);
  };
  sync();
  syncs.push(sync);
  return el('label', {}, label, input, output);
}
let syncs = [], views = [];
function refresh() {
  syncs.forEach(sync => sync());
  views.forEach(view => view());
}

const layerSlider = () => current().layers.length < 2 ?
    null :
    el('div', {class: 'controls'}, slider('layer', 'Layer', current().layers.length, i => blockName(current().layers[i]), refresh));

/// A place that is filled anew whenever a slider moves.
function view(make) {
  const host = el('div', {});
  const update = () => host.replaceChildren(...[make()].flat(Infinity).filter(Boolean));
  update();
  views.push(update);
  return host;
}
const layer = () => current().layers[state.layer];
/// Of two towers each has its own blocks.
const blockName = l => l.name || 'block ' + l.block;
/// What its figures are logged under.
const blockKey = l => l.key || 'block' + l.block;
const expertNames = l => Array.from({length: l.experts + l.free}, (_, e) => e < l.experts ? 'expert ' + e : `expert ${e} (free)`);

/// How many of the first ten are right, both ways.
const recallText = run => `${percent(run.recall.to_image.recall_10, 1)} of ${num(run.recall.captions)} ${run.split} captions find their image among the first 10 of ${
    num(run.images)}, ${percent(run.recall.to_text.recall_10, 1)} of the images one of their captions`;

/// A run's result in one line.
function headline(run) {
  const layers = run.layers.filter(l => l.gini !== undefined);
  const gini = layers.length ? `, load Gini ${layers.map(l => `${fixed(l.gini)} (${blockName(l)})`).join(', ')}` : '';
  const result = run.accuracy !== undefined ? `${percent(run.accuracy, 2)} of ${num(run.images)} ${run.split} images right` :
      run.recall !== undefined ? recallText(run) :
      run.mae !== undefined ? `mean error ${num(run.mae)} years for ${num(run.images)} ${run.split} subjects` :
                              'not evaluated here';
  return `${several ? run.name + ': ' : ''}${result}${gini}; step ${num(run.step)}${run.standing ? ` (${run.standing})` : ''}, ${num(run.parameters / 1e6)} M parameters`;
}

function render() {
  watcher.disconnect();
  syncs = [];
  views = [];
  state.layer = Math.min(state.layer, Math.max(0, current().layers.length - 1));
  state.sample = 0;
  const made = sections.map(s => [s, s.make()]).filter(([, content]) => content !== null);
  main.replaceChildren(...made.map(
      ([s, content]) => el('section', {id: s.id, 'aria-labelledby': s.id + '-title'}, el('h2', {id: s.id + '-title'}, s.name), content)));
  document.getElementById('contents').replaceChildren(...made.map(([s]) => el('a', {href: '#' + s.id}, s.name)));
}

function renderHead() {
  const head = document.getElementById('headline');
  head.append(...runs.map(run => el('p', {}, headline(run))),
      ...runs.flatMap(run => run.notes.map(text => el('p', {class: 'note'}, title(run) + text))));
  if (!several) return;
  const choose = el('select', {
    id: 'run',
    onchange: () => {
      state.run = Number(choose.value);
      render();
    }
  },
      runs.map((run, i) => el('option', {value: i}, run.name)));
  head.append(el('div', {class: 'controls'}, el('label', {}, 'Experts and images of', choose)));
}

const theme = document.getElementById('theme');
const isDark = () =>
    (document.documentElement.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  theme.textContent = isDark() ? 'Light' : 'Dark';
  theme.setAttribute('aria-label', `Change to ${isDark() ? 'light' : 'dark'} colours`);
}
theme.addEventListener('click', () => setTheme(isDark() ? 'light' : 'dark'));

/// Once sections.js has said what there is.
function start() {
  setTheme((location.hash.match(/theme=(light|dark)/) || [])[1]);
  renderHead();
  render();
  document.body.append(el('footer', {class: 'soft'},
      el('div', {style: 'max-width: 76rem; margin: auto; padding: 0 1rem'}, 'Made by ermoe-report. This page needs no network.')));
}
