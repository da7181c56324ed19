/* The page of the privacy calculator: reads the form, asks the accountant, draws the answer.

   The accountant works in a worker made of its own text, so that the page stays quick and also
   works from a file; where there are no workers it works here. The form's state is in the address,
   behind the #, so that a link holds it. */

(function () {
  "use strict";

  const root = document.getElementById("fldp-calculator");
  if (!root) return;

  const plans = makeFldpPlan(makeFldpAccountant());
  const { up } = plans;
  const form = root.querySelector("form");
  const find = (selector) => root.querySelector(selector);
  const FIELDS = ["clients", "cohort", "rounds", "sampling", "trust", "survivors", "adjacency", "delta",
    "give", "epsilon", "z"];
  // Typing is over when nothing was typed for so long.
  const PAUSE_MS = 250;
  // A curve has so many steps.
  const STEPS = 24;
  // The slider: from this value to that one, in equal ratios.
  const SLIDER = { epsilon: [0.1, 100], z: [0.3, 100] };
  const SLIDER_STEPS = 200;

  const SAID = {
    sampling: {
      poisson: "each by its own coin of chance m/N",
      fixed: "drawn uniformly, without replacement",
      none: "whoever comes, nothing is amplified",
    },
    trust: {
      central: "the server sees updates, clips and adds the noise",
      distributed: "secure sums; each client adds a share of the noise",
      local: "nobody else; each client adds all its noise",
    },
    adjacency: {
      "add-or-remove": "compared with: this client was never there",
      "zero-out": "compared with: its updates are all zero",
      "replace-one": "compared with: this client has other data",
    },
  };

  // ---------------------------------------------------------------------------- the accountant

  /** Answers one question: a completed plan, or a point of a curve. */
  function answering(makeAccountant, makePlan) {
    const own = makePlan(makeAccountant());
    return (question) => {
      try {
        if (question.kind === "plan") return { plan: own.completed(question.plan) };
        const { plan } = question;
        const known = own.amplified(plan) ? own.knownAt(plan) : null;
        return { epsilon: own.epsilonAt(plan), known };
      } catch (error) {
        return { message: error.message, field: error.field || "" };
      }
    };
  }

  /** A function that answers a question by and by, in a worker where there are workers. */
  function makeAsk() {
    const here = answering(makeFldpAccountant, makeFldpPlan);
    const askHere = (question) =>
      new Promise((resolve) => setTimeout(() => resolve(here(question)), 0));
    const source = `
      const answer = (${answering})(${makeFldpAccountant}, ${makeFldpPlan});
      onmessage = (event) => postMessage(answer(event.data));`;
    let worker;
    try {
      worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    } catch (error) {
      return askHere;
    }
    let broken = false;
    return (question) => {
      if (broken) return askHere(question);
      return new Promise((resolve) => {
        worker.onmessage = (event) => resolve(event.data);
        worker.onerror = () => {
          broken = true;
          askHere(question).then(resolve);
        };
        worker.postMessage(question);
      });
    };
  }

  const ask = makeAsk();
  // Questions are asked one after the other; who asks anew makes the older ones stale.
  let latest = 0;
  let before = Promise.resolve();

  function inTurn(question, turn) {
    const mine = before.then(() => (turn === latest ? ask(question) : null));
    before = mine;
    return mine;
  }

  // ---------------------------------------------------------------------------------- the form

  function texts() {
    const out = {};
    for (const name of FIELDS) {
      const field = form.elements[name];
      // a link named a choice that there is not: it is refused by its name
      out[name] = field.selectedIndex === -1 ? field.dataset.asked : field.value;
    }
    return out;
  }

  /** What a link holds: what is not hidden, and not empty unless that says something. */
  function asFragment(state) {
    const out = new URLSearchParams();
    for (const name of FIELDS) {
      const other = state.give === "epsilon" ? "z" : "epsilon";
      if (name === other || (name === "survivors" && state.trust !== "distributed")) continue;
      if (state[name] === "" && name !== "cohort") continue;
      out.set(name, state[name]);
    }
    return out.toString();
  }

  /** Puts what a link holds into the form; false if it holds nothing of ours. */
  function restore(fragment) {
    const given = new URLSearchParams(fragment);
    if (!FIELDS.some((name) => given.has(name))) return false;
    for (const name of ["survivors", "adjacency", "delta"]) form.elements[name].value = "";
    for (const name of FIELDS) {
      if (!given.has(name)) continue;
      const field = form.elements[name];
      const text = given.get(name).slice(0, 40);
      field.value = text;
      // a choice that there is not leaves nothing chosen
      if (field.selectedIndex === -1) field.dataset.asked = text;
    }
    return true;
  }

  /** Shows the fields that count, and what a choice means. */
  function arrange(state) {
    for (const element of root.querySelectorAll("[data-only]")) {
      const on = element.dataset.only;
      element.hidden = on !== state.trust && on !== state.give;
    }
    const everyone = state.cohort.trim() === "";
    form.elements.sampling.disabled = everyone;
    const adjacency = state.adjacency || plans.usualAdjacency(state.trust);
    const name = state.adjacency ? "" : `${adjacency}, `;
    const said = (words, what) => (Object.hasOwn(words, what) ? words[what] : "");
    say("sampling", everyone ? "everyone, every round" : said(SAID.sampling, state.sampling));
    say("trust", said(SAID.trust, state.trust));
    say("adjacency", name + said(SAID.adjacency, adjacency));
    say("slider", state.give === "epsilon" ? "Move ε" : "Move z");
    const [low, high] = SLIDER[state.give];
    const share = Math.log(Number(state[state.give]) / low) / Math.log(high / low);
    if (share >= 0 && share <= 1) form.elements.slider.value = Math.round(SLIDER_STEPS * share);
    form.elements.slider.setAttribute("aria-valuetext", `${state.give} ${state[state.give]}`);
  }

  function say(what, words) {
    const place = find(`[data-say="${what}"]`);
    if (place.textContent !== words) place.textContent = words;
  }

  function slide() {
    const give = form.elements.give.value;
    const [low, high] = SLIDER[give];
    const value = low * (high / low) ** (Number(form.elements.slider.value) / SLIDER_STEPS);
    form.elements[give].value = Number(value.toPrecision(3));
  }

  // --------------------------------------------------------------------------------- the answer

  const answerPlace = find(".fc-answer");

  function element(name, attributes, ...children) {
    const out = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) out.setAttribute(key, value);
    out.append(...children);
    return out;
  }

  /** A refusal: in words, and at the field that it is about. */
  function refuse(message, field) {
    clearRefusal();
    for (const part of [".fc-tools", ".fc-charts", ".fc-numbers", ".fc-words"]) find(part).hidden = true;
    find(".fc-python").textContent = "";
    answerPlace.replaceChildren(element("p", { class: "fc-refusal", id: "fc-refusal" }, message));
    const wrong = field && form.elements[field];
    if (!wrong || !wrong.setAttribute) return;
    wrong.setAttribute("aria-invalid", "true");
    wrong.setAttribute("aria-describedby", "fc-refusal");
  }

  function clearRefusal() {
    for (const wrong of form.querySelectorAll("[aria-invalid]")) {
      wrong.removeAttribute("aria-invalid");
      wrong.removeAttribute("aria-describedby");
    }
  }

  function card(title, value, words, kind = "") {
    return element(
      "div",
      { class: `fc-card ${kind}` },
      element("div", { class: "fc-title" }, title),
      element("div", { class: "fc-value" }, value),
      element("div", { class: "fc-note" }, words)
    );
  }

  function showAnswer(plan, give) {
    clearRefusal();
    const cards = [];
    const where = plan.trust === "local" ? "each message" : "the sum";
    const noise = `z = ${give === "z" ? plan.z : up(plan.z, 5)}`;
    const size = `noise of standard deviation z·C on ${where}, C the clip norm`;
    const spent = card(`ε at δ = ${up(plan.delta)}`, `ε = ${up(plan.epsilon)}`,
      `against ${plans.againstInWords(plan)}`, "fc-own");
    const needed = card("noise multiplier", noise, size, "fc-noise");
    cards.push(...(give === "epsilon" ? [needed, spent] : [spent, needed]));
    if (plans.amplified(plan)) {
      cards.push(card("who also knows who took part", `ε = ${up(plan.known.epsilon)}`,
        "hidden is then what updates contain, not who sent them", "fc-known"));
    }
    if (plans.mixed(plan)) {
      cards.push(card("a server that draws otherwise", `ε = ${up(plan.known.epsilonAll)}`,
        `that of all ${plan.rounds} rounds`, "fc-known"));
    }
    const parts = [element("div", { class: "fc-cards" }, ...cards)];
    if (plan.delta >= 1 / plan.clients) {
      const better = plans.down(plans.suggestDelta(plan.clients));
      parts.push(element("p", { class: "fc-warning" },
        `δ is ${up(plan.delta)}, at least 1/N: publishing one random client's data in full would ` +
        `satisfy it. Take at most ${better}.`));
    }
    answerPlace.replaceChildren(...parts);
    find(".fc-tools").hidden = false;
    find(".fc-said").textContent = "";
    find(".fc-python").textContent = `import fldp\n\n${plans.python(plan, give)}`;
    showWords(plans.statement(plan));
  }

  /** The statement: a clause a paragraph, its name in front; what it does not cover as a list. */
  function showWords(lines) {
    const place = find(".fc-words > div");
    const list = element("ul", {});
    const paragraphs = [];
    for (const line of lines) {
      if (line.startsWith("  - ")) {
        list.append(element("li", {}, line.slice(4)));
        continue;
      }
      const colon = line.indexOf(": ");
      const named = colon > 0 && colon < 24;
      const paragraph = element("p", {});
      if (line.startsWith("After")) paragraph.append(element("strong", {}, line));
      else if (named) {
        paragraph.append(element("strong", {}, line.slice(0, colon + 1)), line.slice(colon + 1));
      } else paragraph.append(line);
      paragraphs.push(paragraph);
    }
    place.replaceChildren(...paragraphs, list);
    find(".fc-words").hidden = false;
  }

  // --------------------------------------------------------------------------------- the curves

  /** Where a curve is computed: first few places, then those between them. */
  function byHalves(places) {
    const out = [];
    for (let stride = 8; stride >= 1; stride /= 2) {
      for (let i = 0; i < places.length; i += stride) {
        if (!out.includes(places[i])) out.push(places[i]);
      }
    }
    return out;
  }

  function placesOfRounds(plan) {
    const most = 2 * plan.rounds;
    const places = Array.from({ length: STEPS }, (_, i) => Math.round(most * ((i + 1) / STEPS) ** 1.5));
    return [...new Set(places.map((t) => Math.max(1, t)))];
  }

  function placesOfNoise(plan) {
    return Array.from({ length: STEPS + 1 }, (_, i) => plan.z * 2 ** ((4 * i) / STEPS - 2));
  }

  /** A place on a curve as it is said beside its ε, in which noise is never rounded down. */
  function told(chart, x) {
    return chart.name === "z" ? up(x) : String(x);
  }

  /** Both curves around a plan, drawn anew as their points come. */
  async function showCurves(plan, turn) {
    find(".fc-charts").hidden = false;
    find(".fc-numbers").hidden = false;
    const own = { epsilon: plan.epsilon, known: plans.amplified(plan) ? plan.known.epsilon : null };
    const charts = [
      { name: "rounds", label: "rounds", log: false, here: plan.rounds, places: placesOfRounds(plan),
        at: (rounds) => ({ ...plan, rounds }), points: [{ x: plan.rounds, ...own }] },
      { name: "z", label: "z", log: true, here: plan.z, places: placesOfNoise(plan),
        at: (z) => ({ ...plan, z }), points: [{ x: plan.z, ...own }] },
    ];
    const queues = charts.map((chart) => byHalves(chart.places));
    for (let i = 0; i < Math.max(...queues.map((queue) => queue.length)); i++) {
      for (const [j, chart] of charts.entries()) {
        const x = queues[j][i];
        if (x === undefined || chart.points.some((point) => point.x === x)) continue;
        const found = await inTurn({ kind: "point", plan: chart.at(x) }, turn);
        if (turn !== latest) return;
        if (found === null || found.message) continue;
        chart.points.push({ x, ...found });
        chart.points.sort((a, b) => a.x - b.x);
        if (i >= 3) draw(chart);
      }
    }
    charts.forEach(draw);
    showNumbers(charts);
  }

  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 420;
  const HEIGHT = 260;
  const EDGE = { left: 44, right: 14, top: 14, bottom: 40 };
  // A logarithmic axis of ε shows at most so many times more, and less, than the answer.
  const SPAN = 100;
  const FAR_APART = 6;

  function svg(name, attributes, text) {
    const out = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) out.setAttribute(key, value);
    if (text !== undefined) out.textContent = text;
    return out;
  }

  /** Round numbers from low to high; on a logarithmic axis 1, 2 and 5 times powers of ten. */
  function ticks(low, high, log, most) {
    const out = [];
    if (log) {
      const decades = Math.log10(high / low);
      const steps = decades < 1.2 ? [1, 2, 3, 5, 7] : decades < 3.2 ? [1, 2, 5] : [1];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
        for (const step of steps) {
          const value = step * 10 ** power;
          if (value >= low && value <= high) out.push(value);
        }
      }
      const skip = Math.ceil(out.length / most);
      return out.filter((_, i) => i % skip === 0);
    }
    const rough = (high - low) / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((one) => one * power >= rough);
    for (let value = Math.ceil(low / step) * step; value <= high * (1 + 1e-9); value += step) out.push(value);
    return out;
  }

  function short(value) {
    if (value >= 1000 && value < 1e6) return Math.round(value).toLocaleString("en");
    return plans.general(value, 3).replace(/e\+?(-?)0*/, "e$1");
  }

  function axis(low, high, log, from, to) {
    const f = log ? Math.log : (v) => v;
    const scale = (to - from) / (f(high) - f(low));
    return (v) => from + (f(Math.min(high, Math.max(low, v))) - f(low)) * scale;
  }

  function draw(chart) {
    const { points } = chart;
    const here = points.find((point) => point.x === chart.here);
    const values = points.flatMap((point) => [point.epsilon, point.known]).filter((v) => v > 0);
    if (!values.length) {
      find(`[data-chart="${chart.name}"]`).replaceChildren("ε is 0 at all of them.");
      return;
    }
    const logX = chart.log;
    // two lines far apart show on a logarithmic axis only
    const logY = chart.log || here.known > FAR_APART * here.epsilon;
    const largest = Math.max(...values);
    let low = 0;
    let high = largest * 1.06;
    if (logY) {
      const middle = here.epsilon > 0 ? here.epsilon : largest;
      high = Math.min(largest, Math.max(middle * SPAN, 2 * here.known)) * 1.15;
      low = Math.max(Math.min(...values), middle / SPAN) / 1.15;
    }
    const first = logX ? points[0].x : 0;
    const last = points[points.length - 1].x;
    const x = axis(first, last, logX, EDGE.left, WIDTH - EDGE.right);
    const y = axis(low, high, logY, HEIGHT - EDGE.bottom, EDGE.top);
    const out = frame(chart, [first, last, logX, x], [low, high, logY, y]);
    const bottom = HEIGHT - EDGE.bottom;
    out.append(svg("line", { class: "fc-here", x1: x(here.x), x2: x(here.x), y1: EDGE.top, y2: bottom }));
    for (const [kind, name] of [["known", "knows who took part"], ["epsilon", "does not know it"]]) {
      const seen = (point) => point[kind] !== null && (!logY || (point[kind] >= low && point[kind] <= high));
      const drawn = points.filter(seen).map((point) => [x(point.x), y(point[kind])]);
      if (!drawn.length) continue;
      if (!logX && !logY) drawn.unshift([x(0), y(0)]);
      const path = drawn.map(([h, v], i) => `${i ? "L" : "M"}${h.toFixed(1)} ${v.toFixed(1)}`).join(" ");
      out.append(svg("path", { class: `fc-line fc-${kind}`, d: path }));
      if (seen(here)) {
        out.append(svg("circle", { class: `fc-dot fc-${kind}`, cx: x(here.x), cy: y(here[kind]), r: 4 }));
      }
      if (here.known !== null) out.append(label(kind, name, drawn, logX));
    }
    find(`[data-chart="${chart.name}"]`).replaceChildren(out);
  }

  /** Axes, their numbers, and the chart in a sentence. */
  function frame(chart, [first, last, logX, x], [low, high, logY, y]) {
    const { points } = chart;
    const end = points[points.length - 1];
    const here = points.find((point) => point.x === chart.here);
    const said = [points[0], here, end].map((one) => `${up(one.epsilon)} at ${told(chart, one.x)}`);
    const right = WIDTH - EDGE.right;
    const bottom = HEIGHT - EDGE.bottom;
    const out = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    out.append(svg("title", {}, `ε over ${chart.label}: ${said.join(", ")}.`));
    for (const value of ticks(low, high, logY, 5)) {
      const at = y(value);
      out.append(svg("line", { class: "fc-grid", x1: EDGE.left, x2: right, y1: at, y2: at }));
      const place = { class: "fc-tick", x: EDGE.left - 7, y: at + 4, "text-anchor": "end" };
      out.append(svg("text", place, short(value)));
    }
    for (const value of ticks(first, last, logX, 5)) {
      const anchor = x(value) > right - 12 ? "end" : "middle";
      const place = { class: "fc-tick", x: x(value), y: bottom + 18, "text-anchor": anchor };
      out.append(svg("text", place, short(value)));
    }
    out.append(svg("line", { class: "fc-axis", x1: EDGE.left, x2: right, y1: bottom, y2: bottom }));
    const middle = { x: (EDGE.left + right) / 2, y: HEIGHT - 5, "text-anchor": "middle" };
    out.append(svg("text", middle, chart.label));
    return out;
  }

  /** The name of a line: above the upper one, below the lower one, on the side where it falls off. */
  function label(kind, name, drawn, falls) {
    const [h, v] = drawn[Math.floor(drawn.length * (falls ? 0.4 : 0.62))];
    const above = kind === "known";
    const right = above === falls;
    const y = above ? v - 9 : v + 18;
    const place = {
      class: `fc-label fc-${kind}`,
      x: h + (right ? 8 : -8),
      // not on the axis' numbers
      y: y > HEIGHT - EDGE.bottom - 4 ? v - 9 : y,
      "text-anchor": right ? "start" : "end",
    };
    return svg("text", place, name);
  }

  function showNumbers(charts) {
    const tables = charts.map((chart) => {
      const both = chart.points[0].known !== null;
      const head = element("tr", {}, ...[chart.label, "ε", ...(both ? ["ε, knows who took part"] : [])]
        .map((text) => element("th", { scope: "col" }, text)));
      const rows = chart.points
        .filter((point, i) => i % 3 === 0 || point.x === chart.here)
        .map((point) => element("tr", {},
          element("th", { scope: "row" }, told(chart, point.x)),
          element("td", {}, up(point.epsilon)),
          ...(both ? [element("td", {}, up(point.known))] : [])));
      return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
    });
    find(".fc-numbers > div").replaceChildren(...tables);
  }

  // ---------------------------------------------------------------------------------- together

  let touched = false;

  async function update() {
    const turn = ++latest;
    const state = texts();
    arrange(state);
    // a page that was only opened keeps its address, which may name a section
    if (touched) history.replaceState(null, "", `#${asFragment(state)}`);
    let plan;
    try {
      plan = plans.planOf(state);
    } catch (error) {
      refuse(error.message, error.field);
      return;
    }
    root.setAttribute("aria-busy", "true");
    const found = await inTurn({ kind: "plan", plan }, turn);
    if (turn !== latest) return;
    root.removeAttribute("aria-busy");
    if (found.message) {
      refuse(found.message, found.field || state.give);
      return;
    }
    showAnswer(found.plan, state.give);
    showCurves(found.plan, turn);
  }

  async function copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
    } catch (error) {
      // without a secure address there is no clipboard: by a selection, as browsers of old did
      const area = element("textarea", { readonly: "", style: "position:fixed;opacity:0" });
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      if (!done) {
        find(".fc-said").textContent = "This browser does not let a page copy: select the text.";
        return;
      }
    }
    find(".fc-said").textContent = `${what} copied`;
  }

  let timer = 0;
  form.addEventListener("input", (event) => {
    touched = true;
    if (event.target.name === "slider") slide();
    arrange(texts());
    clearTimeout(timer);
    timer = setTimeout(update, event.target.type === "range" ? 0 : PAUSE_MS);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    update();
  });
  form.addEventListener("click", (event) => {
    const { example } = event.target.dataset;
    if (!example) return;
    touched = true;
    restore(example);
    update();
  });
  find('[data-do="python"]').addEventListener("click", () => copy(find(".fc-python").textContent, "Python"));
  find('[data-do="link"]').addEventListener("click", () => {
    const address = location.href.replace(/#.*/, "");
    copy(`${address}#${asFragment(texts())}`, "Link");
  });
  addEventListener("hashchange", () => {
    if (restore(location.hash.slice(1))) update();
  });

  for (const off of document.querySelectorAll(".fldp-calculator-off")) off.hidden = true;
  root.hidden = false;
  restore(location.hash.slice(1));
  update();
})();
