"""Which chapter explains a public name: the one place that says so.

A test reads each chapter for the names that it is said to explain.
"""

from __future__ import annotations

# Chapter -> the names of the package that it explains.
CHAPTERS = {
    "what-an-update-gives-away": (
        "fldp.attacks.infer_labels fldp.attacks.invert fldp.attacks.invert_linear "
        "fldp.attacks.membership fldp.attacks.simulate fldp.attacks.update_membership"
    ),
    "what-the-observer-can-do": "fldp.accounting.gaussian_mu fldp.audit.from_scores",
    "the-gaussian-mechanism": (
        "fldp.accounting.Laplace fldp.accounting.delta_of fldp.accounting.gaussian_delta "
        "fldp.accounting.gaussian_epsilon fldp.noise_multiplier"
    ),
    "federated-averaging": (
        "fldp.FedAvg fldp.LocalSGD fldp.clients.Population fldp.clients.partition fldp.train"
    ),
    "clip-noise-average": (
        "fldp.FedAvgM fldp.PerLayerClip fldp.aggregate fldp.audit.neighbour_test fldp.clip"
    ),
    "whose-privacy-from-whom": "fldp.calibrate fldp.plan.participations",
    "gradients-or-parameters": "fldp.DPSGD fldp.calibrate_records",
    "any-algorithm": "fldp.FedAdam fldp.FedProx fldp.LocalFunction fldp.Scaffold",
    "what-a-hundred-rounds-cost": (
        "fldp.Event fldp.accounting.Approximate fldp.accounting.epsilon_of "
        "fldp.accounting.pld.trace fldp.accounting.renyi fldp.epsilon"
    ),
    "sampling-clients-and-who-knows": (
        "fldp.simulation.draws.Draws fldp.simulation.sampling.MinSeparation "
        "fldp.simulation.sampling.Poisson"
    ),
    "nine-lines-that-claim-one": "fldp.audit.pipeline fldp.explain_recipe",
    "start-at-eight-and-tighten": "fldp.accounting.tradeoff fldp.min_cohort",
    "watching-the-model": (
        "fldp.Ledger fldp.accounting.selected_epsilon fldp.audit.one_run fldp.audit.training"
    ),
    "the-clip-norm": "fldp.AdaptiveClip",
    "it-does-not-learn": "fldp.diagnose",
    "from-a-laptop-to-a-population": (
        "fldp.datasets.mnist fldp.datasets.schools fldp.extrapolate fldp.features.public "
        "fldp.features.strokes"
    ),
    "on-a-real-federation": (
        "fldp.PrivateAggregator fldp.flower.Private fldp.flower.from_environment "
        "fldp.flower.local_dp"
    ),
    "a-server-that-sees-only-the-sum": (
        "fldp.Skellam fldp.accounting.lattice_gdp fldp.accounting.skellam_gdp "
        "fldp.mechanism.secagg.Client fldp.mechanism.secagg.Request fldp.mechanism.secagg.Round "
        "fldp.mechanism.secagg.Rules fldp.mechanism.secagg.Server "
        "fldp.mechanism.skellam.NoisyContribution"
    ),
    "privacy-without-a-lottery": (
        "fldp.accounting.filters.Filter fldp.accounting.filters.fractional "
        "fldp.accounting.filters.independent fldp.accounting.fitting.blt "
        "fldp.mechanism.correlation.Correlated"
    ),
}
# Name -> chapter.
EXPLAINED = {name: chapter for chapter, names in CHAPTERS.items() for name in names.split()}
