"""Answers to *Calibrate and account* that were tried."""

from course import right, wrong


@wrong("one_delta")
def one_delta__classical(z, epsilon):
    """The classical tail bound, solved for δ."""
    return 1.25 * math.exp(-((epsilon * z) ** 2) / 2)


@wrong("one_delta")
def one_delta__one_tail(z, epsilon):
    """The chance that the loss is above ε: the second tail is missing."""
    mu = 1 / z
    return float(ndtr(mu / 2 - epsilon / mu))


@wrong("one_delta")
def one_delta__overflow(z, epsilon):
    """Right, as long as e^ε is a float."""
    mu = 1 / z
    second = math.exp(epsilon) * ndtr(-mu / 2 - epsilon / mu)
    return float(ndtr(mu / 2 - epsilon / mu) - second)


@wrong("one_delta")
def one_delta__other_way(z, epsilon):
    """z taken for the shift."""
    first = ndtr(z / 2 - epsilon / z)
    return float(first - math.exp(min(epsilon, 700)) * ndtr(-z / 2 - epsilon / z))


@right("one_delta")
def one_delta__package(z, epsilon):
    """The package's own, with the shift."""
    return fldp.accounting.gaussian_delta(1 / z, epsilon)


@wrong("full_epsilon")
def full_epsilon__added(z, rounds, delta):
    """ε's added up."""
    return rounds * brentq(lambda e: one_delta(z, e) - delta / rounds, 0, 1e5)


@wrong("full_epsilon")
def full_epsilon__linear(z, rounds, delta):
    """Shifts added up, not their squares."""
    return fldp.accounting.gaussian_epsilon(rounds / z, delta)


@wrong("full_epsilon")
def full_epsilon__zcdp(z, rounds, delta):
    """By zCDP: above the truth by a fifth."""
    rho = rounds / (2 * z * z)
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


@wrong("full_epsilon")
def full_epsilon__lower_end(z, rounds, delta):
    """The lower end of a coarse search."""
    alone, low, high = z / math.sqrt(rounds), 0.0, 1e5
    while high - low > 1e-3:
        middle = (low + high) / 2
        if one_delta(alone, middle) > delta:
            low = middle
        else:
            high = middle
    return low


@right("full_epsilon")
def full_epsilon__brentq(z, rounds, delta):
    """With scipy's search, and a step up."""
    alone = z / math.sqrt(rounds)
    if one_delta(alone, 0) < delta:
        return 0
    top = 1 / alone**2 + 40 / alone
    return brentq(lambda e: one_delta(alone, e) - delta, 0, top, xtol=1e-9) + 1e-8


@wrong("epsilon_of")
def epsilon_of__added(rounds, delta):
    """The largest losses added up: true, and far too much."""
    total = 0.0
    for kind in rounds:
        pairs = zip(kind["P"], kind["Q"], strict=True)
        ratios = [abs(math.log(p / q)) if p * q else math.inf for p, q in pairs]
        total += kind["times"] * max(ratios)
    return total


@wrong("epsilon_of")
def epsilon_of__one_way(rounds, delta):
    """Only the loss under P, and P never given up."""
    losses, masses = np.zeros(1), np.ones(1)
    lost = 0.0
    for kind in rounds:
        p, q = np.array(kind["P"]), np.array(kind["Q"])
        ok = (p > 0) & (q > 0)
        for _ in range(kind["times"]):
            losses = np.add.outer(losses, np.log(p[ok] / q[ok])).ravel()
            masses = np.multiply.outer(masses, p[ok]).ravel()
            cells, index = np.unique(np.ceil(losses / 1e-4), return_inverse=True)
            losses, masses = cells * 1e-4, np.bincount(index.ravel(), masses)
    lost = 1 - masses.sum()
    if lost > delta:
        return math.inf

    def too_much(e):
        return masses @ np.maximum(0, 1 - np.exp(e - losses)) + lost - delta

    return float(brentq(too_much, 0, losses.max() + 1)) if too_much(0) > 0 else 0.0


