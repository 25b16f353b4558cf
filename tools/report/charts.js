// Small charts without a library. Each function takes data and returns elements; what it draws can be read without a mouse: axes and
// units, values in the legend, arrow keys instead of hovering, a table behind every chart. sections.js says what is drawn.

// Experts, classes and runs: made for colour-blind eyes as far as that goes with 32 (palette.py says how). Numbers always stand beside.
const palette = [
  '#0072b2',
  '#e69f00',
  '#009e73',
  '#d55e00',
  '#cc79a7',
  '#56b4e9',
  '#f0e442',
  '#992222',
  '#33eeee',
  '#9966ff',
  '#bbbb99',
  '#5511dd',
  '#774466',
  '#995555',
  '#bbdd88',
  '#6633aa',
  '#bb4400',
  '#cc33cc',
  '#7733ff',
  '#66ccff',
  '#886688',
  '#ddcc00',
  '#9988ff',
  '#88bb66',
  '#cc99bb',
  '#99ddbb',
  '#dd00aa',
  '#ee7722',
  '#66aa66',
  '#aa0088',
  '#445588',
  '#aa88cc',
];
const color = i => i < 0 ? '#888888' : palette[i % palette.length];

/// Of a line, which wants more contrast to the page than a patch does to its neighbour.
const tone = code => `light-dark(color-mix(in oklab, ${code} 85%, black), color-mix(in oklab, ${code} 70%, white))`;

/// Black or white, whichever is read better on a colour.
function inkOn(code) {
  const [r, g, b] = [1, 3, 5].map(i => (parseInt(code.slice(i, i + 2), 16) / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.2 ? '#000' : '#fff';
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat(Infinity).filter(c => c !== null && c !== undefined));
  return node;
}
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes, ...children) => fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

/// Four digits at most; thousands are set apart.
function num(v) {
  if (v === null || v === undefined || !Number.isFinite(v)) return '–';
  if (v !== 0 && Math.abs(v) < 1e-4) return v.toExponential(1).replace('e-', 'e−');
  if (Number.isInteger(v) || Math.abs(v) >= 1000) return Math.round(v).toLocaleString('en');
  return String(Number(v.toPrecision(4)));
}
const fixed = v => v === null || v === undefined ? '–' : v.toFixed(3);
const percent = (v, digits = 1) => v === null || v === undefined ? '–' : (100 * v).toFixed(digits) + ' %';

// One box for whatever is pointed at or focused.
const tip = document.getElementById('tip');
function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 4)) + 'px';
  tip.style.top = (y + box.height + 24 > innerHeight ? y - box.height - 10 : y + 16) + 'px';
}
const hideTip = () => {
  tip.hidden = true;
};
addEventListener('pointermove', event => {
  const target = event.target.closest && event.target.closest('[data-tip]');
  if (target) showTip(target.dataset.tip, event.clientX, event.clientY);
  else if (!event.target.closest || !event.target.closest('svg.chart')) hideTip();
});
addEventListener('scroll', hideTip, {passive: true});

/// Round steps that cover low to high in about `count` parts.
function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= raw * 0.999);
  const all = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) all.push(Number((i * step).toPrecision(12)));
  return all;
}

/// The ends of all values, a little apart where they are one.
function ends(values, include) {
  const all = values.concat(include || []);
  let low = Infinity, high = -Infinity;
  for (const v of all) {
    low = Math.min(low, v);
    high = Math.max(high, v);
  }
  if (!Number.isFinite(low)) return [0, 1];
  const apart = low === high ? Math.abs(low) * 0.05 || 1 : 0;
  return [low - apart, high + apart];
}

