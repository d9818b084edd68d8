import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from chat import names


def claim_names(apps, schema_editor):
    """Members from before get their names' keys; of two who look alike, the elder."""
    label, model = settings.AUTH_USER_MODEL.split(".")
    user_model, member_name = apps.get_model(label, model), apps.get_model("chat", "MemberName")
    for user in user_model.objects.order_by("pk").iterator():
        for key in names.keys_of(user.username):
            member_name.objects.get_or_create(key=key, defaults={"user": user})


class Migration(migrations.Migration):
    dependencies = [
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
        ("chat", "0002_lobby"),
    ]
    operations = [
        migrations.AddField(
            model_name="message",
            name="is_member",
            field=models.BooleanField(default=False),
        ),
        migrations.CreateModel(
            name="MemberName",
            fields=[
                ("key", models.CharField(max_length=150, primary_key=True, serialize=False)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
        ),
        migrations.RunPython(claim_names, migrations.RunPython.noop),
    ]
