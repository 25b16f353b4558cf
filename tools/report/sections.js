// What the page shows: data to sections, by the charts of charts.js. Runs are laid over each other in the curves; everything about single
// experts and images is of the run that is chosen above. A section without anything to show returns null.

section('curves', 'Curves', () => {
  const step = {name: 'step'};
  const pair = (name, label) => seriesOf([{split: 'train', name, label: 'training'}, {split: 'eval', name, label, dash: '6 4'}]);
  const purity = several ? [] : Object.keys(current().curves.purity || {}).filter(name => /^purity_(?!ratio)/.test(name));
  const share = percents => percents / 100;
  const charts = [
    [
      'Loss', pair('loss', 'evaluation'), {name: 'loss'},
      'Training losses are means since the row before, of images as they were varied and labels as they were smoothed; the losses of evaluations are of plain images.'
    ],
    [
      'Accuracy',
      seriesOf([{split: 'eval', name: 'accuracy', label: 'first guess'}, {split: 'eval', name: 'top5', label: 'among five', dash: '6 4'}]),
      {name: 'share of images right', show: percent}
    ],
    [
      'Mean absolute error', seriesOf([{split: 'eval', name: 'mae', label: 'evaluation'}]),
      {name: 'mean |predicted − true|, years', include: [0]}
    ],
    [
      'Recall', seriesOf([
        {split: 'eval', name: 't2i_r10', label: 'captions find their image, first 10', scale: share},
        {split: 'eval', name: 't2i_r1', label: 'captions find their image, first', dash: '6 4', scale: share},
        {split: 'eval', name: 'i2t_r10', label: 'images find a caption of theirs, first 10', scale: share},
        {split: 'eval', name: 'i2t_r1', label: 'images find a caption of theirs, first', dash: '6 4', scale: share}
      ]),
      {name: 'share found', show: percent, include: [0]}
    ],
    ['Learning rate', seriesOf([{split: 'train', name: 'lr', label: 'learning rate'}]), {name: 'learning rate', include: [0]}],
    ['Gradient norm', seriesOf([{split: 'train', name: 'grad_norm', label: 'before clipping'}]), {name: 'global norm', include: [0]}],
    [
      'Gradient purity', seriesOf(purity.map(name => ({split: 'purity', name, label: name.slice(7).replace('/', ', by ')}))),
      {name: 'cosine', include: [-1, 1]},
      'How far the added loss terms pull parameters where the task does: 1 the same way, 0 across, −1 against it.'
    ],
  ];
  return el('div', {class: 'row'},
      charts.filter(c => c[1].length > 0).map(([name, series, y, caption]) => lineChart({title: name, series, x: step, y, caption})));
});

section('recall', 'How well images and captions find each other', () => {
  const recall = current().recall;
  if (!recall) return null;
  const heads = ['R@1', 'R@5', 'R@10', 'median rank', 'mean rank'];
  const row = (name, f) => el('tr', {}, el('th', {scope: 'row'}, name),
      [f.recall_1, f.recall_5, f.recall_10].map(v => el('td', {}, percent(v))), [f.median_rank, f.mean_rank].map(v => el('td', {}, num(v))));
  const rows = of => [row('image to text', of.to_text), row('text to image', of.to_image)];
  const table = (title, of, caption) => el('figure', {}, el('h3', {}, title),
      el('div', {class: 'scroll', tabindex: 0}, el('table', {},
          el('thead', {}, el('tr', {}, el('td', {}), heads.map(h => el('th', {scope: 'col'}, h)))), el('tbody', {}, rows(of)))),
      el('figcaption', {}, `rsum ${of.rsum.toFixed(1)}. ${caption}`));
  const images = current().images;
  const all = table(`${num(images)} images, ${num(recall.captions)} captions`, recall,
      `R@K: the share that has what it looks for among the first K. An image looks for any of its captions. By chance a caption finds its image among the first 10 in ${
          percent(Math.min(1, 10 / images))}.`);
  return el('div', {class: 'row'}, all, recall.folds ? table('1,000 images at a time, five times', recall.folds, 'Means.') : null);
});

