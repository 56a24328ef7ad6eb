"""What the README and the docs show works as it stands there."""

import re
from pathlib import Path

import pytest

from pipeline import Campaign
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
