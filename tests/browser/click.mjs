// Uses the site as a reader does: `node click.mjs SITE`. A line a check; exit status 1 if one fails.
import { resolve } from "node:path";
import { launch, serve } from "./site.mjs";

const site = await serve(resolve(process.argv[2] || "_build/html"));
const browser = await launch();
const CHAPTER = "book/clip-noise-average.html";
let failed = 0;

async function check(what, options, body) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(15000);
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  const open = (name) => page.goto(`${site.url}/${name}`, { waitUntil: "networkidle" });
  try {
    await body(page, open);
    if (errors.length) throw new Error(`errors in the page: ${errors.join("; ")}`);
    console.log(`ok    ${what}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${what}: ${error.message.split("\n")[0]}`);
  }
  await context.close();
}

function must(truth, what) {
  if (!truth) throw new Error(what);
}

await check("the address of the site opens the landing page", {}, async (page) => {
  await page.goto(`${site.url}/`);
  await page.waitForURL("**/book/index.html");
  must(await page.getByRole("link", { name: "Quickstart" }).isVisible(), "no quickstart");
  must(await page.locator(".fldp-cite").isVisible(), "nothing to cite");
});

await check("from the landing page to the first cell of the quickstart in two clicks", {}, async (page, open) => {
  await open("book/index.html");
  await page.getByRole("link", { name: "Quickstart" }).click();
  await page.waitForURL("**/quickstart.html");
  const colab = await page.locator(".btn-colab-button").getAttribute("href");
  must(colab.startsWith("https://colab.research.google.com/github/"), colab);
  must((await page.locator(".cell_input").count()) > 3, "no cells");
});

await check("a chapter says how long it takes; its formulas, boxes and numbers are there", {}, async (page, open) => {
  await open(CHAPTER);
  must(/minutes to read/.test(await page.locator(".fldp-line").innerText()), "no line under the title");
  const odd = await page.evaluate(() =>
    [...document.querySelectorAll(".math")].filter((one) => {
      const box = one.querySelector("math")?.getBoundingClientRect();
      return !box || box.width < 3 || box.height < 3;
    }).length);
  must(odd === 0, `${odd} formulas are not drawn`);
  must((await page.locator("div.math .eqno").count()) > 1, "no equation numbers");
  must(await page.evaluate(() => document.fonts.check('20px "Fldp Math"')), "the font did not load");
});

await check("formulas stay when JavaScript is off", { javaScriptEnabled: false }, async (page, open) => {
  await open(CHAPTER);
  must((await page.locator("math").count()) > 10, "no MathML");
  must(!/\\(varepsilon|frac|delta)/.test(await page.locator(".bd-article").innerText()), "raw TeX");
});

await check("search finds prose and leads to it", {}, async (page, open) => {
  await open("book/index.html");
  await page.locator(".search-button-field").click();
  await page.locator("#pst-search-dialog input[name=q]").fill("careless client");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/search.html?q=*");
  const found = page.locator("#search-results li a", { hasText: "Clip, noise, average" }).first();
  await found.waitFor();
  await found.click();
  await page.waitForURL("**/clip-noise-average.html*");
});

await check("light, dark, and remembered", { colorScheme: "light" }, async (page, open) => {
  await open(CHAPTER);
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  must((await theme()) === "light", `begins ${await theme()}`);
  const button = page.locator(".theme-switch-button").first();
  for (let tries = 0; (await theme()) !== "dark" && tries < 3; tries += 1) await button.click();
  must((await theme()) === "dark", "no dark page");
  await open("book/glossary.html");
  must((await theme()) === "dark", "forgotten on the next page");
});

await check("a solution is folded, opens, and closes", {}, async (page, open) => {
  await open(CHAPTER);
  const button = page.locator(".solution.dropdown .toggle-button, .admonition.dropdown .toggle-button").first();
  const body = page.locator(".dropdown.admonition section, .dropdown.admonition > div, .dropdown.admonition > p").nth(1);
  await button.scrollIntoViewIfNeeded();
  const seen = () => body.evaluate((one) => one.getBoundingClientRect().height > 5 && getComputedStyle(one).visibility !== "hidden" && getComputedStyle(one).opacity !== "0");
  must(!(await seen()), "open from the start");
  await button.click();
  await page.waitForTimeout(500);
  must(await seen(), "does not open");
  await button.click();
  await page.waitForTimeout(500);
  must(!(await seen()), "does not close");
});

await check("the code of a drawing unfolds", {}, async (page, open) => {
  await open(CHAPTER);
  const fold = page.locator("details").first();
  await fold.locator("summary").click();
  must(await fold.locator("pre").first().isVisible(), "no code");
});

await check("the glossary speaks where the keyboard rests on a term", {}, async (page, open) => {
  await open(CHAPTER);
  const term = page.locator("a[data-term]").first();
  await term.hover();
  const content = await term.evaluate((one) => getComputedStyle(one, "::after").content);
  must(content.length > 20, `says ${content}`);
});

