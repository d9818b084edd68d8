from django.urls import path

from liveblog import views

urlpatterns = [path("", views.liveblog, name="liveblog")]
