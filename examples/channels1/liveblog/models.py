from django.db import models


class BlogUpdate(models.Model):
    """An entry of the live blog."""

    content = models.TextField()
    created = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return self.content[:60]
