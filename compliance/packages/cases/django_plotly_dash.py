"""django-plotly-dash: values pushed to pages through a WebSocket, and by HTTP to its consumer.

It takes `channels.http` as the sign of Channels 2 or 3, so its routes name consumer classes.
"""

REQUIREMENTS = ["django-plotly-dash"]
APPS = ["django_plotly_dash.apps.DjangoPlotlyDashConfig"]
SETTINGS = {"PLOTLY_DASH": {"http_poke_enabled": True}}


def application(django):
    from django_plotly_dash.routing import application

    return application


def drive(site):
    import json

    from django_plotly_dash.consumers import send_to_pipe_channel

    with site.socket("/dpd/ws/channel") as first, site.socket("/dpd/ws/channel") as second:
        for number, socket in enumerate((first, second)):
            socket.say(
                {
                    "type": "connection_triplet",
                    "channel_name": "prices",
                    "uid": f"page {number}",
                    "label": "price",
                }
            )
        # A page hears its own values too: then it is a member, and so is the other.
        for number, socket in enumerate((first, second)):
            socket.say({"channel_name": "prices", "label": "price", "value": number})
            socket.hear_until(value=number)
        send_to_pipe_channel("prices", "price", 7)
        for socket in (first, second):
            socket.hear_until(value=7, label="price")
        body = json.dumps({"channel_name": "prices", "label": "price", "value": 8})
        status, text = site.request("POST", "/dpd/views/poke/", body)
        assert status == 200, text
        for socket in (first, second):
            socket.hear_until(value=8)
