from dataclasses import replace

import makers
import pytest

from trainers.run_identity import identity

DIGEST = "bde5b215c32ac9ac43705c3e8417cdf0"
"""Identity of the plan of `makers` without cases, as versions before the loss could be chosen computed it."""


def test_checkpoints_from_before_the_loss_could_be_chosen_are_still_accepted():
    configuration = makers.configuration()
    assert identity(makers.plan(configuration), configuration, ()) == DIGEST


@pytest.mark.parametrize("recipe", [{"loss": "other"}, {"loss_settings": {"weight": 1}}, {"lambda_ce": 0.4}])
def test_another_loss_is_another_run(recipe):
    configuration = makers.configuration(training=recipe)
    assert identity(makers.plan(configuration), configuration, ()) != DIGEST


@pytest.mark.parametrize("mechanism", ["fusion", "attention"])
def test_a_mechanism_that_earlier_versions_did_not_have_is_another_run(mechanism):
    network = makers.network_plan()
    added = {"levels": True} if mechanism == "fusion" else {"gradient_channel": True}
    changed = replace(network, **{mechanism: replace(getattr(network, mechanism), **added)})
    configuration = makers.configuration(network=changed)
    assert identity(makers.plan(configuration), configuration, ()) != DIGEST
