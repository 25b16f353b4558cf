// The page tries itself out where its address ends in #selftest: it moves every slider to every place, presses every button, opens every
// table, chooses every run, in both themes, and says in <html data-selftest="…"> what happened. tests/report_page.sh reads that from a
// browser without a screen. Faults that were noted while the page was made (page.js) count too.

/// What is wrong with what is shown now.
function inspectPage(when) {
  const wrong = text => faults.push(`${when}: ${text}`);
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) wrong(`the page is ${root.scrollWidth} pixels wide in a window of ${root.clientWidth}`);
  const edge = document.body.getBoundingClientRect().right;  // below, that of a phone
  for (const node of document.querySelectorAll('header *, section *'))
    if (node instanceof HTMLElement && !node.closest('.scroll, .skip') && node.getBoundingClientRect().right > edge + 1)
      wrong(`<${node.tagName.toLowerCase()}> reaches ${Math.round(node.getBoundingClientRect().right - edge)} pixels beyond a page of ${
          document.body.clientWidth}`);
  for (const node of main.querySelectorAll('svg *, svg'))
    for (const {name, value} of node.attributes)
      if (/NaN|undefined|Infinity/.test(value)) wrong(`<${node.tagName} ${name}="${value}">`);
  for (const image of document.images) {
    if (!image.alt) wrong('an image has no text instead');
    if (!image.src.startsWith('data:')) wrong('an image is not in the page: ' + image.src);
    if (!image.complete || image.naturalWidth === 0) wrong('an image cannot be shown: ' + image.alt);
  }
  for (const part of main.querySelectorAll('section'))
    if (part.textContent.trim().length < 20) wrong(`section ${part.id} is empty`);
  for (const plot of main.querySelectorAll('.plot'))
    if (!plot.querySelector('svg')) wrong('a chart was not drawn');
  if (/undefined|NaN|\[object/.test(main.innerText)) wrong('text: ' + main.innerText.match(/.{0,40}(undefined|NaN|\[object).{0,40}/)[0]);
}

const pause = () => new Promise(done => setTimeout(done, 60));  // for images to be decoded and charts to be drawn

async function tryControls(when) {
  let count = 0;
  for (const input of main.querySelectorAll('input[type=range]')) {
    for (let v = 0; v <= Number(input.max); v++) {
      const before = main.innerHTML;
      const moved = Number(input.value) !== v;
      input.value = v;
      input.dispatchEvent(new Event('input'));
      if (moved && state[input.dataset.key] !== v) faults.push(`${when}: the slider ${input.dataset.key} does not move`);
      if (moved && main.innerHTML === before) faults.push(`${when}: nothing follows the slider ${input.dataset.key}`);
      await pause();
      inspectPage(`${when}, ${input.dataset.key} ${v}`);
    }
    count++;
  }
  for (const button of [...main.querySelectorAll('button')].map((_, i) => i)) {
    main.querySelectorAll('button')[button].click();
    count++;
  }
  for (const details of main.querySelectorAll('details')) {
    details.open = true;
    count++;
  }
  await pause();
  for (const details of main.querySelectorAll('details'))
    if (!details.querySelector('td')) faults.push(`${when}: a table is empty`);
  for (const chart of main.querySelectorAll('svg.chart')) {
    chart.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft', cancelable: true}));
    chart.dispatchEvent(new PointerEvent('pointermove', {clientX: 100, clientY: 100}));
  }
  inspectPage(when + ', all open');
  return count;
}

async function selftest() {
  let count = 0;
  await pause();
  for (const name of ['light', 'dark']) {
    setTheme(name);
    document.body.style.width = name === 'light' ? '' : '360px';
    const paper = getComputedStyle(document.body).backgroundColor;
    theme.click();
    if (getComputedStyle(document.body).backgroundColor === paper) faults.push('the theme does not change');
    theme.click();
    for (let i = 0; i < runs.length; i++) {
      const choose = document.getElementById('run');
      if (choose) {
        choose.value = i;
        choose.dispatchEvent(new Event('change'));
      }
      await pause();
      inspectPage(`${name}, ${runs[i].name}`);
      count += await tryControls(`${name}, ${runs[i].name}`);
    }
  }
  const said = faults.length ? 'failed: ' + [...new Set(faults)].slice(0, 10).join(' | ') :
                               `ok: ${count} controls, ${main.querySelectorAll('section').length} sections`;
  document.documentElement.dataset.selftest = said;
}
if (location.hash.includes('selftest'))
  selftest().catch(e => {
    document.documentElement.dataset.selftest = 'failed: ' + e;
  });
