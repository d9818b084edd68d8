from django.urls import path

from chat import views

urlpatterns = [
    path("", views.rooms, name="rooms"),
    path("rooms/<slug:label>/", views.room, name="room"),
    path("accounts/signup/", views.sign_up, name="signup"),
]