/// Axes with ticks, grid and names; returns the drawing and where a value lies on it.
function axes(width, height, x, y, label) {
  const show = (axis, v) => (axis.show ? axis.show(v) : num(v)).replace('.0 %', ' %');
  const heights = ticks(y.low, y.high, 5);
  const left = 30 + 7 * Math.max(...heights.map(v => show(y, v).length)), right = 14, top = 10, bottom = 42;
  const px = v => left + (v - x.low) / (x.high - x.low) * (width - left - right);
  const py = v => height - bottom - (v - y.low) / (y.high - y.low) * (height - top - bottom);
  const parts = [];
  for (const v of heights)
    parts.push(draw('line', {class: 'grid', x1: left, x2: width - right, y1: py(v), y2: py(v)}),
        draw('text', {x: left - 6, y: py(v) + 4, 'text-anchor': 'end'}, show(y, v)));
  for (const v of ticks(x.low, x.high, Math.max(4, Math.floor(width / 90))))
    parts.push(draw('line', {class: 'axis', x1: px(v), x2: px(v), y1: height - bottom, y2: height - bottom + 4}),
        draw('text', {x: px(v), y: height - bottom + 17, 'text-anchor': 'middle'}, show(x, v)));
  parts.push(draw('line', {class: 'axis', x1: left, x2: width - right, y1: height - bottom, y2: height - bottom}),
      draw('text', {x: (left + width - right) / 2, y: height - 6, 'text-anchor': 'middle'}, x.name),
      draw('text',
          {x: 12, y: (top + height - bottom) / 2, 'text-anchor': 'middle', transform: `rotate(-90 12 ${(top + height - bottom) / 2})`},
          y.name));
  const svg =
      draw('svg', {class: 'chart', width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label, tabindex: 0}, parts);
  return {svg, px, py, left, right: width - right, top, bottom: height - bottom};
}

// Charts are drawn as wide as they may be, and again when that changes.
const watcher = new ResizeObserver(entries => requestAnimationFrame(() => entries.forEach(entry => entry.target.redraw())));

/// A place whose content `make(width)` draws.
function drawn(make) {
  const host = el('div', {class: 'plot'});
  let last = 0;
  host.redraw = () => {
    const width = Math.round(host.clientWidth);
    if (width < 50 || width === last) return;
    last = width;
    host.replaceChildren(make(width));
  };
  queueMicrotask(host.redraw);  // as soon as it has its place in the page
  watcher.observe(host);
  return host;
}

function swatch(series) {
  const shape = series.dots ?
      draw('circle', {cx: 11, cy: 6, r: 4, style: `fill: ${tone(series.color)}`}) :
      draw('line',
          {x1: 0, x2: 22, y1: 6, y2: 6, style: `stroke: ${tone(series.color)}`, 'stroke-width': 3, 'stroke-dasharray': series.dash});
  return draw('svg', {width: 22, height: 12, 'aria-hidden': 'true'}, shape);
}

/// Rows behind a chart, made when they are asked for.
function tableOf(heads, rows) {
  const details = el('details', {}, el('summary', {}, 'As a table'));
  details.addEventListener('toggle', () => {
    if (!details.open || details.children.length > 1) return;
    const body = rows().map(row => el('tr', {}, row.map((cell, i) => i === 0 ? el('th', {scope: 'row'}, cell) : el('td', {}, cell))));
    details.append(el('div', {class: 'scroll', tabindex: 0},
        el('table', {}, el('thead', {}, el('tr', {}, heads.map(h => el('th', {scope: 'col'}, h)))), el('tbody', {}, body))));
  });
  return details;
}

/// What a cursor over lines says: every series' value at the x nearest to the one pointed at.
function addCursor(svg, frame, xs, says) {
  const line = draw('line', {class: 'cursor', y1: frame.top, y2: frame.bottom, visibility: 'hidden'});
  svg.append(line);
  let at = xs.length - 1;
  const place = (i, clientX, clientY) => {
    at = i;
    const x = frame.px(xs[i]), box = svg.getBoundingClientRect();
    line.setAttribute('x1', x);
    line.setAttribute('x2', x);
    line.setAttribute('visibility', 'visible');
    showTip(says(xs[i]), clientX ?? box.left + x, clientY ?? box.top + frame.top);
  };
  const hide = () => {
    line.setAttribute('visibility', 'hidden');
    hideTip();
  };
  svg.addEventListener('pointermove', event => {
    const x = event.clientX - svg.getBoundingClientRect().left;
    let best = 0;
    for (let i = 1; i < xs.length; i++)
      if (Math.abs(frame.px(xs[i]) - x) < Math.abs(frame.px(xs[best]) - x)) best = i;
    place(best, event.clientX, event.clientY);
  });
  svg.addEventListener('pointerleave', hide);
  svg.addEventListener('blur', hide);
  svg.addEventListener('keydown', event => {
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!step) return;
    event.preventDefault();
    place(Math.max(0, Math.min(xs.length - 1, at + step)));
  });
}

