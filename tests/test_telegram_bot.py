"""A Telegram bot, followed with the real library against a Bot API server on loopback."""

import asyncio
import json
import logging
import traceback
from contextlib import aclosing
from datetime import UTC, datetime

import pytest
from live_servers import CHANNEL, GROUP, TOKEN, bot_api

from feedsieve.message import Message
from feedsieve.sources.live.source import InvalidSource, SourceEnded, SourceUnavailable
from feedsieve.sources.live.telegram_bot import TelegramBot

__all__ = ["bot_api"]

ANNA = {"id": 7, "is_bot": False, "first_name": "Анна", "last_name": "К."}


def follow(bot_api, position=None, batches=None, once=True, token=TOKEN):
    """Return the batches of a bot: all of them, or the first `batches` of an endless poll."""

    async def collect():
        found = []
        source = TelegramBot(token, bot_api.url)
        async with aclosing(source.batches(position, once=once)) as stream:
            async for batch in stream:
                found.append(batch)
                if len(found) == batches:
                    break
        return found

    return asyncio.run(asyncio.wait_for(collect(), 20))


def messages(batches) -> list[Message]:
    return [message for batch in batches for message in batch.messages]


def only(bot_api, kind="message", **fields) -> Message:
    bot_api.put(kind, message_id=1, **fields)
    [message] = messages(follow(bot_api))
    return message


class TestMessages:
    def test_message_of_a_supergroup_has_all_its_fields(self, bot_api):
        earlier = {"message_id": 16, "date": 1_699_999_000, "chat": GROUP, "text": "Кто дома?"}
        bot_api.put(message_id=17, text="Я дома", reply_to_message=earlier, **{"from": ANNA})
        [message] = messages(follow(bot_api))
        assert message == Message(
            id="17",
            text="Я дома",
            channel="Соседи",
            time=datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
            source="telegram:channel:1234567890",
            sender="Анна К.",
            link="https://t.me/c/1234567890/17",
            reply_to="16",
        )

    def test_channel_post_links_to_the_public_name(self, bot_api):
        message = only(bot_api, "channel_post", text="Привет", chat=CHANNEL, sender_chat=CHANNEL)
        assert message.link == "https://t.me/novosti_test/1"
        assert (message.channel, message.sender) == ("Новости", "Новости")

    @pytest.mark.parametrize("kind", ["edited_message", "edited_channel_post"])
    def test_edit_has_its_time(self, bot_api, kind):
        message = only(bot_api, kind, text="Уже не дома", edit_date=1_700_000_060)
        assert message.edited == datetime(2023, 11, 14, 22, 14, 20, tzinfo=UTC)

    def test_caption_of_a_photo_is_a_text(self, bot_api):
        photo = [{"file_id": "a", "file_unique_id": "b", "width": 1, "height": 1}]
        assert only(bot_api, caption="Закат", photo=photo).text == "Закат"

    def test_forwarded_message_belongs_to_its_new_chat(self, bot_api):
        origin = {"type": "channel", "date": 1, "chat": CHANNEL, "message_id": 5}
        message = only(bot_api, text="Смотрите", forward_origin=origin, **{"from": ANNA})
        assert (message.id, message.sender, message.channel) == ("1", "Анна К.", "Соседи")

    def test_address_behind_a_text_is_kept(self, bot_api):
        text = "🏠🏠 тут и там, example.org"
        entities = [
            {"type": "text_link", "offset": 5, "length": 3, "url": "https://example.org/a"},
            {"type": "bold", "offset": 0, "length": 4},
            {"type": "text_link", "offset": 9, "length": 5, "url": "https://example.org/b"},
            {"type": "text_link", "offset": 16, "length": 11, "url": "https://example.org/"},
        ]
        message = only(bot_api, text=text, entities=entities)
        assert message.text == (
            "🏠🏠 тут (https://example.org/a) и там (https://example.org/b), example.org"
        )

    def test_poll_is_its_question_and_answers(self, bot_api):
        poll = {
            "id": "1",
            "question": "Когда встречаемся?",
            "options": [
                {"persistent_id": str(number), "text": text, "voter_count": 0}
                for number, text in enumerate(("Утром", "Вечером"))
            ],
            "total_voter_count": 0,
            "is_closed": False,
            "is_anonymous": True,
            "type": "regular",
            "allows_multiple_answers": False,
            "allows_revoting": False,
            "members_only": False,
        }
        assert only(bot_api, poll=poll).text == "Когда встречаемся?\n- Утром\n- Вечером"

    @pytest.mark.parametrize(
        ("chat", "source", "title"),
        [
            ({"id": -42, "type": "group", "title": "Двор"}, "telegram:group:42", "Двор"),
            ({"id": 7, "type": "private", "first_name": "Анна"}, "telegram:user:7", "Анна"),
        ],
    )
    def test_chats_that_are_no_channels_have_no_links(self, bot_api, chat, source, title):
        message = only(bot_api, text="Привет", chat=chat)
        assert (message.source, message.channel, message.link) == (source, title, None)

    def test_message_without_text_is_counted(self, bot_api):
        bot_api.put(message_id=1, new_chat_title="Соседи")
        bot_api.put(message_id=2, text="  ")
        bot_api.put("my_chat_member_of_the_future", message_id=3)
        [batch, _end] = follow(bot_api)
        assert list(batch.messages) == []
        assert batch.report.skipped == {"without text": 2, "updates without a message": 1}


