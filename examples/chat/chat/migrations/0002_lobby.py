from django.db import migrations


def make_lobby(apps, schema_editor):
    """A first room, so that there is a door to walk through."""
    apps.get_model("chat", "Room").objects.get_or_create(label="lobby", defaults={"name": "Lobby"})


class Migration(migrations.Migration):
    dependencies = [("chat", "0001_initial")]
    operations = [migrations.RunPython(make_lobby, migrations.RunPython.noop)]
