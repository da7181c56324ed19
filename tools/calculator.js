/* Asks the accountant of the book's calculator: JSON questions on standard input, JSON answers on
   standard output, each with its milliseconds of processor time:
   `echo '{"questions": [...]}' | node tools/calculator.js`.

   {"ask": "epsilon", "event": {...}, "delta": d, "adjacency": a}   ->  {"value": epsilon}
   {"ask": "noise", "target": e, and the same}                      ->  {"value": z}
   {"ask": "plan", "texts": {...}}        ->  {"plan": {...}, "statement": [...], "python": "..."}
   {"ask": "summed", "law": {...}, "times": n, "size": s, "first": i}  ->  {"mass": [...], "noise": x}
   {"ask": "up" | "down" | "general", "value": x, "digits": n}      ->  {"value": "..."}

   A refusal is {"message": "...", "field": "..."}. */

"use strict";

const fs = require("fs");
const path = require("path");

const STATIC = path.join(__dirname, "..", "book", "_static");
const accountant = require(path.join(STATIC, "accountant.js"))();
const plans = require(path.join(STATIC, "plan.js"))(accountant);

function answer(question) {
  const { ask, event, delta, adjacency } = question;
  if (ask === "epsilon") return { value: accountant.epsilonOf(event, delta, adjacency) };
  if (ask === "noise") return { value: accountant.noiseFor(question.target, delta, event, adjacency) };
  if (ask === "plan") {
    const plan = plans.completed(plans.planOf(question.texts));
    const python = plans.python(plan, question.texts.give);
    return { plan, statement: plans.statement(plan), python };
  }
  if (ask === "summed") {
    const laws = [[{ ...question.law, mass: Float64Array.from(question.law.mass) }, question.times]];
    const { mass, noise } = accountant.summed(laws, question.size, question.first);
    return { mass: Array.from(mass), noise };
  }
  return { value: plans[ask](question.value, question.digits) };
}

function timed(question) {
  const start = process.cpuUsage(); // what neighbours on a shared machine do does not count
  let found;
  try {
    found = answer(question);
  } catch (error) {
    const expected = error instanceof accountant.Refused || error instanceof accountant.OutOfReach;
    if (!expected) throw error;
    found = { message: error.message, field: error.field || "" };
  }
  const { user, system } = process.cpuUsage(start);
  return { ...found, milliseconds: (user + system) / 1000 };
}

const { questions, warm = 0 } = JSON.parse(fs.readFileSync(0, "utf8"));
questions.slice(0, warm).forEach(timed); // compiled before the clock counts
process.stdout.write(JSON.stringify(questions.map(timed)));
