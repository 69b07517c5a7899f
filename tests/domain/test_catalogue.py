"""The catalogue finds a model by its id and by each alias."""

import pytest

from penstock.domain.catalogue import Catalogue, Model, Target
from penstock.domain.errors import PenstockError

SONNET = Model(id="claude-4-6-sonnet", owner="anthropic", aliases=("claude-sonnet-4-6",))
SMALL = Model(id="small", owner="local")


def test_a_model_is_found_by_id_and_by_alias() -> None:
    catalogue = Catalogue([SONNET, SMALL])
    assert catalogue.find("claude-4-6-sonnet") is SONNET
    assert catalogue.get("claude-sonnet-4-6") is SONNET
    assert catalogue.find("small") is SMALL


def test_models_are_listed_in_the_order_given() -> None:
    assert Catalogue([SMALL, SONNET]).models == (SMALL, SONNET)


def test_an_unknown_model_is_named_and_bounded_in_the_refusal() -> None:
    catalogue = Catalogue([SMALL])
    assert catalogue.find("x") is None
    with pytest.raises(PenstockError, match=r"The model 'x+' does not exist") as caught:
        catalogue.get("x" * 5000)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert len(caught.value.message) < 300


def test_the_default_is_the_named_model_where_it_is_served_else_the_first_chat_model_that_is() -> None:
    target = (Target(provider="p", model="m"),)
    picture = Model(id="picture", owner="o", type=("text-to-image",), targets=target)
    first, second = Model(id="first", owner="o", targets=target), Model(id="second", owner="o", targets=target)
    models = [SONNET, picture, first, second]
    assert Catalogue(models, default="second").default is second
    assert Catalogue(models).default is first
    assert Catalogue(models, default="claude-4-6-sonnet").default is first
    assert Catalogue([SONNET, picture]).default is None
