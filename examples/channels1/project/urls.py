from django.urls import include, path

urlpatterns = [
    path("liveblog/", include("liveblog.urls")),
    path("", include("chat.urls")),
]
