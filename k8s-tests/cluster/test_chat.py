"""A fresh release answers: `helm test`, and the official SDK through the Service."""

import pytest

from cluster.check import visit
from cluster.kube import is_ready
from cluster.release import Release
from tests.chaos.acts import begin_talk
from tests.chaos.said import answered

pytestmark = pytest.mark.anyio


async def test_all_pods_are_ready_once_the_install_returns(main: Release) -> None:
    """In a namespace that enforces restricted pods."""
    for component in ("api", "worker", "redis", "postgresql"):
        pods = await main.namespace.pods(component, selector=main.selector)
        assert pods, component
        assert all(is_ready(pod) for pod in pods), component


async def test_helm_test(main: Release) -> None:
    async with visit(main):
        assert await main.run_tests()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_chat_with_the_sdk(main: Release, *, streamed: bool) -> None:
    """It remembers, and what it answered is stored."""
    async with visit(main) as town:
        talk, create = await begin_talk(town, town.door), town.openai.responses.create
        for said in (town.ledger.text(), town.ledger.text()):
            if streamed:
                stream = await create(input=said, conversation=talk.conversation, stream=True)
                final = [event async for event in stream][-1]
                assert final.type == "response.completed"
                response = final.response
            else:
                response = await create(input=said, conversation=talk.conversation)
            assert response.output_text == said
            talk.hear([said, answered(response.output_text)])
            talk.responses.append(response.id)
        items = [item async for item in town.openai.conversations.items.list(talk.conversation)]
        assert len(items) == len(talk.told)
