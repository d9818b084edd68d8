"""No pages: tests that need some bring their own URLconf."""

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