await check("a phone: no page is wider, the menu opens, figures and formulas scroll", { viewport: { width: 390, height: 844 }, hasTouch: true }, async (page, open) => {
  await open(CHAPTER);
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  must(over <= 0, `${over} px too wide`);
  const scrolls = await page.evaluate(() => [...document.querySelectorAll(".fldp-wide")].filter((one) => one.scrollWidth > one.clientWidth + 1));
  must(scrolls.length > 0, "nothing scrolls");
  const reached = await page.evaluate(() => [...document.querySelectorAll(".fldp-wide")].every((one) => one.scrollWidth <= one.clientWidth + 1 || one.tabIndex === 0));
  must(reached, "what scrolls cannot be reached by the keyboard");
  await page.locator(".primary-toggle").click();
  await page.waitForTimeout(500);
  must(await page.locator("dialog[open] >> text=Glossary").first().isVisible(), "no menu");
});

await check("the calculator answers, refuses, and is shared by its address", {}, async (page, open) => {
  await open("book/calculator.html");
  await page.waitForSelector(".fc-card");
  const answer = () => page.locator(".fc-answer").innerText();
  const settled = async () => {
    await page.waitForTimeout(450);
    await page.waitForFunction(() => !document.getElementById("fldp-calculator").hasAttribute("aria-busy"));
  };
  const before = await answer();
  await page.fill("[name=epsilon]", "2");
  await settled();
  must((await answer()) !== before, "nothing moved");
  const two = await answer();
  await page.goto("about:blank");
  await page.goBack();
  await page.waitForSelector(".fc-card");
  await settled();
  must((await answer()) === two, "the address does not hold the settings");
  await page.fill("[name=delta]", "2");
  await settled();
  must((await page.locator(".fc-refusal, [aria-invalid]").count()) > 0, "an impossible delta is not refused");
  for (const wrong of ["trust=nobody", "sampling=dice", "adjacency=constructor"]) {
    await page.goto("about:blank");
    await open(`book/calculator.html#${wrong}`);
    await settled();
    const said = await answer();
    must(said.includes(`${wrong.replace("=", " is ")}: choose one of`), `${wrong} in a link gets ${said}`);
  }
});

await check("what the calculator says of its curves holds as it is printed", {}, async (page, open) => {
  await open("book/calculator.html");
  await page.locator(".fc-numbers table").nth(1).waitFor({ state: "attached" });
  const { said, wrong } = await page.evaluate(() => {
    const plans = makeFldpPlan(makeFldpAccountant());
    const plan = plans.completed(plans.planOf(Object.fromEntries(new FormData(document.querySelector("#fldp-calculator form")))));
    const texts = (row) => [...row.querySelectorAll("th, td")].map((one) => Number(one.textContent));
    const rows = [...document.querySelectorAll(".fc-numbers table:nth-of-type(2) tbody tr")].map(texts);
    const title = document.querySelector('[data-chart="z"] title').textContent;
    rows.push(...[...title.matchAll(/([\d.e+-]+) at ([\d.e+-]+\d)/g)].map(([, epsilon, z]) => [Number(z), Number(epsilon), Infinity]));
    const under = ([z, own, known]) => plans.epsilonAt({ ...plan, z }) > own || plans.knownAt({ ...plan, z }) > known;
    return { said: rows.length, wrong: rows.filter(under).map(String) };
  });
  must(said > 10, `only ${said} numbers`);
  must(wrong.length === 0, `too small an ε is said: ${wrong.join("; ")}`);
});

await check("a wrong address gets a page that leads back", {}, async (page) => {
  const reply = await page.goto(`${site.url}/book/no-such-page.html`);
  must(reply.status() === 404, `status ${reply.status()}`);
  must(/not found/i.test(await page.title()), await page.title());
});

await check("on paper: closed solutions stay closed, code is not cut", {}, async (page, open) => {
  await open(CHAPTER);
  await page.emulateMedia({ media: "print" });
  must(!(await page.locator("#pst-primary-sidebar").isVisible()), "the menu is printed");
  const titles = await page.locator("h1:visible").allInnerTexts();
  must(titles.length === 1 && /^\d+\. /.test(titles[0]), `the title on paper is ${titles}`);
  const cut = await page.evaluate(() => [...document.querySelectorAll(".cell_input pre")].filter((one) => one.scrollWidth > one.clientWidth + 1).length);
  must(cut === 0, `${cut} code boxes are cut`);
  const open_ = await page.evaluate(() => document.querySelectorAll(".toggle:not(.toggle-hidden)").length);
  must(open_ === 0, `${open_} solutions are open`);
});

await browser.close();
site.close();
process.exit(failed ? 1 : 0);
