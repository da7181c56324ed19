/* A plan, and what it promises in words: for the book's privacy calculator.

   A port of fldp/plan/client.py, fldp/plan/statement.py and the refusals of fldp/_settings.py, word
   for word: tests/book/test_calculator.py compares both. What the package does not answer is not
   answered here either. No cap on a cohort, no group and no seed: those are the package's alone. */

function makeFldpPlan(accountant) {
  "use strict";

  const { Refused, binomialTail, epsilonOf, gaussianEpsilon } = accountant;

  const SAMPLINGS = ["poisson", "fixed", "none"];
  const TRUSTS = ["central", "distributed", "local"];
  const ADJACENCIES = {
    "add-or-remove": "this client was never there",
    "zero-out": "every update of this client is zero",
    "replace-one": "this client has other data",
  };
  // A search for the noise stops within its tolerance of the target: so far above is not beyond it.
  const TOLERANCE = 1e-6;
  // Of more rounds the rounding errors show: the package has longer numbers for them.
  const MOST_ROUNDS = 1e9;
  // With which probability, over the draws, `bound` holds for all clients at once.
  const CONFIDENCE = 0.999;

  // --------------------------------------------------------- numbers in words (fldp/_text.py)

  /** As Python's format(value, ".{digits}g"). */
  function general(value, digits = 6) {
    if (value === 0) return "0";
    const [mantissa, power] = value.toExponential(digits - 1).split("e");
    const exponent = Number(power);
    const bare = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
    if (exponent < -4 || exponent >= digits) {
      const size = String(Math.abs(exponent)).padStart(2, "0");
      return `${bare(mantissa)}e${exponent < 0 ? "-" : "+"}${size}`;
    }
    return bare(value.toFixed(Math.max(0, digits - 1 - exponent)));
  }

  /** `value` with so many significant digits, rounded up: for ε and δ of a guarantee. */
  function up(value, digits = 4) {
    return rounded(value, digits, 1);
  }

  /** Rounded down: for noise, and for bounds from below. */
  function down(value, digits = 4) {
    return rounded(value, digits, 0);
  }

  function rounded(value, digits, carry) {
    if (value === 0) return "0";
    if (!Number.isFinite(value)) return "inf";
    // the shortest decimal that reads back as this number: a δ of 1e-5 stays 1e-05
    const [mantissa, power] = value.toExponential().split("e");
    const all = mantissa.replace(".", "");
    if (all.length <= digits) return general(value, digits + 1);
    const last = Number(power) - digits + 1;
    const kept = Number(all.slice(0, digits)) + carry;
    return general(Number(`${kept}e${last}`), digits + 1);
  }

  // --------------------------------------------------------------------------- what is asked

  const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

  /** The number that a text is, or NaN; underscores and spaces between digits are read over. */
  function parsed(text) {
    const bare = text.trim().replace(/(\d)[_ ](?=\d)/g, "$1");
    return NUMBER.test(bare) ? Number(bare) : NaN;
  }

  /** A number strictly between 0 and `high`. */
  function real(field, name, text, high, example) {
    const value = parsed(text);
    if (value > 0 && value < high && Number.isFinite(value)) return value;
    const range = high < Infinity ? `between 0 and ${high}` : "above 0";
    throw new Refused(`${name} is ${shown(text)}: give a number ${range}, such as ${example}.`, field);
  }

  /** A whole number from 1 to `most`. */
  function whole(field, name, text, example, most = accountant.MOST) {
    const value = parsed(text);
    if (Number.isInteger(value) && value >= 1 && value <= most) return value;
    const range = value > most ? `at most ${general(most)}` : "at least 1";
    throw new Refused(
      `${name} is ${shown(text)}: give a whole number of ${range}, such as ${example}.`,
      field
    );
  }

  function shown(text) {
    const bare = text.trim();
    if (!bare) return "missing";
    return bare.length > 20 ? `${bare.slice(0, 20)}…` : bare;
  }

  function choice(field, value, allowed) {
    if (allowed.includes(value)) return value;
    throw new Refused(`${field} is ${shown(value)}: choose one of ${allowed.join(", ")}.`, field);
  }

  /** The smaller of 1e-5 and 1/N^1.1 (McMahan et al. 2018). */
  function suggestDelta(clients) {
    return Math.min(1e-5, clients ** -1.1);
  }

  function usualAdjacency(trust) {
    return trust === "central" ? "add-or-remove" : "zero-out";
  }

  /** The plan that texts ask for; z is missing where ε is given, and the target where z is.

      Fields: clients, cohort ("" is everyone), rounds, sampling, trust, adjacency ("" is the
      usual one), delta ("" is the suggested one), give ("epsilon" or "z"), epsilon, z, survivors. */
  function planOf(texts) {
    const plan = {};
    plan.clients = whole("clients", "The population", texts.clients, "480");
    plan.everyone = texts.cohort.trim() === "";
    plan.cohort = plan.everyone
      ? plan.clients
      : real("cohort", "The cohort", texts.cohort, Infinity, "120");
    plan.rounds = whole("rounds", "The number of rounds", texts.rounds, "60", MOST_ROUNDS);
    const sampling = choice("sampling", texts.sampling, SAMPLINGS);
    plan.sampling = plan.everyone ? "none" : sampling;
    plan.trust = choice("trust", texts.trust, TRUSTS);
    const adjacency = texts.adjacency || usualAdjacency(plan.trust);
    plan.adjacency = choice("adjacency", adjacency, Object.keys(ADJACENCIES));
    plan.delta = suggestDelta(plan.clients);
    if (texts.delta.trim() !== "") plan.delta = real("delta", "δ", texts.delta, 1, "1e-5");
    if (plan.delta < accountant.LEAST_DELTA) {
      throw new Refused(`δ is ${shown(texts.delta)}: give at least 1e-300.`, "delta");
    }
    plan.minSurvivors = null;
    if (plan.trust === "distributed" && texts.survivors.trim() !== "") {
      plan.minSurvivors = whole("survivors", "The fewest survivors", texts.survivors, "96");
    }
    refuseWhatConflicts(plan);
    plan.z = null;
    plan.target = null;
    if (choice("give", texts.give, ["epsilon", "z"]) === "epsilon") {
      plan.target = real("epsilon", "ε", texts.epsilon, Infinity, "8");
    } else {
      plan.z = real("z", "z", texts.z, Infinity, "1.1");
      const [low, high] = accountant.NOISE_RANGE;
      if (!(plan.z >= low && plan.z <= high)) {
        throw new Refused(`z is ${shown(texts.z)}: give a value between 1e-9 and 1e12.`, "z");
      }
    }
    return plan;
  }

  /** Settings that are each in range and do not go together, refused as the package does. */
  function refuseWhatConflicts(plan) {
    const { clients, cohort, sampling, trust, adjacency, minSurvivors } = plan;
    const m = general(cohort, 10);
    if (cohort > clients) {
      throw new Refused(
        `cohort is ${m} but there are ${clients} clients: give at most that many`,
        "cohort"
      );
    }
    if (sampling === "fixed" && cohort !== Math.floor(cohort)) {
      throw new Refused(`cohort is ${m}: with sampling='fixed' give a whole number`, "cohort");
    }
    // Who took part is seen, so the statement cannot hide it.
    if (trust !== "central" && adjacency === "add-or-remove") {
      throw new Refused(
        `adjacency is 'add-or-remove' with trust='${trust}': the server sees who took part, and ` +
          "the noise itself tells how many, so nothing hides that a client was there; use " +
          "adjacency='zero-out', which hides what it sent, or 'replace-one'",
        "adjacency"
      );
    }
    if (trust === "central" && sampling === "fixed" && adjacency !== "replace-one") {
      throw new Refused(
        `adjacency is '${adjacency}' with sampling='fixed': when a client leaves, another moves ` +
          "up, the sum moves by up to 2C, and no proved accountant exists; use " +
          "adjacency='replace-one', or sampling='poisson'",
        "adjacency"
      );
    }
    if (trust !== "distributed") return;
    // The shares of the noise are calibrated for so many.
    if (minSurvivors === null) {
      throw new Refused(
        "min_survivors is None with trust='distributed': state the fewest honest clients whose " +
          "noise arrives in a released round (with fewer, nothing is released), e.g. " +
          exampleOfSurvivors(plan),
        "survivors"
      );
    }
    if (minSurvivors > cohort) {
      throw new Refused(
        `min_survivors is ${minSurvivors}, above the cohort ${m}: give fewer`,
        "survivors"
      );
    }
  }

  /** An example of min_survivors, of which few rounds fall short: a fifth drops out of a cohort that
      is small by two standard deviations. */
  function exampleOfSurvivors({ clients, cohort, sampling }) {
    let drawn = cohort;
    if (sampling === "poisson" && cohort < clients) {
      drawn -= 2 * Math.sqrt(cohort * (1 - cohort / clients));
    }
    return Math.max(1, Math.trunc(0.8 * drawn));
  }

  // ------------------------------------------------------------- what it spends (client.py)

  /** One round, as it is accounted. */
  function eventOf(plan, rounds) {
    const known = plan.trust !== "central";
    if (plan.sampling === "none" || plan.trust === "local") {
      return { z: plan.z, rate: 1, sampling: "none", rounds, known };
    }
    const rate = plan.cohort / plan.clients;
    return { z: plan.z, rate, sampling: plan.sampling, rounds, known };
  }

  /** ε after so many rounds, against the adversary of the plan. */
  function epsilonAt(plan, rounds = plan.rounds) {
    return epsilonOf(eventOf(plan, rounds), plan.delta, plan.adjacency);
  }

  /** The adjacency that hides what updates contain, where who took part is known. */
  function contentOf(plan) {
    return plan.adjacency === "replace-one" ? "replace-one" : "zero-out";
  }

  /** ε of so many participations, none of them amplified: a Gaussian each. */
  function plain(plan, rounds) {
    if (rounds === 0) return 0;
    const moves = plan.adjacency === "replace-one" ? 2 : 1;
    return gaussianEpsilon((moves * Math.sqrt(rounds)) / plan.z, plan.delta);
  }

  /** ε after so many rounds against whoever also knows who took part: a mixture over the coins. */
  function knownAt(plan, rounds = plan.rounds) {
    const event = { ...eventOf(plan, rounds), known: true };
    return epsilonOf(event, plan.delta, contentOf(plan));
  }

  /** Smallest k with P[Binomial(rounds, rate) > k] <= failure. */
  function participations(rounds, rate, failure) {
    let low = 0;
    let high = rounds;
    while (low < high) {
      const middle = Math.floor((low + high) / 2);
      if (binomialTail(middle, rounds, rate) <= failure) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /** Against whoever also knows who took part: the exact mixture, a bound that holds for all
      clients at once with probability .999, and all rounds whatever the draws. */
  function cohortKnown(plan) {
    const failure = 1 - CONFIDENCE;
    const { rate } = eventOf(plan, plan.rounds);
    const bound = participations(plan.rounds, rate, failure / plan.clients);
    return {
      epsilon: knownAt(plan),
      bound,
      epsilonBound: plain(plan, bound),
      epsilonAll: plain(plan, plan.rounds),
    };
  }

  /** The chance that too few clients come to a round, and to at least one of all rounds. */
  function skips(plan) {
    let round = 0;
    if (plan.minSurvivors !== null && plan.sampling === "poisson") {
      // fewer than s come: of the N more than N - s stay away
      const stay = plan.clients - plan.minSurvivors;
      round = binomialTail(stay, plan.clients, 1 - plan.cohort / plan.clients);
    }
    return { round, any: round < 1 ? -Math.expm1(plan.rounds * Math.log1p(-round)) : 1 };
  }

  /** Whether the account relies on who took part being secret. */
  function amplified(plan) {
    return plan.trust === "central" && plan.sampling !== "none";
  }

  /** Whether the account is over the stated coins, although it is known how they fell. */
  function mixed(plan) {
    return plan.trust === "distributed" && plan.sampling !== "none";
  }

  /** The plan with z and ε, and the account against those who know more. */
  function completed(plan) {
    const found = { ...plan };
    if (plan.z === null) {
      const event = eventOf(plan, plan.rounds);
      found.z = accountant.noiseFor(plan.target, plan.delta, event, plan.adjacency);
    }
    found.epsilon = epsilonAt(found);
    if (!Number.isFinite(found.epsilon)) {
      throw new Refused("With so little noise no ε below 1e15 holds: use more noise.", "z");
    }
    if (plan.target === null) found.target = Number(up(found.epsilon)) || TOLERANCE;
    found.known = cohortKnown(found);
    found.skips = skips(found);
    return found;
  }

  // ----------------------------------------------------------- in words (statement.py)

  // From here on a guarantee is called weak: e^10 is 22,026 to 1.
  const WEAK = 10;
  // A run that loses a round less often than this loses none that matters.
  const NEGLIGIBLE = 1e-3;

  /** The lines of `plan.statement()`, for a completed plan. */
  function statement(plan) {
    const lines = [...headline(plan)];
    lines.push(
      `Unit: one client, with all it contributes; ${plan.adjacency}: the run is compared with one ` +
        `in which ${ADJACENCIES[plan.adjacency]}.`,
      `Trust, ${plan.trust}: ${trustInWords(plan)}.`,
      `Against: ${againstInWords(plan)}.`,
      `Sampling, ${plan.sampling}: ${samplingInWords(plan)}.`,
      ...others(plan),
      ...skipsInWords(plan),
      noiseInWords(plan),
      deltaInWords(plan),
      `Accountant: ${accountantInWords(plan)}.`,
      assumptions(plan),
      "It does not cover:"
    );
    if (plan.adjacency !== "replace-one") {
      lines.push(
        "  - a change of some of a client's data, such as one record: that is replace-one, which " +
          "moves the sum by up to 2C;"
      );
    }
    if (plan.trust === "distributed") {
      lines.push(
        "  - a server that breaks the protocol, or makes up more clients than the colluders above;",
        "  - what clients send: nobody can look at an update, so a malicious one may be longer than " +
          "C and spoil the sum, though not the privacy of others;",
        "  - the sum itself, which the server sees, and every mean that follows from it;"
      );
    }
    lines.push(
      "  - anything else that leaves a client: data sizes, accuracies, losses, BatchNorm buffers, " +
        "times;",
      "  - choices made by looking at the data, such as tuning over several private runs;",
      "  - a person with several clients: plan.group(k) is the ε of k of them;",
      "  - the low-order digits of floating-point noise, which can betray more than its density " +
        `says (${exactNoise(plan)} has an exact grid instead);`,
      "  - what follows about a client from patterns that would be found without it as well."
    );
    return lines;
  }

  /** The noise that has no low-order digits of its own. */
  function exactNoise(plan) {
    return plan.trust === "distributed" ? "Skellam" : "DiscreteGaussian";
  }

  function headline(plan) {
    const lines = [
      `After ${plan.rounds} rounds: (${up(plan.epsilon)}, ${up(plan.delta)})-differential privacy ` +
        "at the client level.",
    ];
    if (plan.epsilon > plan.target * (1 + TOLERANCE)) {
      lines.push(`It misses the target ε = ${general(plan.target)}.`);
    }
    if (plan.epsilon > WEAK) {
      lines.push(`This is weak: one client may move the odds by a factor e^${up(plan.epsilon)}.`);
    }
    return lines;
  }

  function trustInWords(plan) {
    if (plan.trust === "local") {
      return (
        "nobody but the client itself, which clips its update and adds the full noise to its own " +
        "message"
      );
    }
    if (plan.trust === "distributed") {
      const s = plan.minSurvivors;
      return (
        `each client clips its own update and adds a share of the noise, of std z·C/√${s}; the ` +
        "server sees only sums, by secure aggregation. Trusted are that protocol, that the server " +
        "follows it, and that, of the clients whose shares are in a released sum, at least " +
        // The page asks for no colluders.
        `${s} are honest and none tell it what they know (one that the server made up does). A ` +
        `round to which fewer than ${s} come is skipped: it releases nothing, and is spent. The ` +
        "noise grows with the number that came: that number is public, also where a round is skipped"
      );
    }
    // Whoever is seen to take part cannot be hidden as a member; who is drawn, not as drawn.
    const secretDraws = amplified(plan) || plan.adjacency === "add-or-remove";
    return (
      "the server sees every update in the clear; it is trusted to clip each, to add the noise to " +
      `the sum, and to keep updates, norms${secretDraws ? ", who took part" : ""} and the random ` +
      "numbers of the noise to itself"
    );
  }

  function againstInWords(plan) {
    if (plan.trust === "local") {
      return "whoever sees every message of this client, and when it sent one";
    }
    if (plan.trust === "distributed") {
      return (
        "the server, which follows the protocol, and all others: they see every sum and know who " +
        "took part: that a client did is not hidden from them, and sampling amplifies nothing " +
        "against them"
      );
    }
    const sees = "whoever sees every model of the run";
    if (amplified(plan) || plan.adjacency === "add-or-remove") {
      return `${sees}, but neither updates nor who took part`;
    }
    return `${sees} and who took part, but no updates`;
  }

  function samplingInWords(plan) {
    if (!amplified(plan) && !mixed(plan)) return noClaim(plan);
    const secret = amplified(plan);
    const q = up(plan.cohort / plan.clients);
    let words =
      plan.sampling === "poisson"
        ? `every round each client takes part by its own ${secret ? "secret " : ""}coin, q = ${q}, ` +
          `whatever the others do${secret ? "" : "; how it fell is known"}`
        : `every round exactly ${general(plan.cohort, 10)} of ${plan.clients} clients are drawn, ` +
          `uniformly, ${secret ? "in secret, " : ""}without replacement` +
          `${secret ? "" : "; who is known"}`;
    if (!secret) {
      words += ", so nothing is amplified: a client pays for the rounds in which it takes part";
    }
    return words;
  }

  function noClaim(plan) {
    let words =
      `no amplification is claimed, a client pays for all ${plan.rounds} rounds; who takes part ` +
      "must not depend on the data";
    if (plan.adjacency === "add-or-remove" && plan.cohort !== plan.clients) {
      words += ", nor who else is drawn on whether one client is there (else: zero-out)";
    }
    return words;
  }

  /** What holds against those who know more than the headline's adversary. */
  function others(plan) {
    if (!amplified(plan) && !mixed(plan)) return [];
    const { known } = plan;
    const crowd =
      `with probability ${down(CONFIDENCE, 6)} no client takes part in more than ${known.bound} ` +
      `rounds, which is ε = ${up(known.epsilonBound)}`;
    const every = `ε = ${up(known.epsilonAll)}, that of all ${plan.rounds} rounds`;
    if (mixed(plan)) {
      return [
        "Coins: this ε presumes that the server draws them as stated; the chance of being drawn " +
          `often counts towards δ. Also, ${crowd}. Against a server that draws otherwise: ${every}.`,
      ];
    }
    return [
      "Against whoever also knows who took part, but not the server, which sees the updates " +
        "(hidden is then what updates contain, not who sent them; the chance of being drawn often " +
        `counts towards δ): ε = ${up(known.epsilon)}. Also, ${crowd}. Whatever the draws: ${every}.`,
    ];
  }

  function skipsInWords(plan) {
    if (plan.skips.any < NEGLIGIBLE) return [];
    return [
      `Skipped rounds: by the stated coins fewer than ${plan.minSurvivors} clients come to a round ` +
        `with probability ${up(plan.skips.round)}, and to at least one of the ${plan.rounds} rounds ` +
        `with probability ${up(plan.skips.any)}; more often if some drop out.`,
    ];
  }

  function noiseInWords(plan) {
    const where = plan.trust === "local" ? "message" : "sum";
    // More than the fewest survivors add more shares than z counts on.
    const size = plan.trust === "distributed" ? "std at least z·C" : "std z·C";
    return (
      `Noise: Gaussian (${exactNoise(plan)}: its counterpart on a grid), ${size} on each ${where}, z ` +
      `at least ${down(plan.z, 5)}, C the clip norm of a whole update, times the cap of its weight if ` +
      "updates are weighted; the mean divides by a public number, without weights " +
      `${general(plan.cohort, 10)}, never by the number that came.`
    );
  }

  function deltaInWords(plan) {
    const betrayed = plan.delta * plan.clients;
    // One client on average, or more: then (0, δ) promises nothing that matters.
    const weak = betrayed >= 1 ? "; this δ is too weak" : "";
    return (
      `δ = ${up(plan.delta)}: the weight of outcomes on which ε promises nothing. To publish each ` +
      `client in full with that chance would satisfy it: N·δ = ${up(betrayed)} of the ` +
      `${plan.clients} clients on average${weak}.`
    );
  }

  function accountantInWords(plan) {
    if (eventOf(plan, 1).rate === 1) return "pld, without sampling the exact formula for Gaussian noise";
    if (mixed(plan)) {
      return "pld, an upper bound: the exact formula for each number of participations, summed";
    }
    return (
      "pld, an upper bound, where the round-off of its FFT is bounded as if independent over the " +
      "frequencies"
    );
  }

  function assumptions(plan) {
    const seed = amplified(plan) ? " (with a seed for the draws: plan.seeded_epsilon)" : "";
    const drops =
      plan.trust === "distributed" ? " who drops out does not depend on the data," : "";
    return (
      `Assumes: clips, weights, noise and draws as stated,${drops} at most ${plan.rounds} rounds, ` +
      `and random numbers that nobody can guess${seed}.`
    );
  }

  // ----------------------------------------------------------------------------- in Python

  /** A number as Python reads it, small ones without their zeros. */
  function literal(value) {
    return value < 1e-3 ? value.toExponential() : String(value);
  }

  /** The line that makes the same plan: `give` is what was given, "epsilon" or "z". */
  function python(plan, give) {
    const shared = [`delta=${literal(plan.delta)}`, `rounds=${plan.rounds}`, `clients=${plan.clients}`];
    const named = [`trust="${plan.trust}"`, `adjacency="${plan.adjacency}"`];
    if (plan.minSurvivors !== null) named.push(`min_survivors=${plan.minSurvivors}`);
    const drawn = [`cohort=${plan.cohort}`, `sampling="${plan.sampling}"`];
    let name = "fldp.calibrate";
    let given = [`epsilon=${literal(plan.target)}`, ...shared, ...(plan.everyone ? [] : drawn), ...named];
    if (give === "z") {
      name = "fldp.PrivacyPlan";
      given = [`noise_multiplier=${literal(plan.z)}`, ...shared, ...drawn, ...named];
      given.push('accountant="pld"', `target_epsilon=${literal(plan.target)}`);
    }
    return `plan = ${name}(\n${given.map((one) => `    ${one},\n`).join("")})`;
  }

  return {
    planOf,
    completed,
    epsilonAt,
    knownAt,
    amplified,
    mixed,
    againstInWords,
    statement,
    python,
    suggestDelta,
    usualAdjacency,
    exampleOfSurvivors,
    general,
    up,
    down,
  };
}

if (typeof module !== "undefined") module.exports = makeFldpPlan;
