"""Counts the words of each user, exactly once.

    python word_counts.py --datadir=data/words worker

Two source topics, both keyed by user: `said` (a text) is consumed in batches, the fast way; `forget` (a word)
by a plain Faust agent, one event after the other. They share the table `words`, so they share tasks, hence
transactions. Each event sends one record to `word-counts`: however often a worker is killed, the counts there
are those of a single, undisturbed run.
"""

import os
from collections import Counter
from typing import Any

import faust
from confluent_kafka.admin import NewTopic

import faust_exactly_once as exactly_once
from faust_exactly_once import Options, batched

PARTITIONS = 4


def create_app(app_id: str = "word-counts", broker: str = "127.0.0.1:9092") -> faust.App:
    """Build the app; topic names begin with its id."""
    app = faust.App(app_id, **exactly_once.settings([f"kafka://{broker}"], session_timeout_s=6.0))
    exactly_once.install(app, Options(client_config={"bootstrap.servers": broker}))
    names = [f"{app_id}-said", f"{app_id}-forget", f"{app_id}-counts"]
    topics = [NewTopic(name, PARTITIONS, 1) for name in names]
    exactly_once.before_start(app, lambda cluster: cluster.create(topics))

    said = batched(app.topic(names[0]))
    forget = app.topic(names[1], key_type=str, key_serializer="raw", value_type=str, value_serializer="raw")
    counts = app.topic(names[2], value_serializer="json")
    words = app.Table("words", default=int)

    async def count_words(event: exactly_once.Event) -> None:
        user = (event.key or b"").decode()
        changed = Counter((event.value or b"").decode().split())
        for word, times in changed.items():
            words[f"{user}/{word}"] += times
        await counts.send(key=event.key, value={word: words[f"{user}/{word}"] for word in changed})

    @app.agent(said)
    async def count(stream: Any) -> None:
        async for batch in stream:
            await batch.each(count_words)

    @app.agent(forget)
    async def forget_word(stream: Any) -> None:
        async for user, word in stream.items():
            words[f"{user}/{word}"] = 0
            await counts.send(key=user.encode(), value={word: 0})

    return app


if __name__ == "__main__":
    create_app(
        os.environ.get("WORDS_APP_ID", "word-counts"), os.environ.get("WORDS_BROKER", "127.0.0.1:9092")
    ).main()