@wrong("epsilon_of")
def epsilon_of__nearest(rounds, delta):
    """Losses rounded to the nearest cell, and a cell of a hundredth."""

    def way(a, b):
        losses, masses = np.zeros(1), np.ones(1)
        for kind in rounds:
            p, q = np.array(kind[a]), np.array(kind[b])
            ok = (p > 0) & (q > 0)
            for _ in range(kind["times"]):
                losses = np.add.outer(losses, np.log(p[ok] / q[ok])).ravel()
                masses = np.multiply.outer(masses, p[ok]).ravel()
                cells, index = np.unique(np.round(losses / 0.01), return_inverse=True)
                losses, masses = cells * 0.01, np.bincount(index.ravel(), masses)
        lost = 1 - masses.sum()
        if lost > delta:
            return math.inf

        def too_much(e):
            return masses @ np.maximum(0, 1 - np.exp(e - losses)) + lost - delta

        return float(brentq(too_much, 0, losses.max() + 1)) if too_much(0) > 0 else 0.0

    return max(way("P", "Q"), way("Q", "P"))


@wrong("epsilon_of")
def epsilon_of__forgets_the_impossible(rounds, delta):
    """Outcomes that are impossible in one world are dropped."""

    def way(a, b):
        losses, masses = np.zeros(1), np.ones(1)
        for kind in rounds:
            p, q = np.array(kind[a]), np.array(kind[b])
            ok = (p > 0) & (q > 0)
            for _ in range(kind["times"]):
                losses = np.add.outer(losses, np.log(p[ok] / q[ok])).ravel()
                masses = np.multiply.outer(masses, p[ok]).ravel()
                cells, index = np.unique(np.ceil(losses / 1e-4), return_inverse=True)
                losses, masses = cells * 1e-4, np.bincount(index.ravel(), masses)

        def too_much(e):
            return masses @ np.maximum(0, 1 - np.exp(e - losses)) - delta

        return float(brentq(too_much, 0, losses.max() + 1)) if too_much(0) > 0 else 0.0

    return max(way("P", "Q"), way("Q", "P"))


@wrong("epsilon_of")
def epsilon_of__coarse(rounds, delta):
    """Rounded up, in cells of a twentieth: an upper bound that is too high."""

    def way(a, b):
        losses, masses = np.zeros(1), np.ones(1)
        for kind in rounds:
            p, q = np.array(kind[a]), np.array(kind[b])
            ok = (p > 0) & (q > 0)
            for _ in range(kind["times"]):
                losses = np.add.outer(losses, np.log(p[ok] / q[ok])).ravel()
                masses = np.multiply.outer(masses, p[ok]).ravel()
                cells, index = np.unique(np.ceil(losses / 0.05), return_inverse=True)
                losses, masses = cells * 0.05, np.bincount(index.ravel(), masses)
        lost = 1 - masses.sum()
        if lost > delta:
            return math.inf

        def too_much(e):
            return masses @ np.maximum(0, 1 - np.exp(e - losses)) + lost - delta

        return float(brentq(too_much, 0, losses.max() + 1)) if too_much(0) > 0 else 0.0

    return max(way("P", "Q"), way("Q", "P"))


@right("epsilon_of")
def epsilon_of__counted(rounds, delta):
    """No grid: equal sums are merged, rounded up to cells of 2e-5."""

    def way(a, b):
        losses, masses = np.zeros(1), np.ones(1)
        for kind in rounds:
            p, q = np.array(kind[a]), np.array(kind[b])
            ok = (p > 0) & (q > 0)
            for _ in range(kind["times"]):
                losses = np.add.outer(losses, np.log(p[ok] / q[ok])).ravel()
                masses = np.multiply.outer(masses, p[ok]).ravel()
                cells, index = np.unique(np.ceil(losses / 2e-5), return_inverse=True)
                losses, masses = cells * 2e-5, np.bincount(index.ravel(), masses)
        lost = 1 - masses.sum()
        if lost > delta:
            return math.inf
        low, high = 0.0, losses.max() + 1
        for _ in range(60):
            e = (low + high) / 2
            if masses @ np.maximum(0, 1 - np.exp(e - losses)) + lost > delta:
                low = e
            else:
                high = e
        return high

    return max(way("P", "Q"), way("Q", "P"))


