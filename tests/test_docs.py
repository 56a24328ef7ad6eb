"""What the README and the docs show works as it stands there."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import Campaign
from pipeline.assemble import KINDS
from pipeline.catalogue import describe_kinds
from pipeline.config import CampaignConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def block(page: Path, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"{page.name} has no {language} example"
    return found.group(1)


def test_the_readmes_config_runs_with_the_oracle_of_the_plug_in_page(tmp_path: Path) -> None:
    (tmp_path / "my_lab.py").write_text(block(ROOT / "docs" / "plugins.md", "python"))
    config = tmp_path / "demo.yaml"
    config.write_text(block(ROOT / "README.md", "yaml"))
    quick = ["sampler={kind: gflownet, n_steps: 5}", "budget={cost: 12, rounds: 1}"]
    with Campaign.from_config(config, tmp_path / "run", overrides=quick) as campaign:
        campaign.run()
        assert campaign.target == "exact"
        assert len(campaign.best(3)) == 3


def executed(page: Path) -> dict[str, Any]:
    """What all python blocks of a page leave behind, run one after another."""
    names: dict[str, Any] = {"__name__": page.stem.replace("-", "_")}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(code, str(page), "exec"), names)
    return names


@pytest.mark.filterwarnings("error::UserWarning")
def test_the_sampler_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    names = executed(ROOT / "docs" / "sampler.md")
    assert torch.isfinite(torch.tensor(names["losses"])).all()
    assert names["learned"].sum().item() == pytest.approx(1)
    assert names["wanted"].sum().item() == pytest.approx(1)
    assert len(names["best"]) == 5
    printed = re.search(r"print\(error\)  # (.*)", (ROOT / "docs" / "sampler.md").read_text())
    assert printed
    assert capsys.readouterr().out.splitlines()[-1] == printed.group(1)


def test_the_sampler_page_names_every_kind_and_option() -> None:
    text = (ROOT / "docs" / "sampler.md").read_text(encoding="utf-8")
    for section in ("environments", "losses"):
        for kind in KINDS[section]:
            assert f"| `{kind}` |" in text, kind
    for entry in describe_kinds("environments")["environments"]:
        for option in () if entry.kind == "crystal" else entry.options:
            name = option.partition(":")[0]
            row = next(line for line in text.splitlines() if line.startswith(f"| `{entry.kind}` |"))
            assert f"`{name}`" in row, f"{entry.kind}: {name}"


def test_the_environment_of_its_page_keeps_the_laws() -> None:
    space = executed(ROOT / "docs" / "add-an-environment.md")["Adsorbates"](6)
    generator = torch.Generator().manual_seed(0)
    states = space.initial_states(500)
    while not (done := space.is_terminal(states)).all():
        parents = states[~done]
        mask = space.forward_mask(parents)
        assert mask.any(dim=1).all()
        actions = torch.multinomial(mask.float(), 1, generator=generator)[:, 0]
        children = space.step(parents, actions)
        assert torch.equal(space.step_back(children, actions), parents)
        assert space.backward_mask(children).gather(1, actions[:, None]).all()
        states = states.clone()
        states[~done] = children
    keys = space.keys(states)
    assert torch.equal(space.from_keys(keys), states)
    assert torch.equal(space.encode(space.decode(states)), states)
    assert set(keys) == {
        ",".join(map(str, sites)) or "none"
        for n in range(7)
        for sites in itertools.combinations(range(6), n)
        if all((j - i) % 6 not in (1, 5) for i, j in itertools.combinations(sites, 2))
    }
    for neighbours in ("0,1", "0,5"):
        with pytest.raises(ValueError, match="neighbours"):
            space.from_keys([neighbours])


def test_every_key_of_a_config_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name in CampaignConfig.model_fields:
        assert f"| `{name}` |" in text, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    for link in links:
        assert (page.parent / link).exists(), f"{page.name} links to {link}"
    for name in re.findall(r"`((?:benchmarks|tests|sampler|oracles|pipeline)/[\w/.]+\.\w+)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"
