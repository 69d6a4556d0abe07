// Looks at report pages in a browser, at the widths of a phone, a tablet and a desk, in light and dark and in print, and takes
// pictures of them. Usage: node look.mjs TOOLS OUT PAGE...
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [tools, out, ...pages] = process.argv.slice(2);
const require = createRequire(path.join(path.resolve(tools), "package.json"));
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const WIDTHS = [320, 768, 1280];
// What our own template makes; anything else was made by a text.
const ELEMENTS = new Set(
  ("html head meta title style body header main section div h1 h2 h3 h4 p dl dt dd ul ol li span small b strong code i table thead " +
    "tbody tr th td details summary figure figcaption svg rect line").split(" "),
);

// Runs in the page.
function faults(elements, isPrint) {
  const found = [];
  const all = [...document.querySelectorAll("*")];
  const name = (e) => `${e.localName}.${[...e.classList].join(".")} "${(e.textContent ?? "").trim().slice(0, 40)}"`;
  const width = document.documentElement.clientWidth;
  for (const e of all) {
    const isTitle = e.localName === "title" && e.closest("svg");
    if (!elements.includes(e.localName) && !isTitle) found.push(`an element of no template: ${name(e)}`);
    for (const { name: attribute } of e.attributes) {
      if (/^on|^style$|^src|href$/.test(attribute)) found.push(`attribute ${attribute}: ${name(e)}`);
    }
    if (e.closest("svg") || e.closest("head")) continue;
    if (e.clientWidth > 0 && e.scrollWidth > e.clientWidth + 1) found.push(`overflows: ${name(e)}`);
    const box = e.getBoundingClientRect();
    if (!isPrint && (box.right > width + 1 || box.left < -1)) found.push(`leaves the page: ${name(e)}`);
  }
  const levels = all.filter((e) => /^h[1-6]$/.test(e.localName)).map((e) => Number(e.localName[1]));
  if (levels.filter((level) => level === 1).length !== 1 || levels[0] !== 1) found.push(`headings begin with ${levels.slice(0, 3)}`);
  levels.reduce((last, next) => {
    if (next > last + 1) found.push(`a heading of level ${next} after one of ${last}`);
    return next;
  }, 0);
  if (getComputedStyle(document.body).marginTop !== "0px") found.push("the stylesheet is not in force");
  if (isPrint) {
    for (const e of document.querySelectorAll(".evidence")) {
      if (e.getBoundingClientRect().height < 10 || !e.checkVisibility({ contentVisibilityAuto: true })) found.push("evidence is not printed");
    }
  }
  return [...new Set(found)].slice(0, 30);
}

const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });

// The browser takes none of a page that is taller.
const TALLEST = 12000;
async function picture(tab, name) {
  const { width, height } = await tab.evaluate(() => ({ width: innerWidth, height: document.documentElement.scrollHeight }));
  const clip = { x: 0, y: 0, width, height: Math.min(height, TALLEST) };
  await tab.screenshot({ path: path.join(out, name), clip, captureBeyondViewport: true });
}

// Every fault of a page, in one colour scheme.
async function look(file, scheme) {
  const name = path.basename(file, ".html");
  const url = pathToFileURL(file).href;
  const found = [];
  const add = (where, texts) => found.push(...texts.map((text) => `${name}, ${where}: ${text}`));
  const tab = await browser.newPage();
  tab.on("request", (request) => request.url() !== url && add(scheme, [`asks for ${request.url()}`]));
  tab.on("console", (message) => add(scheme, [`says ${message.text()}`]));
  tab.on("dialog", (dialog) => {
    add(scheme, ["opens a dialog"]);
    dialog.dismiss();
  });
  await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  for (const width of WIDTHS) {
    await tab.setViewport({ width, height: 900 });
    await tab.goto(url);
    await picture(tab, `${name}-${width}-${scheme}.png`);
    await tab.evaluate(() => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
    await picture(tab, `${name}-${width}-${scheme}-open.png`);
    add(`${width} px, ${scheme}`, await tab.evaluate(faults, [...ELEMENTS], false));
    await tab.evaluate(axe);
    const { violations, incomplete } = await tab.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"] }));
    // A contrast that cannot be told is no contrast that is enough.
    const rules = [...violations, ...incomplete.filter((rule) => rule.id === "color-contrast")];
    const said = (rule, node) => `${rule.id}: ${node.html.slice(0, 120)} (${(node.any[0]?.message ?? "").slice(0, 160)})`;
    add(`${width} px, ${scheme}`, rules.flatMap((rule) => rule.nodes.slice(0, 3).map((node) => said(rule, node))));
  }
  if (scheme === "light") {
    await tab.setViewport({ width: 794, height: 1123 });
    await tab.goto(url);
    await tab.emulateMediaType("print");
    add("print", await tab.evaluate(faults, [...ELEMENTS], true));
    await picture(tab, `${name}-print.png`);
    await tab.pdf({ path: path.join(out, `${name}.pdf`), format: "A4" });
  }
  await tab.close();
  return found;
}

// A page with one of each fault: what is not seen there would be seen nowhere.
const CONTROL = `<!DOCTYPE html><html lang="en"><title>control</title><body style="margin: 8px"><main><h1>one</h1><h1>two</h1><h4>four</h4>
  <p style="color: #999; background: #fff">pale</p><div style="width: 100px; overflow: hidden"><p style="width: 200px">wide</p></div>
  <p style="width: 2000px">wider</p><img src="file:///nonexistent.png"><script>console.log("here"); setTimeout(() => alert(1))</script>
  <details><summary>s</summary><div class="evidence">folded</div></details></main>`;
const SEEN = ["element of no template: img", "element of no template: script", "attribute style", "overflows", "leaves the page", "headings begin with 1,1",
  "heading of level 4 after", "stylesheet is not in force", "evidence is not printed", "asks for", "says here", "opens a dialog", "color-contrast: "];
const control = path.join(out, "control.html");
writeFileSync(control, CONTROL);
const inControl = await look(path.resolve(control), "light");
const unseen = SEEN.filter((text) => !inControl.some((fault) => fault.includes(text)));
if (unseen.length > 0) {
  console.error(`the control page has faults that were not seen: ${unseen.join("; ")}`);
  process.exit(1);
}

let bad = 0;
for (const file of pages) {
  for (const scheme of ["light", "dark"]) {
    const found = await look(path.resolve(file), scheme);
    found.forEach((fault) => console.error(fault));
    bad += found.length;
  }
}
await browser.close();
console.log(`${pages.length} pages at ${WIDTHS.length} widths, light and dark, and in print: ${bad} faults; pictures are in ${out}`);
process.exit(bad === 0 ? 0 : 1);