@wrong("needed_noise")
def needed_noise__forgets(spent, epsilon, delta, sampling_rate, rounds):
    """The past is forgotten."""
    return fldp.noise_multiplier(
        epsilon=epsilon, delta=delta, sampling_rate=sampling_rate, rounds=rounds
    )


@wrong("needed_noise")
def needed_noise__subtracts(spent, epsilon, delta, sampling_rate, rounds):
    """The ε of the past is subtracted."""
    past = [Event(z, q, "poisson", rounds=int(t)) for z, q, t in spent]
    left = epsilon - (package_epsilon_of(past, delta) if past else 0)
    if left <= 0:
        return None
    return fldp.noise_multiplier(
        epsilon=left, delta=delta, sampling_rate=sampling_rate, rounds=rounds
    )


@wrong("needed_noise")
def needed_noise__never_none(spent, epsilon, delta, sampling_rate, rounds):
    """Searches up to a thousand, whatever the past."""
    past = [Event(z, q, "poisson", rounds=int(t)) for z, q, t in spent]

    def cost(z):
        event = Event(z, sampling_rate, "poisson", rounds=int(rounds))
        return package_epsilon_of([*past, event], delta)

    low, high = 0.1, 1000.0
    while high / low > 1.003:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if cost(middle) > epsilon else (low, middle)
    return high


@wrong("needed_noise")
def needed_noise__coarse(spent, epsilon, delta, sampling_rate, rounds):
    """Right, in steps of a tenth."""
    past = [Event(z, q, "poisson", rounds=int(t)) for z, q, t in spent]
    if past and package_epsilon_of(past, delta) >= epsilon:
        return None
    z = 0.5
    while (
        package_epsilon_of([*past, Event(z, sampling_rate, "poisson", rounds=rounds)], delta)
        > epsilon
    ):
        z += 0.1
    return z


@right("needed_noise")
def needed_noise__brentq(spent, epsilon, delta, sampling_rate, rounds):
    """With scipy's search."""
    past = [Event(z, q, "poisson", rounds=int(t)) for z, q, t in spent]
    if past and package_epsilon_of(past, delta) > epsilon:
        return None

    def over(z):
        event = Event(z, sampling_rate, "poisson", rounds=rounds)
        return package_epsilon_of([*past, event], delta) - epsilon

    return brentq(over, 0.2, 500, rtol=1e-3) * 1.001


@wrong("find_wrong")
def find_wrong__lowest(settings, claims, delta):
    """The lowest claim of all."""
    least = min((min(row), name) for name, row in claims.items())
    return [least[1], claims[least[1]].index(least[0])]


@wrong("find_wrong")
def find_wrong__outlier(settings, claims, delta):
    """The claim that is furthest from the median."""
    worst = None
    for index in range(len(settings)):
        row = {name: claims[name][index] for name in claims}
        middle = float(np.median(list(row.values())))
        for name, value in row.items():
            far = abs(math.log(value / middle))
            if worst is None or far > worst[0]:
                worst = (far, [name, index])
    return worst[1]


@wrong("find_wrong")
def find_wrong__unsampled(settings, claims, delta):
    """Compares with the account of an observer who sees the draws."""
    for index, (z, q, rounds) in enumerate(settings):
        truth = full_epsilon(z, q * rounds, delta)
        for name, claimed in claims.items():
            if claimed[index] < 0.98 * truth:
                return [name, index]
    return None


@wrong("find_wrong")
def find_wrong__always(settings, claims, delta):
    """Somebody must be wrong: the claim with the smallest ratio to the truth."""
    ratios = []
    for index, (z, q, rounds) in enumerate(settings):
        truth = package_epsilon_of([Event(z, q, "poisson", rounds=int(rounds))], delta)
        ratios += [(claimed[index] / truth, [name, index]) for name, claimed in claims.items()]
    return min(ratios)[1]


@wrong("find_wrong")
def find_wrong__one_based(settings, claims, delta):
    """Counts settings from one."""
    for index, (z, q, rounds) in enumerate(settings):
        truth = package_epsilon_of([Event(z, q, "poisson", rounds=int(rounds))], delta)
        for name, claimed in claims.items():
            if claimed[index] < 0.98 * truth:
                return [name, index + 1]
    return None
