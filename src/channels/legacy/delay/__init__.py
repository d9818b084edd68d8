"""The application `channels.delay`: messages that are sent later, kept in the database.

    Channel("asgi.delay").send({"channel": "reminders", "content": {"pk": 3}, "delay": 60_000})

`manage.py rundelay` takes them, and sends each `content` to its `channel` after `delay`
milliseconds.
"""
