from django.contrib import admin

from chat.models import Message, Room


@admin.register(Room)
class RoomAdmin(admin.ModelAdmin):
    list_display = ("name", "label")
    search_fields = ("name", "label")
    prepopulated_fields = {"label": ("name",)}


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    list_display = ("time", "room", "handle", "is_member", "text")
    list_filter = ("room",)
    search_fields = ("handle", "text")
    date_hierarchy = "time"
    list_select_related = ("room",)
