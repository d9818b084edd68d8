from django.urls import path

from chat import views

urlpatterns = [
    path("", views.about, name="about"),
    path("<slug:label>/", views.chat_room, name="chat_room"),
]
