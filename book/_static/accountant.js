/* The accountant of the book's privacy calculator: epsilon from z, and z from epsilon.

   A port of fldp/accounting/ for one kind of round: Gaussian noise on a sum, with everybody taking
   part, Poisson sampling, or a cohort of fixed size. Each section names the Python module that it
   follows, and tests/book/test_calculator.py compares the answers. Every epsilon is an upper bound.

   A classic script without dependencies, so that the page also works from a file. The function
   uses nothing that is outside it, so that a worker can be made of its text. */

function makeFldpAccountant() {
  "use strict";

  // ------------------------------------------------------------------------------- numbers

  // A smaller delta is reported as this: logarithms stay finite, and it is an upper bound.
  const LEAST_DELTA = 1e-300;
  // exp beyond this is infinite in double precision.
  const LARGEST_EXP = 700;
  const UNIT = 2 ** -52;
  // Counts up to here are exact, and beyond it arithmetic overflows in odd places.
  const MOST = 1e15;

  /** The answer lies beyond what the grid can hold. */
  class OutOfReach extends Error {}

  /** A question that has no answer: the message says what to change, and `field` where. */
  class Refused extends Error {
    constructor(message, field = "") {
      super(message);
      this.field = field;
    }
  }

  /** The sum of x, with the rounding errors kept (Neumaier): as good as any order of summing. */
  function sum(x) {
    let total = 0;
    let lost = 0;
    for (let i = 0; i < x.length; i++) {
      const next = total + x[i];
      lost += Math.abs(total) >= Math.abs(x[i]) ? total - next + x[i] : x[i] - next + total;
      total = next;
    }
    return total + lost;
  }

  /** Numbers f(0), ..., f(n - 1); ten times as fast as Float64Array.from. */
  function filled(n, f) {
    const out = new Float64Array(n);
    for (let i = 0; i < n; i++) out[i] = f(i);
    return out;
  }

  function largest(x) {
    let top = -Infinity;
    for (let i = 0; i < x.length; i++) if (x[i] > top) top = x[i];
    return top;
  }

  /** The index of the least of x, the first one. */
  function indexOfLeast(x) {
    let best = 0;
    for (let i = 1; i < x.length; i++) if (x[i] < x[best]) best = i;
    return best;
  }

  /** n numbers from a to b, in equal ratios. */
  function geometric(a, b, n) {
    const low = Math.log(a);
    const step = (Math.log(b) - low) / (n - 1);
    return filled(n, (i) => Math.exp(low + step * i));
  }

  /** n numbers from a to b, in equal steps. */
  function linear(a, b, n) {
    return filled(n, (i) => a + ((b - a) / (n - 1)) * i);
  }

  /** log(e^a + e^b). */
  function logAddExp(a, b) {
    const top = Math.max(a, b);
    return top === -Infinity ? top : top + Math.log1p(Math.exp(-Math.abs(a - b)));
  }

  /** log of the sum of e^f(i) for i < n, not all of them -Infinity; with compensation, as `sum`. */
  function logSum(n, f) {
    let top = -Infinity;
    for (let i = 0; i < n; i++) top = Math.max(top, f(i));
    let total = 0;
    let lost = 0;
    for (let i = 0; i < n; i++) {
      const one = Math.exp(f(i) - top);
      const next = total + one;
      lost += total >= one ? total - next + one : one - next + total;
      total = next;
    }
    return top + Math.log(total + lost);
  }

  // ---------------------------------------------- error functions (fldp/accounting/gaussian.py)

  // (1 + 2x) e^(x^2) erfc(x) as a polynomial in (x - k)/(x + k), for all x >= 0 at once (Shepherd &
  // Laframboise 1981); relative error below 7e-16.
  const ERFCX_CENTRE = 3.75;
  const ERFCX = [
    1.2375126308378275, -0.14024059858554697, 0.003585415485464427, 0.0822767384901452,
    -0.10880393014174886, 0.09230432116037748, -0.05869339858963678, 0.0283622774189564,
    -0.009746579558029277, 0.0017556258528952959, 0.00029371366559134476, -0.00029015408054084183,
    5.164909889268241e-5, 2.2384239155082227e-5, -1.1444146237700522e-5, -9.73559896736775e-7,
    1.7516376488490619e-6, -5.72182306032241e-8, -2.586685071615588e-7, 2.3263508708859134e-8,
    3.8675334242222354e-8, -3.7442100809620216e-9, -5.173990214011311e-9, 3.1114333809799254e-10,
    4.2514714447963895e-10,
  ];
  // Beyond this e^(-x^2) is 0.
  const LAST_SQUARE = 40;
  // Where the series for erf ends to be short.
  const SERIES_UP_TO = 2;
  // What rounding may take off a difference of two scaled error functions, per unit of the larger.
  const ROUND_OFF = 8 * UNIT;

  /** e^(x^2) erfc(x) for x >= 0. */
  function erfcx(x) {
    const far = Math.min(x, 1e300);
    const t = (far - ERFCX_CENTRE) / (far + ERFCX_CENTRE);
    let value = ERFCX[ERFCX.length - 1];
    for (let i = ERFCX.length - 2; i >= 0; i--) value = value * t + ERFCX[i];
    return value / (1 + 2 * far);
  }

  /** e^(-x^2) to the last digits, for x >= 0: the square of a short number is exact. */
  function expSquare(x) {
    const near = Math.min(x, LAST_SQUARE);
    const short = Math.floor(16 * near) / 16;
    return Math.exp(-short * short) * Math.exp(-(near - short) * (near + short));
  }

  /** erfc(x) for x >= 0. */
  function erfc(x) {
    return erfcx(x) * expSquare(x);
  }

  /** erf(x) for x >= 0, with all its digits next to 0. */
  function erf(x) {
    if (x > SERIES_UP_TO) return 1 - erfc(x);
    let term = x;
    let total = x;
    for (let n = 1; term > UNIT * total * 0.1; n++) {
      term *= (2 * x * x) / (2 * n + 1);
      total += term;
    }
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * total;
  }

  // ----------------------------------------------------- searches (fldp/accounting/search.py)

  // Beyond this no root is looked for: no epsilon as large says anything.
  const FARTHEST = 1e15;
  // Regula falsi aims above the root by this share of its step, and of the bracket, so that the
  // upper end closes in on it too; but it never goes all the way to the upper end.
  const ABOVE_STEP = 1e-6;
  const ABOVE_BRACKET = 1e-13;
  const LONGEST_STEP = 1 - 1e-3;

  /** The least x >= low with f(x) <= 0 of a falling f, from above, to a relative error of digits. */
  function fallingRoot(f, low, high, digits = 1e-12) {
    let atLow = f(low);
    if (atLow <= 0) return low;
    let atHigh = f(high);
    while (atHigh > 0) {
      low = high;
      atLow = atHigh;
      high *= 2;
      if (high > FARTHEST) return Infinity;
      atHigh = f(high);
    }
    let inARow = 0;
    while (atHigh < 0 && high - low > digits * high) {
      let share = atLow / (atLow - atHigh);
      inARow += 1;
      if (inARow > 2 || !(share > 0 && share < 1)) {
        inARow = 0;
        share = 0.5;
      }
      const step = Math.min(LONGEST_STEP, share * (1 + ABOVE_STEP) + ABOVE_BRACKET);
      let x = low + (high - low) * step;
      if (!(low < x && x < high)) x = 0.5 * (low + high);
      if (!(low < x && x < high)) break; // no number lies between the two
      const value = f(x);
      if (value > 0) {
        low = x;
        atLow = value;
      } else {
        high = x;
        atHigh = value;
      }
    }
    return high;
  }

  /** The point that `pick` takes in the end, from ever closer points around the last one taken. */
  function zoomed(pick, points, sizes) {
    for (const size of sizes) {
      const i = pick(points);
      points = geometric(points[Math.max(0, i - 1)], points[Math.min(i + 1, points.length - 1)], size);
    }
    return points[pick(points)];
  }

  /** The least value that `f` takes on the points which `zoomed` looks at. */
  function least(f, points, sizes) {
    let found = Infinity;
    zoomed(
      (x) => {
        const values = f(x);
        const i = indexOfLeast(values);
        found = Math.min(found, values[i]);
        return i;
      },
      points,
      sizes
    );
    return found;
  }

  // log z moves by at most this much at a time before the answer is bracketed; where epsilon is
  // flat at 0 by less.
  const STRIDE = 1.5;
  const FLAT_STRIDE = STRIDE / 4;
  // The flattest slope that a secant may claim: a flatter one is noise, and would leap.
  const FLATTEST = 0.05;
  // A secant may come this share of the bracket near to its ends, else the bracket is halved; and
  // every so many steps it is halved, whatever the secant says.
  const MARGIN_OF_BRACKET = 0.01;
  const HALVE = 5;
  const QUESTIONS = 100;
  // Ends of a bracket closer than this in log z hold nothing that matters.
  const WIDTH = 1e-9;
  // Scores in logarithms are told apart down to this ratio.
  const LEAST_SCORED = 1e-12;
  const LIMITS = [1e-6, 1e12];

  /** Secant steps in log z towards the root of a falling score, inside a bracket once there is one. */
  class Bracket {
    constructor(start) {
      [this.low, this.high] = LIMITS.map(Math.log);
      this.x = Math.min(this.high, Math.max(this.low, start.x));
      this.slope = start.slope;
      this.left = -Infinity;
      this.right = Infinity;
      this.last = null;
      this.turn = 0;
      this.repeats = 0;
    }

    note(score, flat) {
      if (!flat) {
        const sameSide = this.last !== null && this.last.score * score > 0;
        this.repeats = sameSide ? this.repeats + 1 : 0;
        if (this.last !== null && this.last.x !== this.x && this.last.score !== score) {
          this.slope = Math.min(-FLATTEST, (score - this.last.score) / (this.x - this.last.x));
        }
        this.last = { x: this.x, score };
      }
      if (score > 0) this.left = this.x;
      else this.right = this.x;
    }

    atEnd(score) {
      return (score > 0 && this.x >= this.high) || (score <= 0 && this.x <= this.low);
    }

    narrow() {
      return this.right - this.left < WIDTH;
    }

    move(score, flat) {
      this.turn += 1;
      let x = Math.min(this.high, Math.max(this.low, this.secant(score, flat)));
      const width = this.right - this.left;
      if (Number.isFinite(width)) {
        const margin = MARGIN_OF_BRACKET * width;
        const inside = this.left + margin < x && x < this.right - margin;
        if (!inside || this.turn % HALVE === 0) x = 0.5 * (this.left + this.right);
      }
      this.x = x;
    }

    secant(score, flat) {
      if (!flat) {
        // on the same side again and again: the slope was too steep
        const step = (score / this.slope) * 2 ** Math.max(0, this.repeats - 1);
        return this.x - Math.max(-STRIDE, Math.min(STRIDE, step));
      }
      if (this.last !== null) return this.last.x - this.last.score / this.slope;
      return this.x - FLAT_STRIDE;
    }
  }

  /** log z at which the falling `f` is `target` up to `tolerance`, and the slope there.

      With `final` the answer has f <= target and was asked for; else it is a start for the next
      search. A start has x = log z, the slope of log f there, and `steep` where f itself is nearer
      to a line. */
  function settle(f, target, start, tolerance, final = false) {
    const aim = final ? target * (1 - tolerance / 2) : target;
    const most = final ? target : target * (1 + tolerance);
    const search = new Bracket(start);
    for (let question = 0; question < QUESTIONS; question++) {
      const value = f(search.x);
      const score = start.steep ? value / aim - 1 : Math.log(Math.max(value / aim, LEAST_SCORED));
      search.note(score, value <= 0);
      if (target * (1 - tolerance) <= value && value <= most) {
        const x = final ? search.x : search.x - score / search.slope;
        return { ...start, x, slope: search.slope };
      }
      const ends = search.atEnd(score);
      if (ends && final) throw outOfRange(target, value, score > 0);
      if (ends || search.narrow()) {
        return { ...start, x: Math.min(search.right, search.high), slope: search.slope };
      }
      search.move(score, value <= 0);
    }
    if (final) throw new Refused(`No noise was found for ε = ${target}: change it slightly.`);
    return { ...start, x: search.x, slope: search.slope };
  }

  function outOfRange(target, value, tooMuch) {
    const shown = value.toPrecision(4);
    return new Refused(
      tooMuch
        ? `ε = ${target} cannot be reached, the smallest is ${shown}: ask for more, or change δ, ` +
            "rounds or sampling."
        : `Almost no noise already gives ε = ${shown} at this δ, which is less than ${target}: ask ` +
            "for a smaller ε, or for a smaller δ."
    );
  }

  // --------------------------------------------- closed forms (fldp/accounting/gaussian.py)

  // Where mu is looked for: from e^30 down, by e^-40 at first, and never below the least.
  const LARGEST_MU = Math.exp(30);
  const MU_RANGE = 40;
  const LEAST_MU = 1e-300;
  // Share of delta that the cut tails of a binomial may have.
  const CUT = 1e-9;

  /** log delta of a Gaussian with sensitivity/noise mu (Balle & Wang 2018), rounding added.

      It is (erfc(near) - e^epsilon erfc(far)) / 2. Both terms have the factor e^(-near^2), since
      far^2 = near^2 + epsilon: taken out, nothing underflows. */
  function logDelta(mu, epsilon) {
    if (epsilon === 0) {
      return Math.log(Math.max(erf(mu / Math.sqrt(8)) * (1 + ROUND_OFF), LEAST_DELTA));
    }
    const near = (epsilon / mu - mu / 2) * Math.SQRT1_2;
    const far = (epsilon / mu + mu / 2) * Math.SQRT1_2;
    let inside = erfcx(Math.max(near, 0));
    let outside = erfcx(far);
    let scale = near * near;
    if (near < 0) {
      // the factor is left in: without it erfc(near), which is near to 2, is not in range
      inside = 2 - erfc(-near);
      outside = Math.exp(-scale) * outside;
      scale = 0;
    }
    const gap = 0.5 * (inside - outside + ROUND_OFF * inside);
    return Math.log(Math.max(gap, LEAST_DELTA)) - scale;
  }

  function gaussianDelta(mu, epsilon) {
    return Math.max(LEAST_DELTA, Math.exp(logDelta(mu, epsilon)));
  }

  /** Epsilon of a Gaussian; mu is sqrt(T)/z for T rounds that everybody takes part in. */
  function gaussianEpsilon(mu, delta) {
    const goal = Math.log(delta);
    // above the loss's mean mu^2/2 by so many of its standard deviations mu that less is left
    const high = (mu * mu) / 2 + mu * (1 + Math.sqrt(-2 * goal));
    return fallingRoot((e) => logDelta(mu, e) - goal, 0, high, 0);
  }

  /** The largest mu that is (epsilon, delta)-DP. */
  function gaussianMu(epsilon, delta) {
    const goal = Math.log(delta);
    const muAt = (x) => Math.max(LEAST_MU, LARGEST_MU * Math.exp(-x));
    // log delta is near to a power of mu, so that its logarithm is near to a line
    const tooMuch = (x) => -Math.log(Math.max(logDelta(muAt(x), epsilon) / goal, LEAST_DELTA));
    const found = fallingRoot(tooMuch, 0, MU_RANGE, 1e-15);
    if (found === Infinity) throw new Refused(`No Gaussian meets δ = ${delta} at ε = ${epsilon}.`);
    return muAt(found);
  }

  /** Delta of a Gaussian for one of many mu; 0 allowed. */
  function deltaOf(mu, epsilon) {
    if (mu <= 0) return 0;
    const near = (epsilon / mu - mu / 2) * Math.SQRT1_2;
    const far = (epsilon / mu + mu / 2) * Math.SQRT1_2;
    const scale = expSquare(Math.abs(near));
    const tail = erfcx(Math.abs(near)) * scale;
    const inside = near < 0 ? 2 - tail : tail;
    const gap = 0.5 * (inside - scale * erfcx(far) + ROUND_OFF * inside);
    return Math.min(1, Math.max(0, gap));
  }

  /** Epsilon against who knows which rounds a client took part in: a mixture over the coins.

      Delta is the mean of that of a Gaussian of ratio mu sqrt(K) over K ~ Bin(rounds, rate). */
  function knownEpsilon(mu, rate, rounds, delta) {
    const cut = CUT * delta;
    const { values, weights } = binomial(rounds, rate, cut);
    const mus = values.map((count) => mu * Math.sqrt(count));
    const top = mus[mus.length - 1];
    const terms = new Float64Array(mus.length);
    const excess = (epsilon) => {
      for (let i = 0; i < mus.length; i++) terms[i] = weights[i] * deltaOf(mus[i], epsilon);
      const total = Math.min(1, Math.max(LEAST_DELTA, sum(terms) + cut));
      return Math.log(total / delta);
    };
    // epsilon of the largest ratio, with what the cut tails leave of delta
    const reach = Math.sqrt(-2 * Math.log(delta * (1 - 4 * CUT)));
    return fallingRoot(excess, 0, (top * top) / 2 + top * (1 + reach));
  }

  // ------------------------------------------------ binomials (fldp/accounting/binomial.py)

  // Windows longer than this are summed in groups of neighbours.
  const GROUPS = 1 << 17;
  // Beyond this multiple of the mean the plain formula for the deviance is as good.
  const FAR = 1e6;
  // Below this Stirling's error comes from the factorial itself, above from its series.
  const SMALL = 16;
  const STIRLING = [0];
  for (let k = 1, factorial = 1; k < SMALL; k++) {
    factorial *= k;
    const formula = (k + 0.5) * Math.log(k) - k + 0.5 * Math.log(2 * Math.PI);
    STIRLING.push(Math.log(factorial) - formula);
  }

  /** log k! less Stirling's formula, for whole k >= 1. */
  function stirlingError(k) {
    if (k < SMALL) return STIRLING[k];
    const y = 1 / (k * k);
    return (1 / 12 - y * (1 / 360 - y * (1 / 1260 - y / 1680))) / k;
  }

  /** k log(k/mean) + mean - k, without the cancellation near the mean. */
  function deviance(k, mean) {
    const u = (k - mean) / mean;
    if (u > FAR) return k * (Math.log(k) - Math.log(mean)) + mean - k;
    return mean * ((1 + u) * Math.log1p(u) - u);
  }

  /** log P[Bin(trials, rate) = k]; precise for many trials (Loader 2000). */
  function logPmf(k, trials, rate) {
    if (k === 0) return trials * Math.log1p(-rate);
    if (k === trials) return trials * Math.log(rate);
    const misses = trials - k;
    const errors = stirlingError(trials) - stirlingError(k) - stirlingError(misses);
    const far = deviance(k, trials * rate) + deviance(misses, trials * (1 - rate));
    return errors - far - 0.5 * Math.log(2 * Math.PI * k * (misses / trials));
  }

  /** The largest member of each group of [low, high], and at least the group's probability. */
  function grouped(low, high, trials, rate) {
    const stride = Math.ceil((high - low + 1) / GROUPS);
    const size = Math.ceil((high - low + 1) / stride);
    const values = new Float64Array(size);
    const weights = new Float64Array(size);
    // rounding of the mean shows in the deviance, by up to this at 16 standard deviations
    const rounding = UNIT * (64 + 16 * Math.sqrt(trials));
    // probabilities rise up to the mode and fall after it
    const mode = Math.floor((trials + 1) * rate);
    for (let i = 0; i < size; i++) {
      const first = low + i * stride;
      const last = Math.min(first + stride - 1, high);
      const peak = Math.min(last, Math.max(first, mode));
      values[i] = last;
      weights[i] = (last - first + 1) * Math.exp(logPmf(peak, trials, rate) + rounding);
    }
    return { values, weights };
  }

  /** Distance from the mean that is exceeded with chance below `failure` (Bernstein). */
  function bernstein(trials, rate, failure) {
    const load = -Math.log(failure);
    return load / 3 + Math.sqrt((load * load) / 9 + 2 * load * trials * rate * (1 - rate));
  }

  /** Values and probabilities of Bin(trials, rate), but for tails of weight `failure` each. */
  function binomial(trials, rate, failure) {
    if (rate <= 0 || rate >= 1) {
      return { values: Float64Array.of(rate <= 0 ? 0 : trials), weights: Float64Array.of(1) };
    }
    const reach = bernstein(trials, rate, failure);
    const low = Math.max(0, Math.floor(trials * rate - reach));
    const high = Math.min(trials, Math.ceil(trials * rate + reach));
    const found = grouped(low, high, trials, rate);
    found.weights[0] += low ? failure : 0;
    return found;
  }

  /** P[Bin(trials, rate) > k], or a little more. */
  function binomialTail(k, trials, rate) {
    if (k < 0) return 1;
    if (k >= trials || rate <= 0) return 0;
    if (rate >= 1) return 1;
    // terms that are this much smaller than the first no longer count
    const first = k + 1 > trials * rate ? logPmf(k + 1, trials, rate) : 0;
    const little = Math.max(1e-300, 1e-17 * Math.exp(first));
    const reach = bernstein(trials, rate, little);
    const high = Math.min(trials, Math.ceil(Math.max(trials * rate, k) + reach));
    const above = sum(grouped(k + 1, high, trials, rate).weights);
    return Math.min(1, above + little);
  }

  // --------------------- dominating pairs (fldp/accounting/pairs.py and gaussian_pairs.py)

  // Transforms of more points take too long.
  const MAX_POINTS = 1 << 22;
  // Beyond this index neighbours on a grid are the same number.
  const LAST_INDEX = 2 ** 52;
  // A quadrature has at most so many nodes; only below z = 0.015 would it need more.
  const MOST_NODES = 4000;
  // Its nodes per standard deviation: three are exact to 1e-9 for a smooth function of a normal
  // output, and twelve see the corner of a fixed cohort's loss at 0.
  const NODES_PER_SD = 3;
  const NODES_AT_A_CORNER = 12;
  // From here on asinh(e^r) = r + log 2 in double precision.
  const LARGE_ASINH = 20;
  const NO_MASS = 1e-300;

  function tooFine(points) {
    return new OutOfReach(
      `The privacy loss needs ${points.toPrecision(3)} grid points, more than ${MAX_POINTS}: use ` +
        "more noise, fewer rounds or a larger δ."
    );
  }

  /** The multiples n step around [low, high]: the first n, and how many there are. */
  function multiplesAround(low, high, step) {
    if (!((high - low) / step <= MAX_POINTS)) throw tooFine((high - low) / step);
    const farthest = Math.max(Math.abs(low), Math.abs(high)) / step;
    if (farthest > LAST_INDEX) throw tooFine(farthest);
    const first = Math.floor(low / step);
    return { first, count: Math.max(Math.ceil(high / step), first + 1) - first + 1 };
  }

  /** "Connect the dots" (Doroshenko et al. 2022): the masses of cells, moved to the grid.

      p and q are the masses of the losses below the grid, between successive multiples of `step`,
      and above the last one. The P- and the Q-mass of a cell both move to its two ends, and neither
      total changes: so delta is exact at every multiple, and between two of them it is a chord of
      the true delta, never below it. */
  function placed(first, p, q, step) {
    const cells = p.length - 2;
    const mass = new Float64Array(cells + 1);
    const spread = new Float64Array(cells + 1);
    const gap = -Math.expm1(-step);
    for (let i = 0; i < cells; i++) {
      const inside = p[i + 1];
      // the cap on exp can only move mass upwards
      const lower = Math.exp(Math.min((first + i) * step, LARGEST_EXP));
      const up = Math.min(inside, Math.max(0, (inside - q[i + 1] * lower) / gap));
      mass[i] += inside - up;
      spread[i] = ((up * (inside - up)) / Math.max(inside, LEAST_DELTA)) * step * step;
      mass[i + 1] += up;
    }
    mass[0] += p[0];
    return { first, mass, spread, infinite: p[p.length - 1] };
  }

  /** The masses of N(centre, z^2) between outputs that rise: each one's from the last one. */
  class Between {
    constructor(centre, z) {
      this.centre = centre;
      this.z = z;
      this.before = -Infinity;
      this.tailBefore = 0;
    }

    next(output) {
      const x = (output - this.centre) / this.z;
      // the smaller of the two tails: differences of these do not cancel, far out
      const tail = Math.abs(x) < Infinity ? 0.5 * erfc(Math.abs(x) * Math.SQRT1_2) : 0;
      const across = this.before < 0 && x > 0;
      const mass = across ? 1 - this.tailBefore - tail : Math.abs(tail - this.tailBefore);
      this.before = x;
      this.tailBefore = tail;
      return mass;
    }
  }

  /** Outputs of a quadrature, and the log of what N(0, z^2) has at each. */
  function outputs(low, high, z, perSd) {
    // z^2 is the scale on which a mixture's density turns from one centre to the next
    const step = Math.max(Math.min(z / perSd, z * z), (high - low) / MOST_NODES);
    const count = Math.ceil((high + step - low) / step);
    const x = filled(count, (i) => low + i * step);
    const scale = Math.log(step) - Math.log(z * Math.sqrt(2 * Math.PI));
    return { x, logDensity: x.map((v) => (-v * v) / (2 * z * z) + scale) };
  }

  /** P[N(0, 1) > x] e^logScale. */
  function scaledTail(x, logScale) {
    if (x < 0) {
      return Math.exp(Math.min(logScale, LARGEST_EXP)) * (1 - 0.5 * erfc(-x * Math.SQRT1_2));
    }
    // the scale and the tail may each be out of double precision, but not their product
    const scale = Math.exp(Math.min(LARGEST_EXP, logScale - (x * x) / 2));
    return 0.5 * erfcx(x * Math.SQRT1_2) * scale;
  }

  /** A client of a Poisson cohort: kind "remove", "add" or "replace", at rate q and noise z.

      P = (1-q) N(0) + q N(1) against Q = N(0) for "remove", the reverse for "add", and against
      (1-q) N(0) + q N(-1) for "replace". */
  class Subsampled {
    constructor(kind, q, z) {
      this.kind = kind;
      this.q = q;
      this.z = z;
      this.logStay = Math.log1p(-q);
      this.logGo = Math.log(q);
      // what log(P/Q) falls towards: where nobody took part P has a share of Q's density
      this.least = kind === "replace" || q === 1 ? -Infinity : Math.log1p(-q);
      this.variation = q * erf((kind === "replace" ? 2 : 1) / (z * Math.sqrt(8)));
    }

    /** Delta of one round. */
    profile(epsilon) {
      const q = this.q;
      if (this.kind === "replace") {
        const x = this.output(epsilon);
        const at = (centre, logScale) => scaledTail((x - centre) / this.z, logScale);
        const plus = (1 - q) * at(0, 0) + q * at(1, 0);
        const minus = (1 - q) * at(0, epsilon) + q * at(-1, epsilon);
        // the two nearly cancel at large z: add what rounding may have taken
        return Math.max(0, plus - minus + ROUND_OFF * (plus + minus));
      }
      // from a full Gaussian's (Balle, Barthe & Gaboardi 2018): what its loss must be for that of
      // the sampled one to be epsilon
      if (this.kind === "remove") {
        const more = Math.max(0, epsilon - LARGEST_EXP);
        const inner = Math.log1p(Math.expm1(epsilon - more) / q) + more;
        return q * gaussianDelta(1 / this.z, inner);
      }
      if (epsilon >= -this.least) return 0;
      const left = -Math.expm1(epsilon + this.least); // 1 - (1 - q) e^epsilon
      return left * gaussianDelta(1 / this.z, Math.max(0, epsilon + Math.log(q / left)));
    }

    /** log of P's density at output x, relative to that of N(0, z^2). */
    logUpper(x) {
      const y = (2 * x - 1) / (2 * this.z * this.z);
      return this.q < 1 ? logAddExp(this.logStay, this.logGo + y) : y;
    }

    /** The output at which log(P/Q) has this value; -Infinity below its range. */
    output(loss) {
      const q = this.q;
      const variance = this.z * this.z;
      if (q === 1) return this.kind === "replace" ? (variance * loss) / 2 : variance * loss + 0.5;
      const odds = this.logStay - this.logGo;
      if (this.kind === "replace") {
        // z^2 (l/2 + asinh((1-q)/q e^(1/2z^2) sinh(l/2))), in logarithms
        const half = Math.abs(loss) / 2;
        const r = half + Math.log(-Math.expm1(-2 * half) / 2) + odds + 1 / (2 * variance);
        const turn = r > LARGE_ASINH ? r + Math.LN2 : Math.asinh(Math.exp(r));
        return Math.sign(loss) * variance * (half + turn);
      }
      // 1 - q + q e^((2x-1)/2z^2) = e^l solved for x, in logarithms
      const y = Math.max(loss - this.logStay, 0);
      return variance * (y + Math.log(-Math.expm1(-y)) + odds) + 0.5;
    }

    /** A quadrature of the loss under P: nodes, and the logarithms of their weights. */
    nodes(reach) {
      const low = (this.kind === "replace" ? -1 : 0) - reach * this.z;
      const { x, logDensity } = outputs(low, 1 + reach * this.z, this.z, NODES_PER_SD);
      const upper = x.map((v) => this.logUpper(v));
      if (this.kind === "add") return { loss: upper.map((v) => -v), logWeight: logDensity };
      const loss = upper.slice();
      if (this.kind === "replace") x.forEach((v, i) => (loss[i] -= this.logUpper(-v)));
      return { loss, logWeight: upper.map((v, i) => v + logDensity[i]) };
    }

    /** P- and Q-masses of the losses below the grid, between its points, and above. */
    masses(first, count, step) {
      const share = this.q;
      const stay = new Between(0, this.z);
      const go = new Between(1, this.z);
      const back = new Between(-1, this.z);
      const p = new Float64Array(count + 1);
      const q = new Float64Array(count + 1);
      for (let i = 0; i <= count; i++) {
        const x = i < count ? this.output((first + i) * step) : Infinity;
        const stays = stay.next(x);
        p[i] = (1 - share) * stays + share * go.next(x);
        q[i] = this.kind === "replace" ? (1 - share) * stays + share * back.next(x) : stays;
      }
      return { p, q };
    }

    /** The law of the loss on the multiples of `step` around [low, high], from above. */
    cells(step, low, high) {
      const backwards = this.kind === "add";
      if (backwards) [low, high] = [-high, -low];
      low = Math.max(low, this.least);
      const { first, count } = multiplesAround(low, Math.max(low, high), step);
      const { p, q } = this.masses(first, count, step);
      if (backwards) return placed(-(first + count - 1), q.reverse(), p.reverse(), step);
      return placed(first, p, q, step);
    }
  }

  /** A client of a cohort of fixed size, replace-one: the "remove" pair's law at z/2 above 0, the
      mirrored law below, and the rest of the mass at 0. */
  class Fixed {
    constructor(q, z) {
      this.above = new Subsampled("remove", q, z / 2);
      this.variation = this.above.variation;
    }

    profile(epsilon) {
      return this.above.profile(epsilon);
    }

    nodes(reach) {
      const z = this.above.z;
      const { x, logDensity } = outputs(-reach * z, 1 + reach * z, z, NODES_AT_A_CORNER);
      const loss = [];
      const logWeight = [];
      x.forEach((v, i) => {
        const one = this.above.logUpper(v);
        if (!(one > 0)) return;
        // P's mass at a loss, and at its mirror image, where it is Q's
        loss.push(one, -one);
        logWeight.push(logDensity[i] + one, logDensity[i]);
      });
      const rest = 1 - sum(logWeight.map(Math.exp));
      loss.push(0);
      logWeight.push(Math.log(Math.max(NO_MASS, rest)));
      return { loss: Float64Array.from(loss), logWeight: Float64Array.from(logWeight) };
    }

    cells(step, low, high) {
      const pair = this.above;
      const { count } = multiplesAround(0, Math.max(0, high), step);
      const { p, q } = pair.masses(0, count, step);
      // cells below 0 that are kept; the mass of the others stands at the lowest of them
      const kept = Math.min(count - 1, Math.max(1, Math.ceil(-low / step)));
      const bottom = sum(q.subarray(kept + 1, count)) + q[count];
      const size = kept + count + 1;
      const up = new Float64Array(size);
      const down = new Float64Array(size);
      up[0] = bottom;
      up.set(q.slice(1, kept + 1).reverse(), 1);
      up.set(p.subarray(1), kept + 1);
      down.set(p.slice(1, kept + 1).reverse(), 1);
      down.set(q.subarray(1), kept + 1);
      const cells = placed(-kept, up, down, step);
      // at 0 stands what is neither above nor below it
      const rest = 1 - sum(up.subarray(1, size - 1)) - cells.infinite - bottom;
      cells.mass[kept] += Math.max(0, rest);
      return cells;
    }
  }

  // -------------------------------------------------- the guide (fldp/accounting/guide.py)

  // Share of delta that mass cut from the tails may take; that mass outside the window may move it
  // by; and the share of that for a block of rounds, since there are several levels of them.
  const TRUNCATION = 1e-7;
  const FELT = 1e-5;
  const FELT_BY_BLOCK = 1e-2;
  // The tilts at which moments are looked up, and how many are then, twice, next to the best.
  const TILTS = geometric(1e-7, 1e17, 49);
  const CLOSER = [12, 12];
  // Where a window is looked for, as multiples of the saddle's tilt: densely around the candidates
  // below, and far out on both sides for laws that are far from normal.
  const AROUND = Float64Array.of(
    ...geometric(1e5, 0.1, 19).map((v) => -v),
    ...geometric(1e-4, 0.28, 9),
    ...linear(0.3, 1.7, 36),
    ...geometric(1.8, 1e6, 25)
  );
  // Chernoff's bound from a tilt this near to the window's own says nothing.
  const APART = 1e-3;
  // A smaller tilt may do with a shorter window: the candidates, and by how much the answer's
  // tilted mass may then be smaller, in logarithms (more costs digits).
  const CANDIDATES = [1, 0.8, 0.6, 0.45, 0.3];
  const DROP = 5;
  // A normal law has the same variance under every tilt.
  const TILT_MORE = 1.2;
  const GROWS = 1.5;
  // e to less than this is nothing beside 1.
  const NOTHING = -60;

  /** Moments of the sum S of the losses of `times` rounds, by quadrature: K(t) = log E[e^(tS)].

      They tell which tilt, window and grid step to take. Nothing here is a bound by itself. */
  class Guide {
    constructor(pair, times, logDelta) {
      this.times = times;
      // a normal law has less than delta * TRUNCATION / times beyond this
      const reach = Math.sqrt(2 * (Math.log(times / TRUNCATION) - Math.min(logDelta, 0)));
      Object.assign(this, pair.nodes(reach));
      this.largestLoss = largest(this.loss);
      this.smallestLoss = -largest(this.loss.map((v) => -v));
      this.top = times * this.largestLoss;
      this.exponents = new Float64Array(this.loss.length);
    }

    /** K, the mean and the variance of S under each tilt t. */
    cumulants(t, times = this.times) {
      const { loss, logWeight, exponents } = this;
      const out = { k: [], mean: [], variance: [] };
      for (const tilt of t) {
        let top = -Infinity;
        for (let i = 0; i < loss.length; i++) {
          const e = tilt * loss[i] + logWeight[i];
          exponents[i] = e;
          if (e > top) top = e;
        }
        let total = 0;
        let first = 0;
        let second = 0;
        for (let i = 0; i < loss.length; i++) {
          const e = exponents[i] - top;
          if (e < NOTHING) continue;
          const weight = Math.exp(e);
          const one = weight * loss[i];
          total += weight;
          first += one;
          second += one * loss[i];
        }
        const mean = first / total;
        out.k.push(times * (top + Math.log(total)));
        out.mean.push(times * mean);
        out.variance.push(times * Math.max(second / total - mean * mean, 0));
      }
      return out;
    }

    /** The saddle point at which delta has this value; its epsilon may be negative. */
    atDelta(logDelta) {
      // the first: log delta falls with t until, far out, its digits are lost
      const found = this.saddle((_, logs) => Math.max(0, logs.findIndex((v) => v <= logDelta)));
      // log delta falls with slope -tilt
      const epsilon = found.epsilon + (found.logDelta - logDelta) / found.tilt;
      return { ...found, epsilon, logDelta };
    }

    /** The saddle point at this epsilon. */
    atEpsilon(epsilon) {
      const found = this.saddle((at) => indexOfLeast(at.map((v) => Math.abs(v - epsilon))));
      const logDelta = found.logDelta - found.tilt * (epsilon - found.epsilon);
      return { ...found, epsilon, logDelta };
    }

    /** Delta is an integral along Re t of e^(K(t) - t epsilon) / (t (t + 1)) (Alghamdi et al.
        2022); its exponent, with the poles' logarithms, is stationary at t. That fixes epsilon, and
        the integral of a parabola through that point is delta. */
    saddle(pick) {
      let last = null;
      const tilt = zoomed(
        (t) => {
          const { k, mean, variance } = this.cumulants(t);
          const epsilon = mean.map((v, i) => v - 1 / t[i] - 1 / (t[i] + 1));
          const logs = k.map((v, i) => {
            const curvature = variance[i] + 1 / t[i] ** 2 + 1 / (t[i] + 1) ** 2;
            const poles = Math.log(t[i] * (t[i] + 1));
            return v - t[i] * epsilon[i] - poles - 0.5 * Math.log(2 * Math.PI * curvature);
          });
          const i = pick(epsilon, logs);
          last = { epsilon: epsilon[i], logDelta: logs[i], spread: Math.sqrt(variance[i]) };
          return i;
        },
        TILTS,
        CLOSER
      );
      return { tilt, ...last };
    }

    /** Epsilon from the Rényi divergence of the best order (Canonne et al. 2020). */
    renyiEpsilon(logDelta) {
      const bound = (t) =>
        this.cumulants(t).k.map((k, i) => {
          const order = t[i] * Math.log(t[i]) - (t[i] + 1) * Math.log1p(t[i]);
          return (k - logDelta + order) / t[i];
        });
      return least(bound, TILTS, CLOSER);
    }

    /** Whether the tilted law is so far from normal that the saddle point may mislead. */
    bends(tilt) {
      const [here, there] = this.cumulants([tilt, TILT_MORE * tilt]).variance;
      return there > GROWS * here;
    }

    /** The shortest window from which (epsilon, delta) can be read off. */
    window(tilt, epsilon, logDelta) {
      const tilts = CANDIDATES.map((share) => tilt * share);
      const t = AROUND.map((share) => tilt * share);
      const { k } = this.cumulants(t);
      const kTilt = this.cumulants(tilts).k;
      // the mass above is cut and added to delta; the tilted mass outside wraps round and is felt
      const { top, topTilt } = cutAbove(t, k, logDelta + Math.log(TRUNCATION));
      const height = tilts.map((v, i) => kTilt[i] - v * epsilon);
      const sds = Math.sqrt(2 * (-Math.log(TRUNCATION) - Math.min(logDelta, 0)));
      let best = null;
      tilts.forEach((one, i) => {
        if (!(height[i] <= height[0] + DROP)) return;
        const felt = Math.log(FELT) + logDelta - height[i];
        const { low, high, lowTilt } = endsOf(t, k, one, kTilt[i], felt);
        // nothing is above the largest loss; and what is above `top` is cut, not felt
        const end = Math.max(Math.min(high, this.top), top);
        if (best !== null && !(end - low < best.high - best.low)) return;
        best = { epsilon, logDelta, tilt: one, low, high: end, lowTilt, topTilt, felt, sds };
      });
      return best;
    }

    /** A window for `times` rounds, of which the sum may hold several. */
    block(times, window) {
      // the blocks share what may be cut, and what may be felt
      const share = Math.log(times / this.times);
      const t = AROUND.map((v) => window.tilt * v);
      const { k } = this.cumulants(t, times);
      const kTilt = this.cumulants([window.tilt], times).k[0];
      const { top, topTilt } = cutAbove(t, k, window.logDelta + Math.log(TRUNCATION) + share);
      const felt = window.felt + share + Math.log(FELT_BY_BLOCK);
      let { low, high, lowTilt } = endsOf(t, k, window.tilt, kTilt, felt);
      high = Math.max(Math.min(high, times * this.largestLoss), top);
      // what is below a single round's window is put on its end: all its mass, at worst, or the
      // little that the quadrature leaves out
      if (times === 1) low = Math.max((felt + kTilt) / window.tilt, this.smallestLoss);
      return { ...window, low, high, lowTilt, topTilt, felt };
    }
  }

  /** Losses below, and above, which the tilted mass is at most e^felt, and the tilt for below. */
  function endsOf(t, k, tilt, kTilt, felt) {
    let low = -Infinity;
    let high = Infinity;
    let lowTilt = 0;
    t.forEach((v, i) => {
      if (v < tilt * (1 - APART)) {
        const bound = (felt - k[i] + kTilt) / (tilt - v);
        if (bound > low) {
          low = bound;
          lowTilt = v;
        }
      }
      if (v > tilt * (1 + APART)) high = Math.min(high, (k[i] - kTilt - felt) / (v - tilt));
    });
    return { low, high, lowTilt };
  }

  /** Above which loss there is at most e^logMass, and the tilt that says so (Chernoff). */
  function cutAbove(t, k, logMass) {
    let top = Infinity;
    let topTilt = 0;
    t.forEach((v, i) => {
      if (!(v > 0)) return;
      const bound = (k[i] - logMass) / v;
      if (bound < top) {
        top = bound;
        topTilt = v;
      }
    });
    return { top, topTilt };
  }

  // ------------------------------------------------------------------------- transforms

  const turns = new Map();

  /** e^(-2 pi i j k / n) for j = 1, 2, 3 and k < n/4: cosines, and negative sines. */
  function turnsOf(n) {
    if (!turns.has(n)) {
      const angle = (j) => (k) => (-2 * Math.PI * j * k) / n;
      const table = (j) => ({
        cos: filled(n / 4, (k) => Math.cos(angle(j)(k))),
        sin: filled(n / 4, (k) => Math.sin(angle(j)(k))),
      });
      turns.set(n, [table(1), table(2), table(3)]);
    }
    return turns.get(n);
  }

  /** Discrete Fourier transform of `size` numbers from `start` on, in place; what comes out is in
      bit-reversed order. Two steps of halving at once, and each quarter to its end. */
  function forward(re, im, start, size) {
    if (size === 2) {
      pairUp(re, im, start);
      return;
    }
    if (size === 1) return;
    const quarter = size / 4;
    const [one, two, three] = turnsOf(size);
    for (let k = 0; k < quarter; k++) {
      const a = start + k;
      const b = a + quarter;
      const c = b + quarter;
      const d = c + quarter;
      const sumReal = re[a] + re[c];
      const sumImag = im[a] + im[c];
      const gapReal = re[a] - re[c];
      const gapImag = im[a] - im[c];
      const otherReal = re[b] + re[d];
      const otherImag = im[b] + im[d];
      const turnedReal = im[b] - im[d]; // -i times the other gap
      const turnedImag = re[d] - re[b];
      re[a] = sumReal + otherReal;
      im[a] = sumImag + otherImag;
      let x = sumReal - otherReal;
      let y = sumImag - otherImag;
      re[b] = x * two.cos[k] - y * two.sin[k];
      im[b] = x * two.sin[k] + y * two.cos[k];
      x = gapReal + turnedReal;
      y = gapImag + turnedImag;
      re[c] = x * one.cos[k] - y * one.sin[k];
      im[c] = x * one.sin[k] + y * one.cos[k];
      x = gapReal - turnedReal;
      y = gapImag - turnedImag;
      re[d] = x * three.cos[k] - y * three.sin[k];
      im[d] = x * three.sin[k] + y * three.cos[k];
    }
    if (quarter > 1) {
      for (let part = 0; part < 4; part++) forward(re, im, start + part * quarter, quarter);
    }
  }

  /** Its inverse, from bit-reversed order; without the division by the length. */
  function backward(re, im, start, size) {
    if (size === 2) {
      pairUp(re, im, start);
      return;
    }
    if (size === 1) return;
    const quarter = size / 4;
    if (quarter > 1) {
      for (let part = 0; part < 4; part++) backward(re, im, start + part * quarter, quarter);
    }
    const [one, two, three] = turnsOf(size);
    for (let k = 0; k < quarter; k++) {
      const a = start + k;
      const b = a + quarter;
      const c = b + quarter;
      const d = c + quarter;
      const bReal = re[b] * two.cos[k] + im[b] * two.sin[k];
      const bImag = im[b] * two.cos[k] - re[b] * two.sin[k];
      const cReal = re[c] * one.cos[k] + im[c] * one.sin[k];
      const cImag = im[c] * one.cos[k] - re[c] * one.sin[k];
      const dReal = re[d] * three.cos[k] + im[d] * three.sin[k];
      const dImag = im[d] * three.cos[k] - re[d] * three.sin[k];
      const sumReal = re[a] + bReal;
      const sumImag = im[a] + bImag;
      const otherReal = re[a] - bReal;
      const otherImag = im[a] - bImag;
      const gapReal = cReal + dReal;
      const gapImag = cImag + dImag;
      const turnedReal = dImag - cImag; // -i times d - c
      const turnedImag = cReal - dReal;
      re[a] = sumReal + gapReal;
      im[a] = sumImag + gapImag;
      re[b] = otherReal + turnedReal;
      im[b] = otherImag + turnedImag;
      re[c] = sumReal - gapReal;
      im[c] = sumImag - gapImag;
      re[d] = otherReal - turnedReal;
      im[d] = otherImag - turnedImag;
    }
  }

  function pairUp(re, im, a) {
    const x = re[a];
    const y = im[a];
    re[a] = x + re[a + 1];
    im[a] = y + im[a + 1];
    re[a + 1] = x - re[a + 1];
    im[a + 1] = y - im[a + 1];
  }

  let reversed = { cos: Float64Array.of(1), sin: Float64Array.of(0) };

  /** e^(-i pi r) for at least `size` of r = 0, 1/2, 1/4, 3/4, 1/8, ...: turns in the order of
      reversed bits, which do not depend on the size. */
  function reversedTurns(size) {
    if (reversed.cos.length < size) {
      const share = new Float64Array(size);
      for (let block = 1; block < size; block *= 2) {
        for (let i = 0; i < block; i++) share[block + i] = 1 / (2 * block) + share[i];
      }
      reversed = {
        cos: filled(size, (i) => Math.cos(Math.PI * share[i])),
        sin: filled(size, (i) => -Math.sin(Math.PI * share[i])),
      };
    }
    return reversed;
  }

  /** `act(i, j)` for the places of all frequencies k and -k but 0, in bit-reversed order: there the
      two stand mirrored inside each block from 2^j to 2^(j+1). */
  function eachPair(size, act) {
    for (let block = 1; block < size; block *= 2) {
      const last = 3 * block - 1;
      for (let i = block; 2 * i <= last; i++) act(i, last - i);
    }
  }

  /** The spectrum of `size` real numbers, by a transform of half as many complex ones: of each two
      frequencies k and -k one, and at place 0 the two real ones, 0 as `re` and the middle as `im`.

      `re` and `im` hold the numbers of even and of odd index. */
  function spectrumOf(re, im) {
    const half = re.length;
    forward(re, im, 0, half);
    const { cos, sin } = reversedTurns(half);
    const zero = re[0];
    re[0] = zero + im[0];
    im[0] = zero - im[0];
    eachPair(half, (i, j) => {
      const evenReal = 0.5 * (re[i] + re[j]);
      const evenImag = 0.5 * (im[i] - im[j]);
      const oddReal = 0.5 * (im[i] + im[j]);
      const oddImag = 0.5 * (re[j] - re[i]);
      const x = oddReal * cos[i] - oddImag * sin[i];
      const y = oddReal * sin[i] + oddImag * cos[i];
      re[i] = evenReal + x;
      im[i] = evenImag + y;
      re[j] = evenReal - x;
      im[j] = y - evenImag;
    });
  }

  /** Back from `spectrumOf`, times half the size. */
  function numbersOf(re, im) {
    const half = re.length;
    const { cos, sin } = reversedTurns(half);
    const zero = re[0];
    re[0] = 0.5 * (zero + im[0]);
    im[0] = 0.5 * (zero - im[0]);
    eachPair(half, (i, j) => {
      const evenReal = 0.5 * (re[i] + re[j]);
      const evenImag = 0.5 * (im[i] - im[j]);
      const x = 0.5 * (re[i] - re[j]);
      const y = 0.5 * (im[i] + im[j]);
      const oddReal = x * cos[i] + y * sin[i];
      const oddImag = y * cos[i] - x * sin[i];
      re[i] = evenReal - oddImag;
      im[i] = evenImag + oddReal;
      re[j] = evenReal + oddImag;
      im[j] = oddReal - evenImag;
    });
    backward(re, im, 0, half);
  }

  /** A spectrum to the n-th, by squaring: no complex logarithm loses its branch. */
  function raise(re, im, n) {
    if (n === 1) return;
    re[0] = wholePower(re[0], n);
    im[0] = wholePower(im[0], n);
    for (let i = 1; i < re.length; i++) {
      let a = re[i];
      let b = im[i];
      let x = 1;
      let y = 0;
      let left = n;
      for (;;) {
        if (left % 2) {
          const real = x * a - y * b;
          y = x * b + y * a;
          x = real;
        }
        left = Math.floor(left / 2);
        if (!left) break;
        const real = (a - b) * (a + b);
        b = 2 * a * b;
        a = real;
      }
      re[i] = x;
      im[i] = y;
    }
  }

  function wholePower(base, n) {
    let out = 1;
    for (let left = n; left; left = Math.floor(left / 2)) {
      if (left % 2) out *= base;
      base *= base;
    }
    return out;
  }

  // ---------------------------------------- laws on a grid (fldp/accounting/laws.py)

  // How many cells outside its window's ends a law on a grid is kept, at least.
  const GRID_CELLS = 14;
  // No window has fewer points: a transform of these costs nothing.
  const FEWEST_POINTS = 64;
  // How far between two dots `momentGrowth` looks, as shares of their distance, and by how much it
  // may miss the largest growth.
  const BETWEEN_DOTS = Float64Array.of(...linear(0, 1, 201), ...geometric(1e-6, 0.1, 100));
  const MISSED = 1e-3;

  /** The tilted law of the loss of some rounds, on the multiples of `step`.

      `mass[i]` is the tilted mass at loss (first + i) step, and `logMgf` what scaling to sum 1 has
      divided by; `excess` the variance that the grid has put in; `infinite` the mass, not tilted,
      whose loss counts as infinite; `start` one round on the first grid; `noise` a point's
      round-off; `lost` tilted mass that was low and is not represented; `stages` how it came. */
  class Law {
    constructor(fields) {
      Object.assign(this, fields);
    }

    get last() {
      return this.first + this.mass.length - 1;
    }

    /** log E[e^(tL)], or more: from the masses of the first grid, whose tails hold no noise. */
    logMoment(t) {
      const { logMass, lossAt } = this.start;
      let total = logSum(logMass.length, (i) => logMass[i] + t * lossAt(i));
      for (const [times, step] of this.stages) {
        total = times * total + (step ? momentGrowth(t, step) : 0);
      }
      return total;
    }

    /** The law of `times` such losses, on the window as the grid has it. */
    composed(times, window) {
      const excess = times * this.excess;
      const { size, first } = fitted(this.step, window, excess, times * this.rounds);
      const { mass, noise } = summed([[this, times]], size, first);
      let infinite = times * this.infinite;
      let lost = times * this.lost;
      // What passed an end of the window came in again at the other one. Above, its true mass
      // counts as infinite loss. Below, tilted mass now stands at a high loss, where taking the
      // tilt off leaves less of it: it may count for too little later, so it is kept account of.
      const last = first + size - 1;
      const steep = steepest(window, this.step, excess);
      if (last < times * this.last) {
        const t = Math.min(window.topTilt, steep);
        const logShare = times * this.logMoment(t) - t * this.step * last;
        infinite += Math.exp(Math.min(0, logShare));
      }
      if (first > times * this.first) {
        const t = Math.max(window.lowTilt, this.tilt - steep);
        const logShare = times * (this.logMoment(t) - this.logMgf);
        lost += Math.exp(Math.min(0, logShare + (this.tilt - t) * this.step * first));
      }
      return new Law({
        ...this,
        first,
        mass,
        noise,
        logMgf: times * this.logMgf,
        excess,
        infinite,
        rounds: times * this.rounds,
        lost,
        stages: [...this.stages, [times, 0]],
      });
    }

    /** The same law moved to multiples of `factor` steps, by connecting the dots. */
    coarser(factor) {
      if (factor === 1) return this;
      const step = factor * this.step;
      const first = Math.floor(this.first / factor);
      const rows = Math.floor(this.last / factor) - first + 1;
      // masses move under the law itself; the tilt of where they come from is taken off, that of
      // where they go is put on
      const stays = new Float64Array(factor);
      const goes = new Float64Array(factor);
      const moved = new Float64Array(factor);
      let square = 0;
      for (let j = 0; j < factor; j++) {
        const ahead = this.step * j; // of the lower of the two new points
        const up = Math.expm1(-ahead) / Math.expm1(-step);
        stays[j] = (1 - up) * Math.exp(-this.tilt * ahead);
        goes[j] = up * Math.exp(this.tilt * (step - ahead));
        moved[j] = stays[j] * up;
        square += stays[j] ** 2 + goes[j] ** 2;
      }
      const mass = new Float64Array(rows + 1);
      let spread = 0;
      let row = 0;
      let j = this.first - first * factor;
      for (let i = 0; i < this.mass.length; i++) {
        mass[row] += this.mass[i] * stays[j];
        mass[row + 1] += this.mass[i] * goes[j];
        spread += this.mass[i] * moved[j];
        j += 1;
        if (j === factor) {
          j = 0;
          row += 1;
        }
      }
      const total = sum(mass);
      return new Law({
        ...this,
        step,
        first,
        mass: filled(mass.length, (i) => mass[i] / total),
        logMgf: this.logMgf + Math.log(total),
        // round-off may make it negative
        excess: this.excess + Math.max(0, (spread * step * step) / total),
        noise: (this.noise * Math.sqrt(square)) / total,
        stages: [...this.stages, [1, step]],
      });
    }
  }

  /** The law of one round on a grid, never with a smaller delta than the round has. */
  function lawOfRound(pair, step, window) {
    const cells = pair.cells(step, window.low, window.high);
    const n = cells.mass.length;
    const lossAt = (i) => step * (cells.first + i);
    const logMass = filled(n, (i) => Math.log(cells.mass[i]));
    if (!(largest(logMass) > -Infinity)) throw tooFine(Infinity); // all is beyond the window
    const tilted = (i) => logMass[i] + window.tilt * lossAt(i);
    const logMgf = logSum(n, tilted);
    const mass = filled(n, (i) => Math.exp(tilted(i) - logMgf));
    let excess = 0;
    for (let i = 0; i < n; i++) {
      if (cells.mass[i] > 0) excess += (mass[i] * cells.spread[i]) / cells.mass[i];
    }
    return new Law({
      step,
      tilt: window.tilt,
      first: cells.first,
      mass,
      logMgf,
      excess,
      infinite: cells.infinite,
      start: { logMass, lossAt },
      rounds: 1,
      noise: 0,
      lost: 0,
      stages: [],
    });
  }

  /** A window on the grid, widened by what the grid adds to the spread: points, and first index. */
  function fitted(step, window, excess, rounds) {
    // a round moves by one cell at most, to either side
    const margin = Math.min(cellsAside(window, step, excess), rounds + 2);
    const points = Math.max(FEWEST_POINTS, (window.high - window.low) / step + 2 * margin + 2);
    if (!(points <= MAX_POINTS)) throw tooFine(points);
    const size = 2 ** Math.ceil(Math.log2(points));
    return { size, first: Math.floor(window.low / step - margin) };
  }

  /** How many cells the grid may move a sum by, but for a share of delta. */
  function cellsAside(window, step, excess) {
    return (window.sds * Math.sqrt(excess)) / step + GRID_CELLS;
  }

  /** The tilt that bounds best how often the grid moves a sum by more than `cellsAside` (Poisson). */
  function steepest(window, step, excess) {
    const moves = excess / step ** 2;
    return moves > 0 ? Math.log1p(cellsAside(window, step, excess) / moves) / step : Infinity;
  }

  /** Tilted masses of the sum of all losses, on a circle, and the round-off of each. */
  function summed(laws, size, first) {
    const half = size / 2;
    let spectrum = null;
    for (const [law, n] of laws) {
      const parts = [new Float64Array(half), new Float64Array(half)];
      let place = remainder(law.first, size);
      for (let i = 0; i < law.mass.length; i++) {
        parts[place & 1][place >> 1] += law.mass[i];
        place = place + 1 < size ? place + 1 : 0;
      }
      spectrumOf(...parts);
      raise(...parts, n);
      if (spectrum === null) spectrum = parts;
      else multiply(...spectrum, ...parts);
    }
    numbersOf(...spectrum);
    const mass = new Float64Array(size);
    let place = remainder(first, size);
    for (let i = 0; i < size; i++) {
      mass[i] = spectrum[place & 1][place >> 1] / half;
      place = place + 1 < size ? place + 1 : 0;
    }
    const inherited = laws.map(([law, n]) => n * law.noise);
    return { mass, noise: roundOff(laws, mass) + sum(inherited) };
  }

  /** One spectrum times another, into the first. */
  function multiply(re, im, otherRe, otherIm) {
    re[0] *= otherRe[0];
    im[0] *= otherIm[0];
    for (let i = 1; i < re.length; i++) {
      const real = re[i] * otherRe[i] - im[i] * otherIm[i];
      im[i] = re[i] * otherIm[i] + im[i] * otherRe[i];
      re[i] = real;
    }
  }

  function remainder(index, size) {
    return ((index % size) + size) % size;
  }

  /** Standard deviation, per point, of the round-off of one composition.

      A transform's relative error is near unit * sqrt(log2 size) in the mean square, a power
      repeats it n times; over the frequencies these errors are taken as independent. */
  function roundOff(laws, mass) {
    const rootLog = Math.sqrt(Math.log2(mass.length));
    const norm = (x) => Math.sqrt(sumOfSquares(x));
    const there = sum(laws.map(([law, n]) => n * (1 + rootLog * norm(law.mass))));
    return ((UNIT / 2) * (there + rootLog * norm(mass))) / Math.sqrt(mass.length);
  }

  function sumOfSquares(x) {
    let total = 0;
    for (let i = 0; i < x.length; i++) total += x[i] * x[i];
    return total;
  }

  /** By how much, at most, connecting dots a `step` apart raises log E[e^(tL)]. */
  function momentGrowth(t, step) {
    let growth = 0;
    for (const share of BETWEEN_DOTS) {
      const ahead = step * share;
      const up = Math.min(Math.expm1(-ahead) / Math.expm1(-step), 1);
      const stays = Math.log1p(-up) - t * ahead;
      growth = Math.max(growth, logAddExp(stays, Math.log(up) + t * (step - ahead)));
    }
    // between two of these places it may be a little higher still
    return growth * (1 + MISSED);
  }

  // ------------------------------------------- one composition (fldp/accounting/curve.py)

  // Stages are thought of for windows with more points than this.
  const STAGE_FROM = 1 << 15;
  // What the masses of one round cost per point, in transforms of a window.
  const ROUND_COST = 3;
  // More stages never take fewer points, and fewer rounds are not worth a stage.
  const MOST_STAGES = 6;
  const STAGED_ROUNDS = 16;
  // tilt * step on a grid that is reached in stages; more would magnify round-off.
  const TILTED_STEP = 5;
  // Moving mass between dots a step h apart adds a variance of h^2/6 on average.
  const EXCESS_OF_STEP = 6;
  // The looseness of a built grid may be this multiple of the one aimed at; below the other
  // multiple a long grid is made coarser.
  const LOOSE = 1.6;
  const TIGHT = 0.25;
  const LONG = 1 << 13;
  // By how much a step changes at a time, and from which share of the largest step a coarser one is
  // not worth it.
  const LEAST_FINER = 1.1;
  const MOST_FINER = 8;
  const MOST_COARSER = 4;
  const LEAST_RATIO = 1e-3;
  const NEARLY_LARGEST = 0.9;
  const TRIES = 40;
  // How many standard deviations of round-off are added; 8 are exceeded with chance 1e-15.
  const ROUND_OFF_SDS = 8;
  // What may be round-off, as a share of delta, before it is bounded more sharply.
  const ROUND_OFF_SEEN = 1e-7;
  // Rounding that adds up over the rounds, each: of a power, and of the mean loss.
  const POWER_ERROR = 4e-15;
  const MEAN_ERROR = 1e-15;
  // Where a weight exceeds e^150 the loss is far below the answer.
  const KEPT = 150;
  // Ends of a window closer than this, relatively, are the same.
  const SAME_END = 1e-12;

  /** How the grid grows coarser: by `factor` at each of `changes`.

      After each composition of factor^2 rounds the grid's step grows by `factor`: the variance that
      a level adds is then the same at each (Ghazi et al. 2022, "evolving discretization"). */
  function stagesOf(n, levels) {
    const factor = n >= STAGED_ROUNDS ? Math.round(n ** (1 / (2 * levels))) : 1;
    const changes = factor > 1 ? levels - 1 : 0;
    const level = n / (changes ? factor : 1) ** (2 * changes);
    // excess of the sum in units of (last step)^2 / 6
    return {
      factor: changes ? factor : 1,
      changes,
      later: changes * level,
      weight: (changes + 1) * level,
    };
  }

  /** The number of stages that takes fewest points, and the last grid's step. */
  function cheapest(n, guide, window, allowed, largestStep) {
    const width = window.high - window.low;
    let best = null;
    for (let levels = 1; levels <= MOST_STAGES; levels++) {
      const stages = stagesOf(n, levels);
      let step = Math.min(largestStep, Math.sqrt((EXCESS_OF_STEP * allowed) / stages.weight));
      if (levels > 1) step = Math.min(step, TILTED_STEP / window.tilt);
      else if (n < STAGED_ROUNDS || width / step <= STAGE_FROM) return { stages, step };
      // one round on the finest grid, and blocks that are at least as wide
      const span = guide.largestLoss - guide.smallestLoss;
      const finest = (span * stages.factor ** stages.changes) / step;
      const points = width / step + (ROUND_COST + stages.changes) * finest;
      if (best === null || points < best.points) best = { points, stages, step };
    }
    return best;
  }

  /** Laws on a common grid, each with how often it is composed, with about the `allowed` variance
      too much. */
  function lawsFor(pair, guide, window, allowed, largestStep) {
    const n = guide.times;
    let { stages, step } = cheapest(n, guide, window, allowed, largestStep);
    const ofOne = guide.block(1, window);
    let law = null;
    // how much a grid adds is known only once it is there: the step is mended until it fits
    for (let turn = 0; turn < TRIES; turn++) {
      law = lawOfRound(pair, step / stages.factor ** stages.changes, ofOne);
      const later = (stages.later * step * step) / EXCESS_OF_STEP;
      const ratio = (n * law.excess + later) / allowed;
      const points = Math.max((window.high - window.low) / step, law.mass.length);
      if (ratio > LOOSE) {
        step /= Math.min(MOST_FINER, Math.max(LEAST_FINER, ratio / LOOSE));
      } else if (ratio < TIGHT && points > LONG && step < NEARLY_LARGEST * largestStep) {
        const coarser = Math.sqrt(1 / Math.max(ratio, LEAST_RATIO));
        step = Math.min(largestStep, step * Math.min(MOST_COARSER, coarser));
      } else break;
    }
    return staged(law, n, stages, guide, window);
  }

  /** `n` rounds as few laws on the last grid. */
  function staged(law, n, stages, guide, window) {
    const composed = (times) =>
      times === 1 ? law : law.composed(times, guide.block(law.rounds * times, window));
    const out = [];
    const { factor } = stages;
    for (let change = stages.changes; change > 0; change--) {
      const left = n % (factor * factor);
      n = Math.floor(n / (factor * factor));
      if (left) out.push([composed(left).coarser(factor ** change), 1]);
      law = composed(factor * factor).coarser(factor);
    }
    return [...out, [law, n]];
  }

  /** Delta as a function of epsilon around the window's, from laws on one grid.

      With m the mass at loss l, delta(e) is the sum of m (1 - e^(e - l)) over the losses above e,
      and what is added to be above the truth: round-off, and mass that is not on the grid. All of
      it is held relative to e^logDelta, so that no size of delta underflows. */
  class Curve {
    constructor(laws, window) {
      this.window = window;
      this.centre = window.epsilon;
      this.logDelta = window.logDelta;
      this.step = laws[0][0].step;
      this.excess = sum(laws.map(([law, n]) => n * law.excess));
      const inAll = sum(laws.map(([law, n]) => n * law.rounds));
      const { size, first } = fitted(this.step, window, this.excess, inAll);
      const { mass, noise } = summed(laws, size, first);
      // a loss below 0 matters to no delta
      this.from = Math.min(first + Math.max(0, -first), first + size - 1);
      this.length = first + size - this.from;
      const logMgf = sum(laws.map(([law, n]) => n * law.logMgf));
      // rounding that all masses share raises both sums
      const raised = 1 + (POWER_ERROR + MEAN_ERROR * (window.tilt + 1)) * inAll;
      this.add(mass.subarray(this.from - first), logMgf, raised);
      this.noise = ROUND_OFF_SDS * noise;
      this.spread = this.isFelt() ? this.spreads() : null;
      this.cutMass = this.cut(laws, this.step * (first + size - 1));
      // tilted mass that was low when rounds were put together: all of it right at the loss
      this.lost = sum(laws.map(([law, n]) => n * law.lost));
    }

    loss(i) {
      return (this.from + i) * this.step;
    }

    /** The first index whose loss is at least this. */
    indexOf(loss) {
      const i = Math.ceil(loss / this.step) - this.from;
      return Math.min(Math.max(0, i), this.length - 1);
    }

    /** The sums of m and of m e^(centre - l) over the losses from each one upwards.

        `weight` takes the tilt off a mass, relative to e^logDelta, and `behind` is e^(centre - l). */
    add(mass, logMgf, raised) {
      const scale = logMgf - this.logDelta;
      // below this loss one of the two would be too large
      const far = Math.max((scale - KEPT) / this.window.tilt, this.centre - KEPT);
      this.kept = this.indexOf(far);
      this.weight = new Float64Array(this.length);
      this.behind = new Float64Array(this.length);
      this.up = new Float64Array(this.length);
      this.down = new Float64Array(this.length);
      let up = 0;
      let down = 0;
      for (let i = this.length - 1; i >= 0; i--) {
        const loss = this.kept ? Math.max(this.loss(i), far) : this.loss(i);
        this.behind[i] = Math.exp(this.centre - loss);
        this.weight[i] = Math.exp(scale - this.window.tilt * loss);
        const one = mass[i] * this.weight[i] * raised;
        up += one;
        down += one * this.behind[i];
        this.up[i] = up;
        this.down[i] = down;
      }
    }

    /** e^(loss - centre). */
    ahead(i) {
      return 1 / Math.max(this.behind[i], Math.exp(-LARGEST_EXP));
    }

    /** Whether what round-off may do to delta shows beside it. */
    isFelt() {
      const i = this.indexOf(this.centre);
      return this.allowance(i) > ROUND_OFF_SEEN * (this.up[i] - this.down[i]);
    }

    /** What round-off of `noise` a point may do to delta at each loss. */
    allowance(i) {
      if (this.spread) return this.noise * this.spread[i];
      // the weights fall geometrically, and so do their squares
      const tail = -Math.expm1(-2 * this.window.tilt * this.step);
      return (this.noise / Math.sqrt(tail)) * this.weight[i];
    }

    /** The root of the sum of (w (1 - e^(e - l)))^2 over the losses l above each e: a sharper bound
        on what round-off does to delta than the sum of w^2 alone. */
    spreads() {
      const out = new Float64Array(this.length);
      let plain = 0;
      let crossed = 0;
      let twice = 0;
      for (let i = this.length - 1; i >= 0; i--) {
        const behind = this.behind[i];
        const square = this.weight[i] * this.weight[i];
        plain += square;
        crossed += square * behind;
        twice += square * behind * behind;
        if (i < this.kept) {
          out[i] = Math.sqrt(plain);
          continue;
        }
        const more = Math.exp(Math.min(2 * (this.loss(i) - this.centre), LARGEST_EXP));
        const left = plain - 2 * crossed * this.ahead(i) + twice * more;
        out[i] = Math.sqrt(Math.max(left, 0) + UNIT * plain);
      }
      return out;
    }

    /** What is added to delta at a loss, to be above the truth. */
    added(i) {
      return this.allowance(i) + this.cutMass + this.lost * this.weight[i];
    }

    /** Mass of infinite loss, and a bound on mass above the window (Chernoff). */
    cut(laws, top) {
      const infinite = sum(laws.map(([law, n]) => n * law.infinite));
      let cut = infinite ? infinite * Math.exp(-this.logDelta) : 0;
      const highest = this.step * sum(laws.map(([law, n]) => n * law.last));
      if (highest > top * (1 + SAME_END)) {
        const t = Math.min(this.window.topTilt, steepest(this.window, this.step, this.excess));
        const above = sum(laws.map(([law, n]) => n * law.logMoment(t))) - t * top;
        cut += Math.exp(Math.min(0, above) - this.logDelta);
      }
      return cut;
    }

    /** Epsilon at which delta is e^logDelta; null if the window has missed it. */
    epsilon() {
      const fits = (i) => {
        const taken = i < this.kept ? 0 : this.ahead(i) * this.down[i];
        return this.up[i] - taken + this.added(i) <= 1;
      };
      let i = 0;
      while (i < this.length && !fits(i)) i++;
      if (i === this.length || (i === 0 && this.loss(0) > this.step)) return null;
      if (i === 0) return 0;
      // between two losses the sums are those of the upper one, what is added that of the lower
      const left = this.up[i] + this.added(i - 1) - 1;
      if (i <= this.kept || left <= 0 || this.down[i] <= 0) return this.loss(i);
      const found = this.centre + Math.log(left / this.down[i]);
      return Math.min(this.loss(i), Math.max(this.loss(i - 1), found));
    }
  }

  // --------------------------------------------------- the search (fldp/accounting/pld.py)

  // Aimed looseness of the grid, relative in epsilon.
  const ACCURACY = 2.5e-4;
  // Below this share of the loss's spread the looseness is relative to the spread; and none below
  // the other is aimed at.
  const NEAR_ZERO = 1e-2;
  const LEAST_LOOSENESS = 1e-9;
  // A last grid has at least so many points per spread of the sum.
  const FEWEST_PER_SPREAD = 4;
  // So many of the largest steps, and this share of epsilon, lie between the answer and either end
  // of a window.
  const STEPS_ASIDE = 8;
  const BELOW = 0.98;
  // Where that is too fine for the grid it is made coarser by this factor, as often as allowed.
  const COARSER = 4;
  const COARSEST = 1e5;
  // The first look at a law that is far from normal is so much coarser.
  const COARSE = 64;
  // How much larger than two grids show a looseness may be; and by what factor their excess
  // variances must differ for them to tell something.
  const UNSURE = 1.5;
  const DIFFERENT = 1.2;
  // The next grid is made for this share of the looseness that is aimed at, and is finer by this
  // factor at least.
  const ON_TARGET = 0.7;
  const FINER = 0.25;
  // A guess was right if the answer differs by less than this.
  const AGREES = 0.15;

  /** Ever finer grids, until two of them show that the finer one is fine enough. */
  class Refined {
    constructor() {
      this.best = Infinity;
      this.last = Infinity;
      this.excess = Infinity;
      this.dial = Infinity;
    }

    /** What to turn the dial down by; 1 if the best so far is loose by `target` at most. */
    finerBy(found, excess, target, dial) {
      const finer = Math.min(excess, this.excess);
      const coarser = Math.max(excess, this.excess);
      let error = Infinity;
      if (DIFFERENT * finer < coarser && coarser < Infinity) {
        // looseness is as the excess: with two of each, that of the finer one is known
        error = (UNSURE * Math.abs(this.last - found) * finer) / (coarser - finer);
      }
      this.best = Math.min(this.best, found);
      this.last = found;
      this.excess = excess;
      this.dial = dial;
      if (error <= target) return 1;
      return Math.min(FINER, Math.max(1 / COARSE, (ON_TARGET * target) / error));
    }
  }

  /** Curves around a guess, until one agrees with the guess that it was made for.

      All that is read is an upper bound, so the least of it is one. Where the law is normal under
      the tilt one grid of the right step is enough. Where it is not, a coarse grid comes first, and
      finer ones until two of them show that the last is fine enough. */
  class Search {
    constructor(pair, times, delta, accuracy) {
      this.pair = pair;
      this.logDelta = Math.log(delta);
      this.accuracy = accuracy;
      this.guide = new Guide(pair, times, this.logDelta);
      this.saddle = this.guide.atDelta(this.logDelta);
      this.guess = Math.max(this.saddle.epsilon, 0);
      this.normal = !this.guide.bends(this.saddle.tilt);
      // far from a normal law the saddle point misleads: look coarsely first
      this.dial = this.normal ? 1 : COARSE;
      this.refined = new Refined();
      // what a window that missed the answer is widened by, at both ends
      this.extra = 0;
    }

    /** What a looseness is relative to: epsilon, or a share of the spread next to 0. */
    near() {
      return Math.max(this.guess, NEAR_ZERO * this.saddle.spread, LEAST_LOOSENESS);
    }

    run() {
      for (let turn = 0; turn < TRIES; turn++) {
        if (this.turn()) return this.refined.best;
      }
      throw new OutOfReach("There is no answer in numerical range: use more noise or fewer rounds.");
    }

    /** One grid, and what follows from it; true if that is the answer. */
    turn() {
      let curve;
      try {
        curve = this.curve();
      } catch (error) {
        if (!(error instanceof OutOfReach)) throw error;
        return this.giveWay(error);
      }
      const found = curve.epsilon();
      if (found === null) {
        this.extra += curve.window.high - curve.window.low;
        return false;
      }
      if (found <= 0) {
        this.refined.best = found; // an upper bound, however coarse
        return true;
      }
      if (Math.abs(found - this.guess) > AGREES * Math.max(found, this.near())) {
        this.normal = false;
        this.refined.finerBy(found, curve.excess, 0, this.dial);
        this.saddle = this.guide.atEpsilon(found);
        this.guess = found;
        return false;
      }
      if (this.normal) {
        this.refined.best = Math.min(found, this.refined.best);
        return true;
      }
      const target = 2 * this.accuracy * Math.max(found, this.near());
      const factor = this.refined.finerBy(found, curve.excess, target, this.dial);
      this.guess = found;
      this.dial *= factor;
      return factor === 1;
    }

    /** The curve around the guess.

        Why a tilt: without it, the answer is the sum of masses as small as delta, beside which the
        round-off of the bulk is large. Under the saddle point's tilt they are the bulk. */
    curve() {
      const aim = this.dial * this.accuracy * this.near();
      const largestStep = Math.max(this.saddle.spread / FEWEST_PER_SPREAD, aim);
      const window = this.guide.window(this.saddle.tilt, this.guess, this.logDelta);
      const aside = STEPS_ASIDE * largestStep;
      window.low = Math.min(window.low, BELOW * this.guess - aside) - this.extra;
      window.high = Math.max(window.high, this.guess + aside) + this.extra;
      // a variance v too much moves epsilon by v (tilt + 1) / 2
      const allowed = (2 * aim) / (this.saddle.tilt + 1);
      return new Curve(lawsFor(this.pair, this.guide, window, allowed, largestStep), window);
    }

    /** A coarser grid where this one has too many points: a looser upper bound. */
    giveWay(error) {
      this.dial *= COARSER;
      this.normal = true; // the next one is as fine as can be
      if (this.dial >= this.refined.dial) return true; // that one has been tried
      if (this.dial > COARSEST) throw error;
      return false;
    }
  }

  /** Upper bound, in one direction, on epsilon at `delta` of `times` rounds of a pair. */
  function solve(pair, times, delta, accuracy = ACCURACY) {
    if (times === 1) return alone(pair, delta);
    // total variations add up at most, and at epsilon = 0 delta is the total variation
    if (delta >= times * pair.variation) return 0;
    return new Search(pair, times, delta, accuracy).run();
  }

  /** One round has a closed form. */
  function alone(pair, delta) {
    const profile = (e) => Math.min(1, Math.max(LEAST_DELTA, pair.profile(e)));
    const found = fallingRoot((e) => Math.log(profile(e) / delta), 0, 1);
    if (found === Infinity) throw new OutOfReach("ε is above 1e15: use more noise.");
    return found;
  }

  /** Epsilon from moments (Rényi): above `solve` by 5 to 20 %, in a tenth of its time. */
  function ceiling(pair, times, delta) {
    const left = Math.log(delta * (1 - TRUNCATION));
    return Math.max(0, new Guide(pair, times, left).renyiEpsilon(left));
  }

  // ------------------------------------------------ the account (fldp/accounting/account.py)

  // Room for the quadrature behind a bound by moments.
  const MARGIN = 1e-3;
  // Below this noise a participation shows. Against who knows of it epsilon is hardly larger.
  const VISIBLE = 1e-3;
  // Beyond these there is no answer, and squares of z leave double precision.
  const NOISE_RANGE = [1e-9, 1e12];

  /** Sensitivity divided by noise, of so many rounds in which everybody takes part. */
  function muOf(event, adjacency, rounds) {
    return ((adjacency === "replace-one" ? 2 : 1) * Math.sqrt(rounds)) / event.z;
  }

  function pairOf(event, adjacency, direction) {
    if (event.sampling === "fixed") return new Fixed(event.rate, event.z);
    return new Subsampled(adjacency === "replace-one" ? "replace" : direction, event.rate, event.z);
  }

  /** Whether so little noise hides nobody's participation: then nothing is lost by saying so. */
  function isVisible(event, adjacency) {
    if (event.z >= VISIBLE) return false;
    return event.sampling === "fixed" || adjacency !== "replace-one";
  }

  function againstWhoKnows(event, delta, adjacency) {
    return knownEpsilon(muOf(event, adjacency, 1), event.rate, event.rounds, delta);
  }

  /** Epsilon of an event at `delta`: an upper bound.

      An event has z, the sampling rate q = m/N, "poisson", "fixed" or "none", rounds T, and whether
      the adversary knows who took part. Adjacency as a plan has it; "fixed" is accounted under
      "replace-one" unless who took part is known. */
  function epsilonOf(event, delta, adjacency) {
    if (event.rate === 1) return gaussianEpsilon(muOf(event, adjacency, event.rounds), delta);
    if (event.known || isVisible(event, adjacency)) return againstWhoKnows(event, delta, adjacency);
    const oneSided = event.sampling === "poisson" && adjacency !== "replace-one";
    const directions = oneSided ? ["remove", "add"] : ["remove"];
    const [remove, add] = directions.map((direction) => pairOf(event, adjacency, direction));
    try {
      const found = solve(remove, event.rounds, delta);
      // the bound by moments takes a hundredth of the time; the margin is for its quadrature
      if (!oneSided || ceiling(add, event.rounds, delta) < (1 - MARGIN) * found) return found;
      return Math.max(found, solve(add, event.rounds, delta));
    } catch (error) {
      if (!(error instanceof OutOfReach)) throw error;
      // a looser bound for what the grid cannot hold: by moments, or by known participation
      const pairs = oneSided ? [remove, add] : [remove];
      const moments = Math.max(...pairs.map((pair) => ceiling(pair, event.rounds, delta)));
      const simpler = Math.min(moments * (1 + MARGIN), againstWhoKnows(event, delta, adjacency));
      if (Number.isFinite(simpler)) return simpler;
      throw error;
    }
  }

  // -------------------------------------------- the noise (fldp/accounting/calibration.py)

  // The largest epsilon that is worth a search; beyond, the answer is "no privacy" anyway.
  const MOST_EPSILON = 1e7;
  // The final answer lies between this share below the budget and the budget.
  const TOLERANCE = 8e-4;
  // How close the saddle point and the coarse grid are followed, how coarse that grid is, and what
  // it adds in the ordinary case, in units of its accuracy.
  const CLOSE = 1e-2;
  const ROUGH = 16;
  const ADDS = 12.5;
  // The step in log z for a slope; the slope of log epsilon from which epsilon is next to zero; and
  // the flattest one that is believed.
  const SHIFT = 0.02;
  const STEEP = 5;
  const FLAT = -0.05;
  // What the closed form is raised by, for the rounding of its inverse.
  const ROUNDING = 1e-10;
  // A log delta nearer to 0 than this is not told apart from 0.
  const NO_DELTA = -1e-3;
  // log z below which many small rounds are not near to a Gaussian: a few large losses decide.
  const LEAST_FIRST = -0.4;
  // A guide made for one delta serves for others down to e^-3 of it.
  const SLACK = 3;

  /** The least noise multiplier, to a permille of epsilon, that meets (`target`, `delta`).

      Each search goes by what is cheap first: the closed form of a Gaussian, then the saddle point,
      then a coarse grid, and at last a few full answers, of which the final one meets the budget. */
  function noiseFor(target, delta, event, adjacency) {
    if (target > MOST_EPSILON) throw new Refused(`ε is ${target}: ask for at most ${MOST_EPSILON}.`);
    if (event.rate === 1) {
      const unit = muOf({ z: 1 }, adjacency, event.rounds);
      return (unit / gaussianMu(target, delta)) * (1 + ROUNDING);
    }
    const at = (x) => ({ ...event, z: Math.exp(x) });
    const full = (x) => epsilonOf(at(x), delta, adjacency);
    const start = startOf(target, delta, event, adjacency, at);
    return Math.exp(settle(full, target, start, TOLERANCE, true).x);
  }

  /** Next to the answer: by the Gaussian in the limit, the saddle point, and a coarse grid. */
  function startOf(target, delta, event, adjacency, at) {
    const start = { x: firstGuess(target, delta, event, adjacency), slope: -1.5, steep: false };
    if (event.known) return start;
    const saddleAt = (x) => {
      const pair = pairOf(at(x), adjacency, "remove");
      return new Guide(pair, event.rounds, Math.log(delta) - SLACK).atEpsilon(target);
    };
    // log delta is near to a power of z, whether epsilon is large or next to zero
    const score = (x) => Math.log(delta) / Math.min(saddleAt(x).logDelta, NO_DELTA);
    const { x } = settle(score, 1, start, CLOSE);
    const here = saddleAt(x);
    const slope = (Math.log(delta) / score(x + SHIFT) - here.logDelta) / SHIFT;
    const straight = Math.min(-1e-300, slope / here.tilt);
    const steep = -straight > STEEP * target;
    const local = { x, slope: steep ? straight / target : Math.min(FLAT, straight / target), steep };
    if (event.rounds === 1) return local;
    const rough = (y) =>
      solve(pairOf(at(y), adjacency, "remove"), event.rounds, delta, ROUGH * ACCURACY);
    // what the coarse grid adds is known: aim above by as much
    return settle(rough, target * (1 + ADDS * ACCURACY), local, CLOSE);
  }

  /** log z of the Gaussian that many small rounds come near to. */
  function firstGuess(target, delta, event, adjacency) {
    const rate = event.known ? Math.sqrt(event.rate) : event.rate;
    const first = Math.log((muOf({ z: 1 }, adjacency, event.rounds) * rate) / gaussianMu(target, delta));
    return event.known ? first : Math.max(first, LEAST_FIRST);
  }

  return {
    epsilonOf,
    noiseFor,
    gaussianEpsilon,
    knownEpsilon,
    binomialTail,
    summed,
    OutOfReach,
    Refused,
    LEAST_DELTA,
    MOST,
    NOISE_RANGE,
  };
}

if (typeof module !== "undefined") module.exports = makeFldpAccountant;
