"""Sequence classifier: shapes and scales, saved and loaded, exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rmc_agents.errors import UsageError
from rmc_agents.runs.checkpoint import save_checkpoint
from rmc_agents.runs.folder import read_config, write_config
from rmc_agents.supervised.classifier import (
    ClassifierOutput,
    SequenceClassifier,
    export_classifier,
    load_classifier,
)
from tests.conftest import small_options


def small(core: str = "gru", **options: object) -> SequenceClassifier:
    sizes = {"hidden_size": 8, "hidden_layers": 2, **options}
    return SequenceClassifier(5, 3, core, small_options(core), **sizes)  # type: ignore[arg-type]


def test_logits_are_returned_at_the_requested_steps(any_core: str) -> None:
    model = small(any_core)
    inputs = torch.randn(4, 2, 5)
    outputs, logits = model(inputs)
    assert outputs.shape == (4, 2, model.core.output_size)
    assert logits.shape == (4, 2, 3)
    steps = torch.tensor([1, 3])
    some = model(inputs, steps)
    assert isinstance(some, ClassifierOutput)
    torch.testing.assert_close(some.logits, logits[steps])
    torch.testing.assert_close(some.outputs, outputs)


def test_input_scale_equals_larger_inputs() -> None:
    model, scaled = small(), small(scaled_inputs=2, input_scale=4.0)
    scaled.load_state_dict(model.state_dict())
    inputs = torch.randn(4, 2, 5)
    larger = inputs * torch.tensor([4.0, 4.0, 1.0, 1.0, 1.0])
    torch.testing.assert_close(scaled(inputs).logits, model(larger).logits)


def test_matrices_are_those_of_the_inner_layers() -> None:
    model = small(aux_size=4)
    assert model.aux_head is not None
    given = {id(p) for p in model.matrices()}
    names = {name for name, p in model.named_parameters() if id(p) in given}
    every = {name for name, p in model.named_parameters() if p.ndim == 2}
    assert names == every - {"logits.weight", "aux_head.weight"}
    assert len(names) > 2


@pytest.mark.parametrize("options", [{"scaled_inputs": 6}, {"input_scale": 0.0}, {"hidden_layers": 0}])
def test_sizes_that_do_not_fit_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"expected|must be"):
        small(**options)


def test_to_json_holds_the_arguments_of_the_constructor() -> None:
    model = small("rmc", aux_size=2, scaled_inputs=1, input_scale=2.0)
    again = SequenceClassifier(**model.to_json())
    assert again.to_json() == model.to_json()
    shapes = {name: x.shape for name, x in model.state_dict().items()}
    assert {name: x.shape for name, x in again.state_dict().items()} == shapes
    assert (again.core_name, again.to_json()["aux_size"]) == ("rmc", 2)
    model.to_json()["core"] = "gru"
    assert model.core_name == "rmc", "the result is a copy"


def test_saved_classifier_is_loaded(tmp_path: Path) -> None:
    model = small("rmc", aux_size=2, scaled_inputs=1, input_scale=2.0)
    write_config(tmp_path, {"classifier": model.to_json()})
    save_checkpoint(tmp_path, 7, {"agent": model.state_dict(), "seconds": 3.0})
    again, path, payload = load_classifier(tmp_path)
    assert path.name == "step_000000000007.pt"
    assert payload["seconds"] == 3.0
    assert not again.training
    inputs = torch.randn(4, 2, 5)
    assert torch.equal(again(inputs).logits, model(inputs).logits)


def test_classifier_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, {"classifier": small("lstm").to_json()})
    save_checkpoint(tmp_path, 7, {"agent": small("gru").state_dict()})
    with pytest.raises(UsageError, match="another configuration"):
        load_classifier(tmp_path)
    write_config(tmp_path, {"classifier": {"core": "gru"}})
    with pytest.raises(UsageError, match="does not describe a classifier"):
        load_classifier(tmp_path)
    write_config(tmp_path, {"agent": {"core": "gru"}})
    with pytest.raises(UsageError, match=r"holds an agent, not a classifier: load it with rmc_agents\.load"):
        load_classifier(tmp_path)


def test_exported_classifier_is_smaller_and_answers_alike(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    model = small("rmc", aux_size=9)
    write_config(run, {"classifier": model.to_json(), "seed": 4})
    more = {"optimizers": [torch.zeros(5000)], "seconds": 3.0, "counters": [7, 1]}
    saved = save_checkpoint(run, 7, {"agent": model.state_dict(), **more})
    path = export_classifier(run, out)
    assert path == out / "checkpoints" / "step_000000000007.pt"
    assert path.stat().st_size < saved.stat().st_size
    again, _, payload = load_classifier(out)
    assert again.aux_head is None
    assert (payload["seconds"], payload["counters"]) == (3.0, [7, 1])
    assert read_config(out)["seed"] == 4
    inputs = torch.randn(4, 2, 5)
    torch.testing.assert_close(again(inputs).logits, model(inputs).logits, atol=0.02, rtol=0.02)
    with pytest.raises(UsageError, match="exists"):
        export_classifier(run, out)
    with torch.no_grad():
        model.logits.weight.fill_(1e6)
    save_checkpoint(run, 8, {"agent": model.state_dict()})
    with pytest.raises(UsageError, match="too large for half precision"):
        export_classifier(run, tmp_path / "third")
