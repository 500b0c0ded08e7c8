"""`script/demo`, story by story."""

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from tests.lab.demo.show import Show
from tests.lab.demo.stage import LOGIN, Stage, configuration
from tests.lab.demo.stories import STORIES, Story
from tests.lab.site import Site

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("demo")
    with Site.of_this_process("rb-told", directory, login=LOGIN, more=configuration(directory)) as site:
        yield Stage(site, Show(Console(file=io.StringIO(), width=140)), patience=5)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_every_step_of_a_story_is_as_expected(stage: Stage, story: Story) -> None:
    """In the order of the demo: after the last one nothing works."""
    with stage.show.story(story.name, story.heading):
        story.play(stage)
    assert all(step["ok"] for step in stage.show.as_json() if step["story"] == story.name)