section('found', 'What captions find', () => {
  const found = current().found;
  if (!found) return null;
  const picture = number => found.pictures[number];
  const image = (number, text, own) => el('figure', {class: own ? 'own' : ''},
      picture(number).image ? el('img', {src: picture(number).image, alt: picture(number).name}) : el('p', {}, 'cannot be read'),
      el('figcaption', {'data-tip': picture(number).name}, text));
  const one = f => el('div', {class: 'card', style: 'margin-bottom: .8rem'}, el('h3', {}, f.caption),
      el('div', {class: 'finds'},
          f.best.map((b, k) => image(b.image, `${b.image === f.own ? '✓ ' : ''}${k + 1}: ${fixed(b.score)}`, b.image === f.own)),
          f.best.some(b => b.image === f.own) ? null : image(f.own, `its own image, at place ${num(f.place)}`, true)));
  return [
    el('p', {}, 'Captions from all over the split, and the images closest to each with their cosines, best first. Its own image is framed.'),
    found.chosen.map(one),
    found.worst.length ? [el('h3', {style: 'margin-top: 1.2rem'}, 'Captions whose image comes last'), found.worst.map(one)] : null
  ];
});

section('ages', 'Ages', () => {
  const ages = current().ages;
  if (!ages) return null;
  const m = ages.report.as_predicted, within = ` (95 % interval ${num(m.mae_interval[0])} to ${num(m.mae_interval[1])})`;
  const rows = [
    ['subjects', num(ages.report.volumes)], ['mean absolute error, years', num(m.mae) + within],
    ['root mean square error, years', num(m.rmse)], ['Pearson’s r', num(m.r)], ['R²', num(m.r2)],
    ['mean of predicted − true, years', num(m.mean_gap)],
    ['always the training mean: mean error, years', num(ages.report.mean_predictor_mae)]
  ];
  return el('div', {class: 'row'}, scatterChart({
    title: 'Predicted over true age',
    points: ages.points,
    x: {name: 'true age, years'},
    y: {name: 'predicted age, years'},
    caption: 'Each dot is a subject; on the line the prediction is right.'
  }),
      el('figure', {}, el('h3', {}, 'Errors'),
          el('div', {class: 'scroll', tabindex: 0}, el('table', {}, el('tbody', {}, rows.map(([name,
            value]) => el('tr', {}, el('th', {scope: 'row'}, name), el('td', {}, value))))))));
});

/// Loads are of the scored experts, then of replicas.
const loadName = (l, e) => e < l.experts ? 'expert ' + e : 'replica ' + (e - l.experts);

/// What an evaluation logged of each expert's load, as series.
function loadSeries(l) {
  return Array
      .from({length: l.load ? l.load.length : l.experts}, (_, e) => ({
        name: loadName(l, e),
        color: color(e),
        dash: ['', '7 3', '2 3', '9 3 2 3'][Math.floor(e / 8) % 4],
        x: column(current(), 'eval', 'step'),
        y: column(current(), 'eval', `${blockKey(l)}/load/${e}`)
      }))
      .filter(s => s.y !== null);
}

section('load', 'Load of the experts', () => {
  if (current().layers.length === 0) return null;
  const step = {name: 'step'};
  const gini = byLayer('gini'), churn = byLayer('churn').filter(s => s.y.some(v => v !== null));
  return [
    el('p', {},
        'The share of a layer’s filled slots that each expert takes (of soft routing: its share of the tokens’ outputs), over the whole evaluation split. Where all take the same the Gini coefficient is 0; where one takes all it is nearly 1.'),
    layerSlider(), view(() => {
      const l = layer(), series = loadSeries(l);
      const shown = {name: 'share of the load', show: percent, bare: v => (100 * v).toFixed(1), include: [0]};
      const over = series.length ? lineChart({title: `Load over training, ${blockName(l)}`, series, x: step, y: shown}) :
                                   el('p', {class: 'card soft'}, 'This run did not log the load of each expert.');
      const now = l.load && barChart({
        title: `Load at step ${num(current().step)}, ${blockName(l)}: Gini ${fixed(l.gini)}`,
        names: l.load.map((_, e) => loadName(l, e)),
        values: l.load,
        colors: l.load.map((_, e) => color(e)),
        y: shown,
        line: {value: 1 / l.load.length},
        caption: `In percent; the dashed line is the equal share. ${l.dead} of ${
            l.load.length} experts have less than a hundredth of their equal share.`
      });
      return el('div', {class: 'row'}, over, now);
    }),
    el('div', {class: 'row', style: 'margin-top: 1rem'},
        gini.length ? lineChart({
          title: several ? 'Load Gini of the runs' : 'Load Gini by layer',
          series: gini,
          x: step,
          y: {name: 'Gini of the load', show: fixed, include: [0]}
        }) :
                      null,
        churn.length ? lineChart({
          title: several ? 'Routing churn of the runs' : 'Routing churn by layer',
          series: churn,
          x: step,
          y: {name: 'share of tokens', show: percent, include: [0]},
          caption: 'Tokens of the evaluation split whose first expert is another than at the evaluation before.'
        }) :
                       null)
  ];
});

