// Drives OHIF in Chromium as a person would: `node ohif.mjs URL FOLDER FILE`.
// Opens studies by patient name, uploads FILE, leaves screenshots in FOLDER, and prints
// what it saw as one line of JSON. Bounded: every wait has a limit.
import { chromium } from 'playwright-core';

const [url, folder, file] = process.argv.slice(2);
const WAIT = { timeout: 120_000 };
const LIT = 0.03; // of a viewport's pixels, when an image is in it

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: [
    '--no-sandbox', '--no-first-run', '--disable-quic', '--disable-sync',
    '--disable-background-networking', '--disable-component-update',
    // WebGL without a graphics card
    '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader',
    '--ignore-gpu-blocklist',
  ],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
const seen = { problems: [], elsewhere: [] };
page.on('pageerror', error => seen.problems.push(String(error)));
page.on('console', message => {
  if (message.type() === 'error') seen.problems.push(message.text());
});
page.on('requestfailed', request => {
  // What a page that is left still waits for is given up, which is no failure.
  const reason = request.failure()?.errorText;
  if (reason !== 'net::ERR_ABORTED') seen.problems.push(`${reason} ${request.url()}`);
});
page.on('response', answer => {
  if (answer.status() >= 400) {
    seen.problems.push(`${answer.status()} ${answer.request().method()} ${answer.url()}`);
  }
});
page.on('request', request => {
  if (/^https?:/.test(request.url()) && !request.url().startsWith(url)) {
    seen.elsewhere.push(request.url());
  }
});

async function list() {
  await page.goto(`${url}/viewer/`, { waitUntil: 'domcontentloaded' });
  await page.getByText('Sample, Phantom').waitFor(WAIT);
  await page.getByText('Confirm and hide').click().catch(() => {});
  await page.screenshot({ path: `${folder}/list.png` });
  return page.locator('tbody tr').allInnerTexts();
}

// What the list says beside a study that is selected: its series.
async function preview() {
  await page.getByText('Sample, Phantom').first().click();
  await page.getByText('64 slices').waitFor(WAIT);
  await page.screenshot({ path: `${folder}/preview.png` });
  return page.locator('body').innerText();
}

// The text of a report, once `expected` is in it.
async function read(name, study, expected) {
  const target = `${url}/viewer/viewer?StudyInstanceUIDs=${study}`;
  await page.goto(target, { waitUntil: 'domcontentloaded' });
  await page.getByText(expected).first().waitFor(WAIT).catch(() => {});
  await page.screenshot({ path: `${folder}/${name}.png` });
  return page.locator('body').innerText();
}

// The part of each viewport that is not black, once all `count` of them show an image.
async function open(name, study, count, more = '') {
  const target = `${url}/viewer/viewer?StudyInstanceUIDs=${study}${more}`;
  await page.goto(target, { waitUntil: 'domcontentloaded' });
  const lit = () => [...document.querySelectorAll('canvas.cornerstone-canvas')].map(
    canvas => {
      const { width, height } = canvas;
      if (!width || !height) return 0;
      const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
      let bright = 0;
      for (let i = 0; i < data.length; i += 4) bright += data[i] > 24;
      return bright / (width * height);
    });
  const enough = `(${lit})().filter(part => part > ${LIT}).length >= ${count}`;
  await page.waitForFunction(enough, null, WAIT).catch(() => {});
  await page.screenshot({ path: `${folder}/${name}.png` });
  return page.evaluate(lit);
}

async function upload() {
  await page.goto(`${url}/viewer/`, { waitUntil: 'domcontentloaded' });
  await page.getByText('Upload', { exact: true }).first().click(WAIT);
  const stored = page.waitForResponse(
    answer => answer.request().method() === 'POST' && answer.url().endsWith('/studies'),
    WAIT,
  );
  await page.locator('input[type=file]').first().setInputFiles(file);
  const status = (await stored).status();
  await page.getByText('1 file completed').waitFor(WAIT);
  await page.screenshot({ path: `${folder}/upload.png` });
  await page.getByText('Close', { exact: true }).first().click();
  await page.getByText('Uploaded, Here').waitFor(WAIT);
  await page.screenshot({ path: `${folder}/uploaded.png` });
  return status;
}

const studies = JSON.parse(process.env.STUDIES);
try {
  seen.rows = await list();
  seen.preview = await preview();
  seen.mpr = await open('mpr', studies.ct, 3, '&hangingprotocolId=mpr');
  seen.mr = await open('mr', studies.mr, 1);
  seen.us = await open('us', studies.us, 1);
  seen.sr = await read('sr', studies.sr, 'A mass of 3 cm was detected.');
  seen.upload = await upload();
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