/// Lines over x. `series`: {name, color, dash, x: […], y: […]}, null where there is no value. `x`, `y`: {name, show, include}.
function lineChart({title, caption, series, x, y}) {
  const lines =
      series.map(s => ({...s, points: s.x.map((v, i) => [v, s.y[i]]).filter(p => p[0] !== null && p[1] !== null && p[1] !== undefined)}))
          .filter(s => s.points.length > 0);
  const show = y.show || num;
  const xs = [...new Set(lines.flatMap(s => s.points.map(p => p[0])))].sort((a, b) => a - b);
  const at = new Map(lines.map(s => [s, new Map(s.points)]));
  const says = v => `${x.name} ${num(v)}` + lines.filter(s => at.get(s).has(v)).map(s => `\n${s.name}: ${show(at.get(s).get(v))}`).join('');
  const [xlow, xhigh] = ends(xs), [ylow, yhigh] = ends(lines.flatMap(s => s.points.map(p => p[1])), y.include);
  const plot = drawn(width => {
    const room = (yhigh - ylow) * 0.04;
    const low = y.include && y.include.includes(ylow) ? ylow : ylow - room;
    const frame = axes(width, 280, {...x, low: xlow, high: xhigh}, {...y, low, high: yhigh + room}, `${title}: ${y.name} over ${x.name}`);
    for (const s of lines) {
      const path = s.points.map((p, i) => (i ? 'L' : 'M') + frame.px(p[0]).toFixed(1) + ' ' + frame.py(p[1]).toFixed(1)).join('');
      frame.svg.append(draw('path', {class: 'series', d: path, style: `stroke: ${tone(s.color)}`, 'stroke-dasharray': s.dash}));
      if (s.points.length < 25 && !s.bare)
        for (const p of s.points)
          frame.svg.append(draw('circle', {cx: frame.px(p[0]), cy: frame.py(p[1]), r: 3, style: `fill: ${tone(s.color)}`}));
    }
    addCursor(frame.svg, frame, xs, says);
    return frame.svg;
  });
  const legend = el('ul', {class: 'legend'},
      lines.map(s => el('li', {}, swatch(s), el('span', {}, `${s.name}: ${s.says || show(s.points[s.points.length - 1][1])}`))));
  const table = tableOf(
      [x.name, ...lines.map(s => s.name)], () => xs.map(v => [num(v), ...lines.map(s => at.get(s).has(v) ? show(at.get(s).get(v)) : '')]));
  return el('figure', {}, el('h3', {}, title), plot, legend, caption && el('figcaption', {}, caption), table);
}