/// A figure that evaluations log of every layer: of one run by layer, of several the mean of each run's layers. Below 0 it says "none".
function byLayer(name) {
  const of = (run, l) => (column(run, 'eval', `${blockKey(l)}/${name}`) || []).map(v => v === null || v < 0 ? null : v);
  const mean = run => {
    const all = run.layers.map(l => of(run, l)).filter(c => c.length);
    return (all[0] || []).map((_, i) => all.some(c => c[i] === null) ? null : all.reduce((sum, c) => sum + c[i], 0) / all.length);
  };
  const x = run => column(run, 'eval', 'step');
  const series = several ?
      runs.map((run, i) => ({name: run.name + ', mean of layers', color: color(i), x: x(run), y: mean(run)})) :
      current().layers.map((l, i) => ({name: blockName(l), color: color(i), x: x(current()), y: of(current(), l)}));
  return series.filter(s => s.y.length);
}

const most_classes = 40, nats = v => v.toFixed(4);

section('classes', 'Experts and classes', () => {
  if (!current().layers.some(l => l.class_counts)) return null;
  return [
    layerSlider(), view(() => {
      const l = layer(), names = current().classes;
      const total = names.map((_, y) => l.class_counts.reduce((sum, row) => sum + row[y], 0));
      const share = (y, e) => total[y] ? l.class_counts[e][y] / total[y] : 0;
      const mean = l.class_counts.map(row => row.reduce((a, b) => a + b, 0) / Math.max(1, total.reduce((a, b) => a + b, 0)));
      const unlike = names.map((_, y) => mean.reduce((sum, m, e) => sum + Math.abs(share(y, e) - m), 0));
      const shown = names.map((_, y) => y).sort((a, b) => unlike[b] - unlike[a]).slice(0, most_classes).sort((a, b) => a - b);
      const values = shown.map(y => mean.map((_, e) => share(y, e)));
      const some = shown.length < names.length ? ` The ${shown.length} classes that differ most from the mean, of ${names.length}.` : '';
      const over = (name, label, k, dash) => ({
        name: label,
        color: color(k),
        dash,
        x: column(current(), 'eval', 'step'),
        y: column(current(), 'eval', `${blockKey(l)}/${name}`)
      });
      const lines = [over('class_information', 'seen', 0), over('class_information_null', 'by chance', 1, '6 4')].filter(s => s.y);
      return [
        el('p', {},
            `Mutual information of expert and class: ${
                nats(l.information)} nats; with the images’ classes permuted, which is what chance gives, ${
                nats(l.information_null)} nats.`),
        el('div', {class: 'row'}, heatMap({
          title: `Where the tokens of each class go first, ${blockName(l)}`,
          rows: [...shown.map(y => names[y]), 'all classes'],
          columns: expertNames(l).map((_, e) => String(e)),
          values: [...values, mean],
          high: Math.max(...values.flat()),
          show: v => (100 * v).toFixed(0),
          corner: 'class \\ expert',
          says: (r, e) => `${r < shown.length ? names[shown[r]] : 'all'} → expert ${e}: ${percent([...values, mean][r][e])}`,
          caption: `Percent of a class’s tokens that an expert takes first (of soft routing: has the largest part of); each row sums to 100.${some}`
        }),
            lines.length ? lineChart({
              title: `Information over training, ${blockName(l)}`,
              series: lines,
              x: {name: 'step'},
              y: {name: 'nats', show: nats, include: [0]}
            }) :
                           null)
      ];
    })
  ];
});