class TestPosition:
    def test_second_run_starts_after_the_first(self, bot_api):
        bot_api.put(message_id=1, text="раз")
        [batch, _end] = follow(bot_api)
        bot_api.put(message_id=2, text="два")
        assert [one.text for one in messages(follow(bot_api, batch.position))] == ["два"]
        assert bot_api.updates == []

    def test_updates_are_confirmed_only_after_the_next_batch_is_asked_for(self, bot_api):
        bot_api.put(message_id=1, text="раз")
        [batch] = follow(bot_api, batches=1, once=False)
        assert len(bot_api.updates) == 1  # killed now, it comes again
        assert messages(follow(bot_api)) == batch.messages

    def test_many_updates_come_in_several_batches(self, bot_api):
        for number in range(250):
            bot_api.put(message_id=number + 1, text=f"номер {number}")
        found = follow(bot_api)
        assert [len(list(batch.messages)) for batch in found] == [100, 100, 50, 0]

    def test_long_poll_brings_a_message_at_once(self, bot_api):
        async def collect():
            source = TelegramBot(TOKEN, bot_api.url)
            async with aclosing(source.batches(None, once=False)) as stream:
                waiting = asyncio.ensure_future(anext(stream))
                while not bot_api.asked:
                    await asyncio.sleep(0.01)
                bot_api.put(message_id=1, text="раз")
                return await asyncio.wait_for(waiting, 5)

        assert len(list(asyncio.run(collect()).messages)) == 1

    @pytest.mark.parametrize("change", [{"seen_at": 0}, {"api": "http://127.0.0.1:1"}])
    def test_old_or_foreign_offset_is_not_sent(self, bot_api, change):
        """It could confirm updates that nobody has read: Telegram counts anew after a week."""
        bot_api.put(message_id=1, text="раз")
        [batch, _end] = follow(bot_api)
        bot_api.next_id = 3
        bot_api.put(message_id=2, text="два")
        position = json.dumps(json.loads(batch.position) | change)
        assert [one.text for one in messages(follow(bot_api, position))] == ["два"]


class TestFailures:
    def test_rejected_token_ends_the_source(self, bot_api):
        bot_api.token = "1:another"
        with pytest.raises(SourceEnded, match="rejects the token; check FEEDSIEVE_TELEGRAM_TOKEN"):
            follow(bot_api)

    def test_token_revoked_later_ends_the_source(self, bot_api):
        bot_api.fail(401, "Unauthorized")
        with pytest.raises(SourceEnded, match="rejects the token"):
            follow(bot_api)

    def test_conflict_names_the_other_program(self, bot_api):
        bot_api.fail(409, "Conflict: terminated by other getUpdates request")
        with pytest.raises(SourceUnavailable, match="another program polls this bot"):
            follow(bot_api)

    def test_flood_control_says_how_long_to_wait(self, bot_api):
        bot_api.fail(429, "Too Many Requests: retry after 7", retry_after=7)
        with pytest.raises(SourceUnavailable) as caught:
            follow(bot_api)
        assert caught.value.retry_after == 7

    @pytest.mark.parametrize("status", [400, 403, 500, 502, 504])
    def test_error_of_the_server_is_one_line(self, bot_api, status):
        bot_api.fail(status, "the server is\nbroken")
        with pytest.raises(SourceUnavailable, match="as it should: the server is broken"):
            follow(bot_api)

    def test_lost_network_is_one_line(self, bot_api):
        bot_api.server_close()
        with pytest.raises(SourceUnavailable, match="does not answer as it should: httpx.Connect"):
            follow(bot_api)

    def test_incomplete_update_is_counted_and_does_not_hold_up_the_others(self, bot_api, caplog):
        bot_api.put(message_id=1, text="раз")
        bot_api.put(text="сокровенное")  # without the required message_id
        bot_api.put(message_id=3, text="три")
        [batch, _end] = follow(bot_api)
        assert [message.text for message in batch.messages] == ["раз", "три"]
        assert batch.report.skipped == {"without an identifier": 1}
        assert bot_api.updates == []
        assert "сокровенное" not in caplog.text

    def test_message_that_the_library_rejects_is_read(self, bot_api):
        poll = {"question": "Когда?", "options": [{"text": "Утром"}]}  # without required fields
        bot_api.put(message_id=1, poll=poll)
        [batch, _end] = follow(bot_api)
        assert [message.text for message in batch.messages] == ["Когда?\n- Утром"]

    def test_answer_that_is_no_json_is_one_line(self, bot_api):
        bot_api.failures.append((200, "not a result"))
        with pytest.raises(SourceUnavailable, match="telegram: "):
            follow(bot_api)

    @pytest.mark.parametrize("token", ["", "abc", "123", "12:x y", "https://example.org/12:abcdef"])
    def test_text_that_is_no_token_is_rejected_without_it(self, token):
        with pytest.raises(InvalidSource) as caught:
            TelegramBot(token, "http://127.0.0.1:1")
        assert not token or token not in str(caught.value)

    @pytest.mark.parametrize("status", [401, 409, 500])
    def test_token_is_in_no_log_and_no_traceback(self, bot_api, caplog, status):
        caplog.set_level(logging.DEBUG)
        bot_api.put(message_id=1, text="раз")
        follow(bot_api, batches=1, once=False)
        bot_api.fail(status, f"unknown bot {TOKEN}")
        with pytest.raises((SourceEnded, SourceUnavailable)) as caught:
            follow(bot_api)
        said = caplog.text + "".join(traceback.format_exception(caught.value))
        assert TOKEN.partition(":")[2] not in said