/// Bars from 0, with their values on top. `line`: {value, name} a level to compare with.
function barChart({title, caption, names, values, colors, y, line}) {
  const plot = drawn(width => {
    const high = Math.max(...values, line ? line.value : 0) * 1.15 || 1;
    const frame = axes(width, 230, {name: '', low: 0, high: values.length, show: () => ''}, {...y, low: 0, high},
        `${title}: ` + names.map((n, i) => `${n} ${y.show(values[i])}`).join(', '));
    const each = (frame.right - frame.left) / values.length, every = [1, 2, 5, 10, 50].find(n => n * each > 20);
    if (line)
      frame.svg.append(
          draw('line', {class: 'cursor', x1: frame.left, x2: frame.right, y1: frame.py(line.value), y2: frame.py(line.value)}));
    values.forEach((v, i) => {
      const left = frame.left + i * each + each * 0.12, wide = each * 0.76;
      frame.svg.append(draw('rect', {
        x: left,
        width: wide,
        y: frame.py(v),
        height: frame.bottom - frame.py(v),
        fill: colors[i],
        'data-tip': `${names[i]}: ${y.show(v)}`
      }));
      if (each > 30)
        frame.svg.append(draw('text', {class: 'above', x: left + wide / 2, y: frame.py(v) - 5, 'text-anchor': 'middle'}, y.bare(v)));
      if (i % every === 0) frame.svg.append(draw('text', {x: left + wide / 2, y: frame.bottom + 17, 'text-anchor': 'middle'}, String(i)));
    });
    frame.svg.append(draw('text', {x: (frame.left + frame.right) / 2, y: 224, 'text-anchor': 'middle'}, 'expert'));
    return frame.svg;
  });
  return el('figure', {}, el('h3', {}, title), plot, caption && el('figcaption', {}, caption),
      tableOf(['', y.name], () => names.map((n, i) => [n, y.show(values[i])])));
}

/// A dot for each [x, y, name], on the same scale both ways, with the line x = y.
function scatterChart({title, caption, points, x, y}) {
  const [low, high] = ends(points.flatMap(p => [p[0], p[1]]));
  const room = (high - low) * 0.05, scale = {low: low - room, high: high + room};
  const plot = drawn(width => {
    const frame = axes(
        width, Math.min(width, 480), {...x, ...scale}, {...y, ...scale}, `${title}: ${y.name} over ${x.name}, ${points.length} points`);
    frame.svg.append(draw(
        'line', {class: 'axis', x1: frame.px(scale.low), y1: frame.py(scale.low), x2: frame.px(scale.high), y2: frame.py(scale.high)}));
    for (const p of points)
      frame.svg.append(draw('circle', {
        cx: frame.px(p[0]),
        cy: frame.py(p[1]),
        r: 4,
        style: `fill: ${tone(color(0))}`,
        'fill-opacity': 0.6,
        'data-tip': `${p[2]}: ${x.name} ${num(p[0])}, ${y.name} ${num(p[1])}`
      }));
    return frame.svg;
  });
  return el('figure', {}, el('h3', {}, title), plot, caption && el('figcaption', {}, caption),
      tableOf(['', x.name, y.name], () => points.map(p => [p[2], num(p[0]), num(p[1])])));
}

/// A table whose cells are coloured by value, `high` the darkest. `show(v)`: what stands in a cell; `says(row, column)`: what pointing
/// tells; `plain(row, column)`: cells without a colour.
function heatMap({title, caption, rows, columns, values, high, show, says, plain, corner, turned}) {
  const cell = (v, r, c) => {
    const share = plain && plain(r, c) ? 0 : Math.max(0, Math.min(1, v / (high || 1)));
    return el('td', {
      style: `background: color-mix(in oklab, var(--heat-high) ${(100 * share).toFixed(0)}%, var(--heat-low)); ` +
          `color: var(--heat-ink-${share > 0.5 ? 'high' : 'low'})`,
      'data-tip': says && says(r, c)
    },
        show(v));
  };
  const head = el('tr', {}, el('th', {class: 'left'}, corner),
      columns.map(c => el('th', {scope: 'col'}, turned ? el('span', {class: 'turned'}, c) : c)));
  const body = rows.map((name, r) => el('tr', {}, el('th', {scope: 'row'}, name), values[r].map((v, c) => cell(v, r, c))));
  return el('figure', {class: columns.length > 12 && 'broad'}, el('h3', {}, title),
      el('div', {class: 'scroll', tabindex: 0, role: 'group', 'aria-label': title},
          el('table', {class: 'heat'}, el('thead', {}, head), el('tbody', {}, body))),
      caption && el('figcaption', {}, caption));
}

/// An expert's number in its colour.
const chip = e => el('span', {class: 'chip', style: `background: ${color(e)}; color: ${inkOn(color(e))}`}, String(e));