/// An image under its patches' colours; `numbers`: also the experts' numbers.
function patches(sample, l, numbers) {
  const [rows, columns] = current().grid, ids = sample.experts[l];
  const picture = draw('svg', {
    class: 'patch',
    viewBox: `0 0 ${columns * 10} ${rows * 10}`,
    role: 'img',
    'aria-label': `Patches by expert, row by row: ${ids.join(' ')}`
  },
      draw('image', {
        href: sample.image,
        width: columns * 10,
        height: rows * 10,
        preserveAspectRatio: 'none',
        style: 'filter: grayscale(1); image-rendering: pixelated'
      }));
  ids.forEach((e, p) => {
    const x = p % columns * 10, y = Math.floor(p / columns) * 10;
    picture.append(draw('rect', {
      x,
      y,
      width: 10,
      height: 10,
      fill: color(e),
      'fill-opacity': 0.62,
      'data-tip': numbers ? `row ${y / 10}, column ${x / 10}: ` + (e < 0 ? 'no expert' : 'expert ' + e) : null
    }));
    if (numbers) picture.append(draw('text', {x: x + 5, y: y + 5, style: 'font-size: 4.2px; stroke-width: .7px'}, e < 0 ? '–' : String(e)));
  });
  return picture;
}

/// The file's own name, or its image's number in a file of many; pointing tells the whole.
const file = s => el('span', {class: 'soft', 'data-tip': s.name}, s.name.replace(/.*\[(\d+)\]$/, 'image $1').replace(/.*\//, ''));

function verdict(s) {
  const names = current().classes, right = s.truth === s.guess;
  return el('span', {class: right ? '' : 'bad'},
      right ? `✓ ${names[s.guess]} ${percent(s.probability, 0)}` :
              `✗ ${names[s.guess]} ${percent(s.probability, 0)}, is ${names[s.truth]}`);
}

section('images', 'Which expert takes which patch', () => {
  const run = current();
  const samples = (run.samples || []).filter(s => s.experts);
  if (!samples.length || !run.layers.length) return null;
  const most = samples.length - 1;
  const pick = slider('sample', 'Image', samples.length, i => `${i + 1} of ${samples.length}`, refresh);
  return [
    el('p', {}, 'Each patch in the colour, and with the number, of the expert that took it first.'),
    el('div', {class: 'controls'},
        run.layers.length > 1 ? slider('layer', 'Layer', run.layers.length, i => blockName(run.layers[i]), refresh) : null, pick),
    view(() => {
      const s = samples[Math.min(state.sample, most)], used = [...new Set(s.experts[state.layer])].sort((a, b) => a - b);
      return el('div', {class: 'card'},
          el('div', {class: 'pair'},
              el('div', {}, el('img', {class: 'pixels', src: s.image, alt: `Image ${s.name}: ${run.classes[s.truth]}`}),
                  el('div', {}, verdict(s)), file(s)),
              el('div', {}, patches(s, state.layer, true),
                  el('div', {}, `${blockName(layer())}: `,
                      used.filter(e => e >= 0).map(e => [chip(e), ` ×${s.experts[state.layer].filter(x => x === e).length} `])))));
    }),
    view(() => el('div', {class: 'gallery', style: 'margin-top: .8rem'},
             samples.map((s, i) => el('button', {
               type: 'button',
               'aria-pressed': String(i === state.sample),
               'aria-label': `Image ${i + 1}, ${run.classes[s.truth]}`,
               onclick: () => {
                 state.sample = i;
                 refresh();
               }
             },
                             patches(s, state.layer, false), el('span', {class: 'caption'}, verdict(s))))))
  ];
});

section('favourites', 'What each expert likes best', () => {
  if (!current().layers.some(l => l.favourites && l.favourites.some(Boolean))) return null;
  return [
    el('p', {},
        'The framed patches are those that an expert scored highest among all that it took first, one an image; around each is what surrounds it.'),
    layerSlider(),
    view(() => el('div', {class: 'gallery large'},
             layer().favourites.map(
                 (image, e) => el('figure', {},
                     el('div', {style: 'margin-bottom: .3rem'}, chip(e), layer().load ? ' ' + percent(layer().load[e]) : ''),
                     image ? el('img', {src: image, alt: `The patches that expert ${e} of ${blockName(layer())} scored highest`}) :
                             el('div', {class: 'soft'}, 'took no patch first')))))
  ];
});

section('maps', 'Where experts look', () => {
  if (!current().maps) return null;
  return [
    el('p', {},
        'Each expert’s mean weight over the mean brain: a sagittal, a coronal and an axial slice through the place where it is highest.'),
    layerSlider(), view(() => {
      const map = current().maps[state.layer];
      return el('figure', {}, el('div', {class: 'scroll', tabindex: 0}, el('img', {src: map.image, alt: map.title})));
    })
  ];
});

section('weights', 'Experts’ weights', () => {
  if (!current().layers.some(l => l.spectra || l.overlap)) return null;
  return [
    layerSlider(), view(() => {
      const l = layer(), charts = [];
      if (l.spectra)
        for (const name of ['W1', 'W2'])
          charts.push(lineChart({
            title: `Singular values of ${name}, ${blockName(l)}`,
            x: {name: 'place, largest first'},
            y: {name: 'singular value', include: [0]},
            series: l.spectra[name].map((y, e) => ({
              name: 'expert ' + e,
              color: color(e),
              bare: true,
              x: l.spectra.place,
              y,
              says: `${num(y[0])} … ${num(y[y.length - 1])}`
            }))
          }));
      if (l.overlap) charts.push(overlapMap(l));
      return el('div', {class: 'row'}, charts);
    }),
    el('p', {class: 'soft'},
        'W1 leads into an expert’s hidden layer, W2 out of it. Of eigen experts the values are their scales |s|, which are singular values as long as the factors are orthonormal.')
  ];
});

function overlapMap(l) {
  const {matrix, rank, width} = l.overlap, off = matrix.flatMap((row, a) => row.filter((_, b) => a !== b)),
                       names = matrix.map((_, e) => String(e));
  return heatMap({
    title: `Overlap of experts’ subspaces, ${blockName(l)}`,
    rows: names,
    columns: names,
    values: matrix,
    corner: '',
    show: v => v.toFixed(2),
    high: Math.max(0.05, ...off),
    plain: (a, b) => a === b,
    says: (a, b) => `experts ${a} and ${b}: ${num(matrix[a][b])}`,
    caption: `‖AᵀB‖²/R of bases A and B, R = ${rank} directions of ${width}: 1 the same, 0 nothing in common, ${
        num(rank / width)} by chance. Mean of pairs ${num(off.reduce((a, b) => a + b, 0) / off.length)}; the diagonal is each with itself.`
  });
}

section('confusion', 'What is taken for what', () => {
  const run = current(), matrix = run.confusion, names = run.classes;
  if (!matrix) return null;
  const totals = matrix.map(row => row.reduce((a, b) => a + b, 0));
  const slips =
      matrix.flatMap((row, y) => row.map((n, k) => ({y, k, n}))).filter(s => s.y !== s.k && s.n > 0).sort((a, b) => b.n - a.n).slice(0, 12);
  const worst = el('figure', {}, el('h3', {}, 'Most frequent mistakes'),
      el('div', {class: 'scroll', tabindex: 0},
          el('table', {}, el('thead', {}, el('tr', {}, ['is', 'taken for', 'images',
            'of its class'].map((h, i) => el('th', {scope: 'col', class: i < 2 ? 'left' : ''}, h)))),
              el('tbody', {},
                  slips.map(s => el('tr', {}, el('td', {class: 'left'}, names[s.y]), el('td', {class: 'left'}, names[s.k]),
                                el('td', {}, num(s.n)), el('td', {}, percent(s.n / totals[s.y]))))))));
  const map = names.length > most_classes ?
      el('p', {class: 'card soft'},
          `A matrix of ${names.length} classes would not be read; these are its largest cells off the diagonal.`) :
      heatMap({
        title: 'Confusion matrix',
        rows: names,
        columns: names,
        turned: true,
        corner: 'is \\ taken for',
        values: matrix.map((row, y) => row.map(n => totals[y] ? n / totals[y] : 0)),
        high: 1,
        show: v => v ? (100 * v).toFixed(0) : '·',
        says: (r, c) => `${names[r]} taken for ${names[c]}: ${num(matrix[r][c])} of ${num(totals[r])}`,
        caption: 'Percent of the images of a class (row) that are taken for each class (column).'
      });
  return el('div', {class: 'row'}, map, worst);
});

section('mistakes', 'Worst mistakes', () => {
  const run = current();
  if (run.ages)
    return el('div', {class: 'gallery wide'},
        run.ages.worst.map(w => el('figure', {}, el('img', {src: w.image, alt: `Slices through ${w.name}`}),
                               el('figcaption', {}, `${w.name}: ${num(w.truth)} years, predicted ${num(w.predicted)}`))));
  if (!run.mistakes || !run.mistakes.length) return null;
  return [
    el('p', {}, 'The wrong guesses that the model was surest of.'),
    el('div', {class: 'gallery'},
        run.mistakes.map(
            s => el('figure', {},
                el('img', {class: 'pixels', src: s.image, alt: `${s.name}: ${run.classes[s.truth]}, taken for ${run.classes[s.guess]}`}),
                el('figcaption', {}, verdict(s), el('br'), file(s)))))
  ];
});

section('time', 'Where the time goes', () => {
  const each = run => (column(run, 'train', 'images_per_s') || []).map(v => v ? 1000 * run.batch / v : null);
  const waits = run => column(run, 'train', 'data_wait_share');
  const series = runs.flatMap((run, i) => {
    const step = column(run, 'train', 'step'), total = each(run), wait = waits(run);
    if (!total.length) return [];
    const paint = k => color(several ? i : k);
    return [
      {name: title(run) + 'whole step', color: paint(0), x: step, y: total}, wait && {
        name: title(run) + 'of it waiting for data',
        color: paint(1),
        dash: '6 4',
        x: step,
        y: total.map((v, k) => v === null ? null : v * wait[k])
      }
    ].filter(Boolean);
  });
  const memory = seriesOf([{split: 'train', name: 'memory_mib', label: 'peak'}]);
  return series.length ?
      el('div', {class: 'row'},
          lineChart({title: 'Time of a training step', series, x: {name: 'step'}, y: {name: 'milliseconds', include: [0]}}),
          memory.length ? lineChart({title: 'Memory', series: memory, x: {name: 'step'}, y: {name: 'MiB of the engine', include: [0]}}) :
                          null) :
      null;
});

section('runs', several ? 'Runs and how they differ' : 'The run and its settings', () => {
  const rows = [
    ['folder', r => r.folder], ['checkpoint', r => 'step ' + num(r.step)],
    ['data', r => r.data ? `${r.data} (${r.split}, ${num(r.images)})` : '–'],
    ['accuracy', r => r.accuracy === undefined ? null : percent(r.accuracy, 2)],
    ['rsum of recalls', r => r.recall === undefined ? null : r.recall.rsum.toFixed(1)],
    ['mean error, years', r => r.mae === undefined ? null : num(r.mae)], ['loss', r => num(r.loss)],
    [
      'mean load Gini',
      r => r.layers.length && r.layers[0].gini !== undefined ? fixed(r.layers.reduce((a, l) => a + l.gini, 0) / r.layers.length) : '–'
    ],
    ['parameters', r => num(r.parameters)], ['active a token', r => num(r.active_parameters)],
    ['GFLOP an image, forward', r => num(r.flops / 1e9)]
  ].filter(row => runs.some(r => row[1](r) !== null));
  const heads = runs.map(r => el('th', {scope: 'col', class: 'left'}, r.name));
  const facts = el('table', {}, el('thead', {}, el('tr', {}, el('td', {}), heads)), el('tbody', {}, rows.map(([name,
    says]) => el('tr', {}, el('th', {scope: 'row'}, name), runs.map(r => el('td', {class: 'long'}, says(r) ?? '–'))))));
  const changed = el('table', {},
      el('thead', {},
          el('tr', {}, el('th', {scope: 'col', class: 'left'}, 'setting'),
              several ? heads.map(h => h.cloneNode(true)) : el('th', {scope: 'col', class: 'left'}, 'here'),
              el('th', {scope: 'col', class: 'left'}, 'default'))),
      el('tbody', {},
          settings.map(s => el('tr', {'data-tip': s.help}, el('th', {scope: 'row'}, s.key), s.values.map(v => el('td', {class: 'long'}, v)),
                           el('td', {class: 'long soft'}, s.standard)))));
  const wide = table => el('div', {class: 'scroll', tabindex: 0}, table);
  return el('div', {class: 'row'}, el('figure', {}, el('h3', {}, several ? 'Runs' : 'The run'), wide(facts)),
      el('figure', {}, el('h3', {}, several ? 'Settings that differ' : 'Settings that are not the default'),
          settings.length ? wide(changed) : el('p', {}, 'None.')));
});
