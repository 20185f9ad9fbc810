import pytest

import zoo
from zoo.criteria import CRITERIA
from zoo.registry import REQUIRED, Registry


class Net:
    def __init__(self, *, depth: int, width: int = 16) -> None:
        self.depth, self.width = depth, width


@pytest.fixture
def nets() -> Registry:
    """net110, net20 and net3, registered in this order."""
    registry = Registry("backbone")
    registry.variants(net110={"depth": 110}, net20={"depth": 20, "width": 32}, net3={"depth": 3})(Net)
    return registry


def test_a_row_builds_with_its_own_values_and_an_option_overrides_them(nets):
    built = nets.build("net20"), nets.build("net20", depth=8), nets.build("net3", width=1)
    assert [(net.depth, net.width) for net in built] == [(20, 32), (8, 32), (3, 1)]


def test_options_are_the_constructors_with_the_rows_values_in_place_of_its_defaults(nets):
    nets.variants(bare={})(Net)
    assert nets["net110"].options == {"depth": 110, "width": 16}
    assert nets["net20"].options == {"depth": 20, "width": 32}
    assert nets["bare"].options == {"depth": REQUIRED, "width": 16}


def test_names_come_in_natural_order_whatever_the_order_of_registration(nets):
    assert list(nets) == ["net3", "net20", "net110"]
    assert nets.names("net?*0") == ["net20", "net110"]


@pytest.mark.parametrize("again", [lambda r: r.variants(net20={"depth": 1}), lambda r: r.register], ids=["row", "own"])
def test_a_name_is_registered_once_and_the_first_stays(nets, again):
    other = type("net20", (Net,), {})
    with pytest.raises(ValueError, match="a backbone is already named 'net20'"):
        again(nets)(other)
    assert nets["net20"].builder is Net


def test_a_row_with_an_option_that_the_class_lacks_is_refused_by_name():
    registry = Registry("backbone")
    with pytest.raises(TypeError, match=r"the row wide has options that Net lacks: \['heads', 'widht'\]"):
        registry.variants(wide={"depth": 2, "widht": 3, "heads": 4})(Net)
    assert "wide" not in registry


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("resnet2O", "no backbone is named 'resnet2O'; did you mean resnet20"),
        ("RESNET20", "did you mean resnet20"),
        ("reznet110", "did you mean resnet110"),
        ("capsnett", "did you mean capsnet"),
        ("lenets", "did you mean lenet5"),
    ],
)
def test_a_miss_suggests_the_near_names(given, told):
    assert not zoo.is_model(given)
    with pytest.raises(ValueError, match=told):
        zoo.create_model(given)


def test_a_miss_that_is_near_nothing_lists_all_that_is_known_in_natural_order(nets):
    with pytest.raises(ValueError, match=r"no backbone is named 'q'; known: net3, net20, net110$"):
        nets["q"]


def test_a_miss_in_an_empty_registry_says_that_it_is_empty():
    with pytest.raises(ValueError, match="no attack is named 'fgsm'; there are none"):
        Registry("attack")["fgsm"]


@pytest.mark.parametrize("call", [Registry.build, Registry.bind])
def test_an_unknown_option_is_a_type_error_that_names_it_and_its_neighbour(nets, call):
    with pytest.raises(TypeError, match=r"net20 has no option 'widht'; did you mean width\?"):
        call(nets, "net20", widht=3)


def test_create_model_names_the_unknown_option():
    with pytest.raises(TypeError, match=r"resnet20 has no option 'depth'; known: in_chans, n, num_classes, shortcut$"):
        zoo.create_model("resnet20", depth=3)


def test_a_bound_function_keeps_its_options_and_takes_its_arguments_later():
    registry = Registry("loss")

    @registry.register(reads="logits")
    def power(scores, y, *, exponent=1):
        return (scores - y) ** exponent

    assert registry.bind("power", exponent=3)(5, 3) == 8
    assert registry.bind("power")(5, 3) == 2
    assert registry["power"].facts == {"reads": "logits"}


def test_a_registry_does_not_share_its_names_with_another(nets):
    assert "net20" not in Registry("backbone")
    assert set(nets).isdisjoint(CRITERIA)


def test_list_models_filters_by_pattern_and_family_in_natural_order():
    assert zoo.list_models("resnet*0", family="resnet_cifar") == ["resnet20", "resnet110"]
    assert zoo.list_models("resnet*", family="lenet") == []
    names = zoo.list_models(family="resnet_cifar")
    assert names == ["plain20", "plain32", "plain44", "plain56", "plain110", *names[5:]]
    assert names[5:] == ["resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "resnet1202"]
    assert set(names) < set(zoo.list_models())


def test_an_unknown_family_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ValueError, match=r"no family is named 'resnet_cifra'; did you mean resnet_cifar"):
        zoo.list_models(family="resnet_cifra")
